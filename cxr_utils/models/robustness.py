"""Shifted copies of the validation images: what other films than the training ones might look like.

A new set differs in sharpness, exposure and framing, so epoch, temperature and thresholds are
chosen on images shifted in these ways, by fixed amounts whatever the augmentation of the run. One
shift sets an image into the border of a film of the other class, where a model that reads the label
off the border is wrong.
"""

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from ..data.dataset import Split
from ..parameters import Augmentation
from . import networks
from .augmentation import DRAWS, change, to_float

# As far as the default augmentation goes (stretch), or a quarter to two thirds farther.
STRENGTH = Augmentation(
    flip=False, rotation=12.0, shift=0.08, zoom=0.2, stretch=0.35, brightness=0.15, contrast=0.3,
    gamma=0.5, sharpness=1.0, noise=0.05,
)  # fmt: skip
SHIFTS: dict[str, dict[str, float]] = {
    "as it is": {},
    "smaller": {"zoom": -1.0},
    "larger": {"zoom": 1.0},
    "wider": {"stretch": -1.0},
    "narrower": {"stretch": 1.0},
    "sharper": {"sharpness": -1.0},
    "blurred": {"sharpness": 1.0},
    "darker, flat": {"brightness": -1.0, "contrast": -1.0},
    "brighter, hard": {"brightness": 1.0, "contrast": 1.0},
    "gamma down": {"gamma": -1.0},
    "gamma up": {"gamma": 1.0},
    "noisy": {"noise": 1.0},
    "turned": {"rotation": 1.0, "shift_x": 0.5, "shift_y": -0.5},
    "other border": {},
}
BORDER = 0.12  # width on each side, as a share of the image's


def shifted(pixels: tf.Tensor, shift: str) -> tf.Tensor:
    """Return images changed by one of `SHIFTS`.

    From uint8, shape (n, size, size), to float32 in 0..1, shape (n, size, size, 1).
    """
    amounts = {"flip": 1.0, **SHIFTS[shift]}
    draws = np.array([[amounts.get(kind, 0.0)] * len(pixels) for kind in DRAWS], np.float32)
    return change(to_float(pixels), tf.constant(draws), STRENGTH, tf.constant([0, 0]))


def with_other_border(split: Split, rows: np.ndarray) -> np.ndarray:
    """Return images of a split in the borders of images of the other class.

    Which ones is drawn at random but always the same; uint8, shape (len(rows), size, size).
    """
    rng = np.random.default_rng(len(split))
    donors = np.empty(len(split), np.int64)
    for label in (0, 1):
        others, own = np.flatnonzero(split.labels != label), split.labels == label
        donors[own] = rng.choice(others, int(own.sum()))
    images, size = split.pixels[donors[rows]].copy(), split.pixels.shape[1]
    inner = slice(round(BORDER * size), size - round(BORDER * size))
    images[:, inner, inner] = split.pixels[rows][:, inner, inner]
    return images


def logits(
    model: keras.Model, split: Split, rows: np.ndarray, shift: str, flips: bool = False
) -> np.ndarray:
    """Return a model's logits of some images of a split under one shift; float64, shape (n,)."""
    pixels = with_other_border(split, rows) if shift == "other border" else split.pixels[rows]
    return networks.logits(model, pixels, partial(shifted, shift=shift), flips)


def mixed_logits(model: keras.Model, split: Split, flips: bool = False) -> np.ndarray:
    """Return logits where each image has one of the shifts, in turn, at the price of one pass."""
    found = np.empty(len(split))
    for number, shift in enumerate(SHIFTS):
        rows = np.arange(number, len(split), len(SHIFTS))
        if len(rows):
            found[rows] = logits(model, split, rows, shift, flips)
    return found


def for_choices(model: keras.Model, splits: dict[str, Split], flips: bool = False) -> np.ndarray:
    """Return the logits on which temperature and thresholds are fixed.

    Those of the stress validation or, where the published ``val`` takes the place of validation,
    those of its images as they are.
    """
    if "validation" in splits:
        return mixed_logits(model, splits["validation"], flips)
    return networks.logits(model, splits["val"].pixels, flips=flips)


def log_loss(logit: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy of logits, in nats."""
    return float(np.mean(np.logaddexp(0, -logit * (2 * labels - 1))))
