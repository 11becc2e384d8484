"""Training images in batches, changed at random by TensorFlow operations on a whole batch.

Labels are not touched, and pixels stay within their range. Randomness is stateless: the same seed
gives the same changes, whatever ran before.
"""

import math

import numpy as np
import tensorflow as tf

from ..data.dataset import Pixels, Split
from ..parameters import Augmentation

# Width on each side of a border that is taken from another image, as a share of the side.
BORDER = (0.04, 0.22)
# Drawn for each image in -1..1, times its strength in `Augmentation`; noise takes it absolute.
GEOMETRY = ("flip", "rotation", "zoom", "stretch", "shift_x", "shift_y")
DRAWS = (*GEOMETRY, "sharpness", "contrast", "brightness", "gamma", "noise")


def batches(
    split: Split, size: int, settings: Augmentation, seed: int, epochs: range
) -> tf.data.Dataset:
    """Return all full batches of some epochs for ``fit``, in order, changed anew in each epoch.

    The order follows from seed and epoch, the changes from seed and step, so that a training that
    was stopped goes on as it would have. `settings` hold the largest change of each kind. A batch
    is float32 images in 0..1, shape (size, side, side, 1), and labels, shape (size,). (A
    ``PyDataset`` feeds Keras by way of Python, which takes a fifth of the speed of ResNet50V2.)
    """
    steps = len(split) // size
    epochs = epochs or range(epochs.start, epochs.start + 1)  # Keras looks at one for its shapes
    orders = [np.random.default_rng([seed, 2, epoch]).permutation(len(split)) for epoch in epochs]
    rows = np.array([order[: steps * size] for order in orders]).reshape(-1, size)
    pixels, labels = tf.constant(split.pixels[:]), tf.constant(split.labels, tf.float32)

    def batch(chosen: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = to_float(tf.gather(pixels, chosen))
        return augment(images, settings, tf.stack([seed, step])), tf.gather(labels, chosen)

    numbers = epochs.start * steps + np.arange(len(rows), dtype=np.int32)
    return tf.data.Dataset.from_tensor_slices((rows, numbers)).map(batch).prefetch(1)


def oversampled(split: Split, times: int) -> Split:
    """Return a split in which films that look like the other class are there several times.

    `times` where P(own class) by `looks.own_class` is under .5, half as often where it is under .8.
    Just train twice (Liu et al. 2021, arXiv:2107.09044) repeats what a first network got wrong.
    """
    own = split.files["own_class"]
    often = np.where(own < 0.5, times, np.where(own < 0.8, (times + 1) // 2, 1))
    rows = np.repeat(np.arange(len(split)), often)
    pixels = Pixels(split.pixels.stored, split.pixels.rows[rows])
    return Split(pixels, split.labels[rows], split.files.iloc[rows].reset_index(drop=True))


def examples(split: Split, settings: Augmentation, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return three images of each class before and after `augment`: uint8, and floats in 0..1."""
    before = split.pixels[split.files.groupby("label").head(3).index.to_numpy()]
    return before, augment(to_float(before), settings, tf.constant([seed, 0])).numpy()[..., 0]


def to_float(pixels: tf.Tensor) -> tf.Tensor:
    """Turn uint8, shape (n, size, size), into float32 in 0..1, shape (n, size, size, 1)."""
    return tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255.0


def augment(images: tf.Tensor, settings: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Change each image of a batch at random, within the bounds of `settings`.

    Images, before and after, are float32 in 0..1, shape (n, size, size, 1); `seed`, int32 of shape
    (2,), is that of this batch. The border is repeated where an image was moved.
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
    sharpened = _sharpness(moved, amount["sharpness"] * settings.sharpness)
    changed = _exposure(sharpened, amount, settings)
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
