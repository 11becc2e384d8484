"""Shifted copies of the validation images: what other films than the training ones might look like.

Validation comes from the same films as training and is nearly solved, while a new set differs in
sharpness, exposure and framing. Epochs and recipes are therefore chosen on images that are shifted in
these ways, by fixed amounts that do not depend on the augmentation of the run.
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.special import expit

from . import models
from .augmentation import DRAWS, change, to_float
from .images import Fold
from .params import Augmentation

# About one and a half times what the default augmentation does at most.
STRENGTH = Augmentation(
    flip=False, rotation=12.0, shift=0.08, zoom=0.2, stretch=0.35, brightness=0.15, contrast=0.3, gamma=0.5, sharpness=1.0, noise=0.05
)
SHIFTS = {
    "as it is": (),
    "smaller": (("zoom", -1.0),),
    "larger": (("zoom", 1.0),),
    "narrower": (("stretch", -1.0),),
    "wider": (("stretch", 1.0),),
    "sharper": (("sharpness", -1.0),),
    "blurred": (("sharpness", 1.0),),
    "darker, flat": (("brightness", -1.0), ("contrast", -1.0)),
    "brighter, hard": (("brightness", 1.0), ("contrast", 1.0)),
    "gamma down": (("gamma", -1.0),),
    "gamma up": (("gamma", 1.0),),
    "noisy": (("noise", 1.0),),
    "turned": (("rotation", 1.0), ("shift_x", 0.5), ("shift_y", -0.5)),
}
TABLE_IMAGES = 200


def shifted(pixels: tf.Tensor, shift: str) -> tf.Tensor:
    """Return images changed by one of `SHIFTS`.

    Parameters
    ----------
    pixels : tf.Tensor of uint8, shape (n, size, size)
        Grey images.
    shift : str
        A key of `SHIFTS`.

    Returns
    -------
    tf.Tensor of float32, shape (n, size, size, 1)
        In 0..1.
    """
    draws = np.zeros((len(DRAWS), len(pixels)), np.float32)
    draws[DRAWS.index("flip")] = 1.0
    for kind, amount in SHIFTS[shift]:
        draws[DRAWS.index(kind)] = amount
    return change(to_float(pixels), tf.constant(draws), STRENGTH, tf.constant([0, 0]))


def logits(model: keras.Model, pixels: np.ndarray, shift: str) -> np.ndarray:
    """Return a model's logits of images under one shift; float64, shape (n,)."""
    return models.logits(model, pixels, partial(shifted, shift=shift))


def mixed_logits(model: keras.Model, fold: Fold) -> np.ndarray:
    """Return logits where every image has one of the shifts, in turn: a stress test at the price of one pass."""
    found = np.empty(len(fold))
    for number, shift in enumerate(SHIFTS):
        rows = np.arange(number, len(fold), len(SHIFTS))
        if len(rows):
            found[rows] = logits(model, fold.pixels[rows], shift)
    return found


def log_loss(logit: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy of logits, in nats."""
    return float(np.mean(np.logaddexp(0, -logit * (2 * labels - 1))))


def table(model: keras.Model, fold: Fold, temperature: float, threshold: float, seed: int) -> pd.DataFrame:
    """Return how a model does under each shift, on up to 200 images of a fold that are drawn at random.

    Returns
    -------
    DataFrame
        shift, log loss, accuracy, sensitivity, specificity; at the temperature and threshold of the run.
    """
    chosen = np.sort(np.random.default_rng([seed, 4]).permutation(len(fold))[:TABLE_IMAGES])
    sick, rows = fold.labels[chosen] == 1, []
    for shift in SHIFTS:
        logit = logits(model, fold.pixels[chosen], shift) / temperature
        called = expit(logit) >= threshold
        rows.append([shift, log_loss(logit, fold.labels[chosen]), (called == sick).mean(), called[sick].mean(), (~called[~sick]).mean()])
    return pd.DataFrame(rows, columns=["shift", "log loss", "accuracy", "sensitivity", "specificity"])
