"""How weights are moved: Keras' AdamW by a fused kernel, and the schedule of its learning rate."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) by TensorFlow's fused kernel.

    Keras makes a dozen passes over each weight where the kernel makes one; what that buys is told
    by ``benchmarks/training_speed.py``. Biases and the scales of batch norm are not decayed.
    `shares`, from `networks.rate_shares`, are those of the learning rate, and with it of the decay,
    that each trainable weight gets.
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
        rate = tf.cast(learning_rate, tf.float32) * (self.shares[index] if self.shares else 1.0)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        if self._use_weight_decay(variable):
            variable.assign_sub(rate * self.weight_decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _apply_weight_decay(self, variables) -> None:
        """Done in `update_step`: Keras evaluates the schedule anew for each weight, unshared."""


def cosine(peak: float, epochs: int, steps: int, warmup_epochs: float) -> Any:
    """Return a learning rate that rises linearly to `peak`, then falls along a cosine to zero.

    `steps` are those of an epoch; it rises over half of all epochs at most. Loshchilov and Hutter
    2017, arXiv:1608.03983.
    """
    total = epochs * steps
    warmup = max(min(round(warmup_epochs * steps), total // 2), 1)
    return keras.optimizers.schedules.CosineDecay(
        peak / warmup, max(total - warmup, 1), warmup_target=peak, warmup_steps=warmup
    )
