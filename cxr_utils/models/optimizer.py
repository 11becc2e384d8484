"""How weights move: Keras' AdamW by a fused kernel, under a warm-up and a cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) by TensorFlow's fused kernel.

    Keras makes a dozen passes over each weight where the kernel makes one; what that buys is told
    by ``benchmarks/training_speed.py``. Biases and the scales of batch norm are not decayed.

    Parameters
    ----------
    learning_rate : float or keras.optimizers.schedules.LearningRateSchedule
        As Keras takes it.
    weight_decay : float
        Share of the learning rate by which weights shrink each step.
    shares : sequence of float, optional
        Share of the learning rate that each trainable weight gets, from `networks.rate_shares`.
    """

    def __init__(
        self, learning_rate: Any, weight_decay: float, shares: Sequence[float] | None = None
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.shares = shares

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Move one weight."""
        index = self._get_variable_index(variable)
        share = self.shares[index] if self.shares else 1.0
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=share * tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def cosine(peak: float, epochs: int, steps: int, warmup_epochs: float) -> Any:
    """Return a learning rate that rises linearly, then falls along a cosine to zero.

    Loshchilov and Hutter 2017, arXiv:1608.03983.

    Parameters
    ----------
    peak : float
        The largest rate.
    epochs, steps : int
        Epochs, and steps an epoch.
    warmup_epochs : float
        Epochs over which it rises, at most half of all.
    """
    total = epochs * steps
    warmup = max(min(round(warmup_epochs * steps), total // 2), 1)
    return keras.optimizers.schedules.CosineDecay(
        peak / warmup, max(total - warmup, 1), warmup_target=peak, warmup_steps=warmup
    )
