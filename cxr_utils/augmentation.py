"""Random changes to training images, as TensorFlow operations on a whole batch.

Labels are not touched, and pixels stay within their range. Randomness is stateless: the same seed
gives the same changes, whatever ran before.
"""

from __future__ import annotations

import math

import tensorflow as tf

from .params import Augmentation


def to_float(pixels: tf.Tensor) -> tf.Tensor:
    """Turn grey images of uint8, shape (n, size, size), into float32 in 0..1, shape (n, size, size, 1)."""
    return tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255.0


def augment(images: tf.Tensor, settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Change each image of a batch at random, within the bounds of `settings`.

    Parameters
    ----------
    images : tf.Tensor of float32, shape (n, size, size, 1)
        Grey images in 0..1.
    settings : Augmentation
        The largest change of each kind.
    seed : tf.Tensor of int32, shape (2,)
        Seed of this batch.

    Returns
    -------
    tf.Tensor of float32, shape (n, size, size, 1)
        Changed images in 0..1; the border is repeated where an image was moved.
    """
    count, side = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    draws = tf.random.stateless_uniform([7, count], seed, -1.0, 1.0)
    matrix = _transforms(draws, side, settings)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrix,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    contrast = (1.0 + settings.contrast * draws[5])[:, None, None, None]
    brightness = (settings.brightness * draws[6])[:, None, None, None]
    mean = tf.reduce_mean(moved, axis=(1, 2, 3), keepdims=True)
    return tf.clip_by_value((moved - mean) * contrast + mean + brightness, 0.0, 1.0)


def _transforms(draws: tf.Tensor, side: tf.Tensor, settings: Augmentation) -> tf.Tensor:
    """Eight numbers an image that map a pixel of the output to one of the input, turning about the centre."""
    mirror = tf.sign(draws[0]) if settings.flip else tf.ones_like(draws[0])
    angle = draws[1] * (settings.rotation * math.pi / 180.0)
    zoom = 1.0 / (1.0 + settings.zoom * draws[2])
    middle = (side - 1.0) / 2.0
    a, b = zoom * mirror * tf.cos(angle), -zoom * tf.sin(angle)
    c, d = zoom * mirror * tf.sin(angle), zoom * tf.cos(angle)
    shift_x, shift_y = settings.shift * side * draws[3], settings.shift * side * draws[4]
    offset_x = middle + shift_x - (a + b) * middle
    offset_y = middle + shift_y - (c + d) * middle
    none = tf.zeros_like(a)
    return tf.stack([a, b, offset_x, c, d, offset_y, none, none], axis=1)
