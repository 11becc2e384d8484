"""One step of a training: augmented images in, moved weights out, on one device or shared among several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..data.dataset import Split
from ..parameters import Augmentation, ModelSection
from .augmentation import augment, to_float
from .optimizer import AdamW, LossScale

PARTS_APART = 1 << 20  # between the seeds of the parts of one batch


@dataclass(frozen=True)
class Loss:
    """Cross-entropy of logits.

    Parameters
    ----------
    smoothing : float
        Share by which labels are moved towards one half (Szegedy et al. 2016, doi:10.1109/CVPR.2016.308).
    weights : tuple of float
        What a NORMAL and a PNEUMONIA image weigh.
    """

    smoothing: float = 0.0
    weights: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(cls, settings: ModelSection, labels: np.ndarray) -> Loss:
        """Return the loss that a model's section asks for, on training labels (0 or 1, both present)."""
        share = float(np.mean(labels))
        weights = (0.5 / (1 - share), 0.5 / share) if settings.class_weights else (1.0, 1.0)
        return cls(settings.label_smoothing, weights)

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the mean over a batch; labels and logits are float32, shape (n,)."""
        targets = labels * (1.0 - self.smoothing) + self.smoothing / 2.0
        each = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return tf.reduce_mean(each * tf.where(labels > 0.5, self.weights[1], self.weights[0]))


def training_step(
    network: keras.Model,
    optimizer: AdamW | LossScale,
    augmentation: Augmentation,
    loss: Loss | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Callable[..., tf.Tensor]:
    """Return one gradient step, augmentation included, as a single graph: there is no input pipeline to wait for.

    Parameters
    ----------
    network : keras.Model
        The network; the optimizer holds its trainable weights.
    optimizer : AdamW or LossScale
        Moves them; the latter where the network computes in float16.
    augmentation : Augmentation
        Changes to the images.
    loss : Loss, optional
        Plain cross-entropy where left out.
    strategy : tf.distribute.Strategy, optional
        Several devices, each of which takes an equal share of the batch and of the gradient.

    Returns
    -------
    callable
        Takes pixels (uint8, shape (n, size, size)), labels (float32, shape (n,)), the learning rate, a seed
        (int32, shape (2,)) and the number of the step from 0 (float32); returns the mean loss.
    """
    loss = loss or Loss()

    def step(pixels, labels, rate, seed, number):
        images = augment(to_float(pixels), augmentation, seed)
        with tf.GradientTape() as tape:
            found = loss(labels, network(images, training=True)[:, 0])
            aim = found * optimizer.scale
        gradients = tape.gradient(aim, optimizer.variables)
        if strategy:
            gradients = tf.distribute.get_replica_context().all_reduce("MEAN", gradients)
        optimizer.apply(gradients, rate, number)
        return found

    return tf.function(
        _shared(step, strategy) if strategy else step, autograph=False, jit_compile=False
    )


def _shared(
    step: Callable[..., tf.Tensor], strategy: tf.distribute.Strategy
) -> Callable[..., tf.Tensor]:
    """Return a step in which each device takes its part of the batch, with a seed of its own."""

    def run(pixels, labels, rate, seed, number):
        def part():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            images = tf.shape(labels)[0] // strategy.num_replicas_in_sync
            mine = slice(index * images, (index + 1) * images)
            return step(
                pixels[mine], labels[mine], rate, seed + tf.stack([0, index * PARTS_APART]), number
            )

        return strategy.reduce("MEAN", strategy.run(part), axis=None)

    return run


def run_epoch(
    step: Callable[..., tf.Tensor],
    train: Split,
    batch_size: int,
    rates: np.ndarray,
    seed: int,
    epoch: int,
    after=None,
) -> float:
    """Run one pass over shuffled full batches and return the mean loss.

    Parameters
    ----------
    step : callable
        From `training_step`.
    train : Split
        The training images.
    batch_size : int
        Images in a step.
    rates : ndarray of float32, shape (steps,)
        The learning rate of each step of this epoch.
    seed, epoch : int
        Decide order and augmentation; epochs count from 0.
    after : callable, optional
        Called with the number of each step once it is done.
    """
    if len(rates) * batch_size > len(train):
        raise ValueError(f"{len(rates)} batches of {batch_size} were asked of {len(train)} images")
    order = np.random.default_rng([seed, 2, epoch]).permutation(len(train))
    losses = []
    for index, rate in enumerate(rates):
        rows = order[index * batch_size : (index + 1) * batch_size]
        number = epoch * len(rates) + index
        labels = tf.constant(train.labels[rows], tf.float32)
        seeds = tf.constant([seed, number], tf.int32)
        losses.append(
            step(
                tf.constant(train.pixels[rows]),
                labels,
                tf.constant(rate),
                seeds,
                tf.constant(float(number)),
            )
        )
        if after:
            after(number)
    return float(np.mean([float(loss) for loss in losses]))
