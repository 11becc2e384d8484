"""Training that starts from weights: the head first, on features computed once, then all layers, the early ones least."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data.dataset import Split
from ..parameters import Resnet50v2
from . import networks, robustness
from .gradient import Loss
from .optimizer import AdamW, learning_rates
from .weights import backbone_of

HEAD = ("head_pool", "head_dropout", "head_logit")
HEAD_BATCH = 32


def shares(network: keras.Model, early_rate: float) -> list[float]:
    """Return the share of the learning rate of each trainable weight, in the order of ``network.trainable_variables``.

    It rises geometrically from `early_rate` in the first layer of the backbone to 1 in its last, as early
    layers see edges and textures that serve X-rays as well (Howard and Ruder 2018, arXiv:1801.06146).
    """
    rising = [layer for layer in backbone_of(network).layers if layer.trainable_variables]
    depth = {
        id(weight): index
        for index, layer in enumerate(rising)
        for weight in layer.trainable_variables
    }
    last = max(len(rising) - 1, 1)
    return [
        early_rate ** (1 - depth[id(weight)] / last) if id(weight) in depth else 1.0
        for weight in network.trainable_variables
    ]


def features(model: keras.Model, pixels) -> np.ndarray:
    """Return what the backbone makes of images, pooled; float32, shape (n, channels)."""
    pooled = keras.Model(model.inputs, model.get_layer(HEAD[0]).output)
    return networks.apply(pooled, pixels)


def train_head(
    model: keras.Model, settings: Resnet50v2, train: Split, validation: Split, loss: Loss, seed: int
) -> dict[str, Any]:
    """Train the last layer alone, on the pooled features of the images as they are.

    The backbone does not change meanwhile, so that its features are computed once and an epoch takes a
    moment. Without this, random weights in the head would send noise through a good backbone.

    Parameters
    ----------
    model : keras.Model
        In float32, with weights in its backbone; its head is trained in place.
    settings : Resnet50v2
        Its section of the parameters.
    train, validation : Split
        Images to learn from, and to tell the log loss of.
    loss : Loss
        As in the training of all layers.
    seed : int
        Of order and dropout.

    Returns
    -------
    dict
        epochs, validation_loss, features_seconds, epoch_seconds.
    """
    started = time.perf_counter()
    found = features(model, train.pixels)
    computed = time.perf_counter()
    step = head_step(model, settings, loss)
    steps = max(1, len(train) // HEAD_BATCH)
    rates = learning_rates(
        settings.learning_rate, settings.head_epochs, steps, settings.warmup_epochs
    )
    for epoch in range(settings.head_epochs):
        order = np.random.default_rng([seed, 5, epoch]).permutation(len(train))
        for index in range(steps):
            rows, number = (
                order[index * HEAD_BATCH : (index + 1) * HEAD_BATCH],
                epoch * steps + index,
            )
            labels = tf.constant(train.labels[rows], tf.float32)
            step(
                tf.constant(found[rows]),
                labels,
                tf.constant(rates[number]),
                tf.constant(float(number)),
            )
    trained = time.perf_counter()
    return {
        "epochs": settings.head_epochs,
        "validation_loss": robustness.log_loss(
            networks.logits(model, validation.pixels), validation.labels
        ),
        "features_seconds": computed - started,
        "epoch_seconds": (trained - computed) / max(settings.head_epochs, 1),
    }


def head_step(model: keras.Model, settings: Resnet50v2, loss: Loss):
    """Return a gradient step of the head; it takes features, labels, the learning rate and the number of the step."""
    dropout, logit = (model.get_layer(name) for name in HEAD[1:])
    optimizer = AdamW([weight.value for weight in logit.trainable_variables], settings.weight_decay)

    @tf.function(autograph=False)
    def step(inputs, labels, rate, number):
        with tf.GradientTape() as tape:
            found = loss(labels, logit(dropout(inputs, training=True))[:, 0])
        optimizer.apply(tape.gradient(found, optimizer.variables), rate, number)
        return found

    return step
