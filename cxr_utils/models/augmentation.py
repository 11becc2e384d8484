"""Training images in batches, changed at random by TensorFlow operations on a whole batch.

Labels are not touched, and pixels stay within their range. Randomness is stateless: the same seed
gives the same changes, whatever ran before.
"""

from __future__ import annotations

import math
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from ..data.dataset import Split
from ..parameters import Augmentation

# Width on each side of a border that is taken from another image, as a share of the side.
BORDER = (0.04, 0.22)
# Drawn for each image in -1..1, times its strength in `Augmentation`; noise takes it absolute.
GEOMETRY = ("flip", "rotation", "zoom", "stretch", "shift_x", "shift_y")
DRAWS = (*GEOMETRY, "sharpness", "contrast", "brightness", "gamma", "noise")


class Batches(keras.utils.PyDataset):
    """Full batches of training images for ``fit``, in another order and changed anew each epoch.

    Both follow from the seed and the epoch alone, which `begin` is told, so that a training that
    was stopped goes on as it would have. (Give ``shuffle=False`` to ``fit``, which would shuffle
    the batches once more.)

    Parameters
    ----------
    split : Split
        The training images.
    batch_size : int
        Images in a batch.
    settings : Augmentation
        The largest change of each kind.
    seed : int
        Decides order and changes.
    """

    epoch = 0

    def __init__(self, split: Split, batch_size: int, settings: Augmentation, seed: int) -> None:
        super().__init__()
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.augment = tf.function(partial(augment, settings=settings), autograph=False)

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    @property
    def class_weight(self) -> dict[int, float]:
        """Weights for ``fit`` by which both classes weigh alike, however many images they have."""
        share = float(np.mean(self.split.labels))
        return {0: 0.5 / (1 - share), 1: 0.5 / share}

    def begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begin an epoch, from 0; for a ``keras.callbacks.LambdaCallback``."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images in 0..1, shape (n, size, size, 1), and labels, shape (n,), as float32."""
        order = np.random.default_rng([self.seed, 2, self.epoch]).permutation(len(self.split))
        rows = order[index * self.batch_size :][: self.batch_size]
        seed = tf.constant([self.seed, self.epoch * len(self) + index], tf.int32)
        with tf.device("CPU"):
            images = self.augment(to_float(tf.constant(self.split.pixels[rows])), seed=seed)
        return images.numpy(), self.split.labels[rows].astype(np.float32)


def to_float(pixels: tf.Tensor) -> tf.Tensor:
    """Turn uint8, shape (n, size, size), into float32 in 0..1, shape (n, size, size, 1)."""
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
    draws = tf.random.stateless_uniform([len(DRAWS), tf.shape(images)[0]], seed, -1.0, 1.0)
    changed = change(images, draws, settings, seed)
    return _other_borders(changed, settings.rim, seed) if settings.rim else changed


def change(
    images: tf.Tensor, draws: tf.Tensor, settings: Augmentation, seed: tf.Tensor
) -> tf.Tensor:
    """Change each image of a batch by given amounts, as `augment` does by random ones.

    `draws`, float32 of shape (11, n), are the amounts in the order of `DRAWS`, as shares of what
    `settings` allows.
    """
    amount = dict(zip(DRAWS, tf.unstack(draws, len(DRAWS)), strict=True))
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(amount, tf.cast(tf.shape(images)[1], tf.float32), settings),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    changed = _exposure(
        _sharpness(moved, amount["sharpness"] * settings.sharpness), amount, settings
    )
    grain = tf.random.stateless_normal(tf.shape(images), tf.convert_to_tensor(seed) + 1)
    changed += grain * _each(tf.abs(amount["noise"]) * settings.noise)
    return tf.clip_by_value(changed, 0.0, 1.0)


def _other_borders(images: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Give a share of the images the border of the one before them, each side as wide as is drawn.

    The border holds collimator edges, markers and shoulders, some lung where it is wide, and yet
    tells the classes apart in training data.
    """
    count, side = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    seed = tf.convert_to_tensor(seed)
    widths = tf.random.stateless_uniform([4, count, 1], seed + 2, *BORDER) * side
    chosen = tf.random.stateless_uniform([count, 1, 1], seed + 3) < share
    place = tf.range(side)[None]
    rows = (place >= widths[0]) & (place < side - widths[1])
    columns = (place >= widths[2]) & (place < side - widths[3])
    inside = (rows[:, :, None] & columns[:, None, :]) | ~chosen
    return tf.where(inside[..., None], images, tf.roll(images, 1, axis=0))


def _each(values: tf.Tensor) -> tf.Tensor:
    """One number an image, to be applied to all of its pixels."""
    return values[:, None, None, None]


def _sharpness(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Blur (over 0) or sharpen (under 0) by moving to or from a Gaussian blur of 5 x 5 pixels."""
    line = tf.constant([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
    padded = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT")
    rows = tf.nn.conv2d(padded, line[:, None, None, None], 1, "VALID")
    blurred = tf.nn.conv2d(rows, line[None, :, None, None], 1, "VALID")
    return images + _each(amount) * (blurred - images)


def _exposure(images: tf.Tensor, amount: dict[str, tf.Tensor], settings: Augmentation) -> tf.Tensor:
    """Change contrast about the mean, brightness, and the exponent of the grey values."""
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    changed = (images - mean) * _each(1.0 + settings.contrast * amount["contrast"]) + mean
    changed += _each(settings.brightness * amount["brightness"])
    # The smallest step above 0 keeps the power's gradient and logarithm finite.
    return tf.clip_by_value(changed, 1e-4, 1.0) ** _each(1.0 + settings.gamma * amount["gamma"])


def _transforms(amount: dict[str, tf.Tensor], side: tf.Tensor, settings: Augmentation) -> tf.Tensor:
    """Eight numbers an image that map a pixel of the output to one of the input."""
    mirror = tf.sign(amount["flip"]) if settings.flip else tf.ones_like(amount["flip"])
    angle = amount["rotation"] * (settings.rotation * math.pi / 180.0)
    zoom = 1.0 / (1.0 + settings.zoom * amount["zoom"])
    stretch = (1.0 + settings.stretch) ** (amount["stretch"] / 2.0)
    middle = (side - 1.0) / 2.0
    a, b = zoom * stretch * mirror * tf.cos(angle), -zoom * stretch * tf.sin(angle)
    c, d = zoom / stretch * mirror * tf.sin(angle), zoom / stretch * tf.cos(angle)
    offset_x = middle + settings.shift * side * amount["shift_x"] - (a + b) * middle
    offset_y = middle + settings.shift * side * amount["shift_y"] - (c + d) * middle
    none = tf.zeros_like(a)
    return tf.stack([a, b, offset_x, c, d, offset_y, none, none], axis=1)
