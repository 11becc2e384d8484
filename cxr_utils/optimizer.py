"""How weights move: AdamW by a fused kernel, under a warm-up and a cosine."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from .params import ModelSection


def learning_rates(settings: ModelSection, steps: int) -> np.ndarray:
    """Return the learning rate of every step of a training of so many steps an epoch; float32, shape (epochs * steps,).

    It rises linearly over the warm-up and then falls along a cosine to zero (Loshchilov and Hutter
    2017, arXiv:1608.03983).
    """
    total = settings.epochs * steps
    warmup = min(round(settings.warmup_epochs * steps), total // 2)
    index = np.arange(total)
    rise = (index + 1) / max(warmup, 1)
    fall = 0.5 * (1 + np.cos(np.pi * (index - warmup) / max(total - warmup, 1)))
    return (settings.learning_rate * np.where(index < warmup, rise, fall)).astype(np.float32)


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) by TensorFlow's fused kernel.

    Keras' own optimizer makes a dozen passes over each weight where the kernel makes one; with the 24
    million weights of ResNet50V2 at 96 px that was 12 to 25 % of a step on two cores. Biases and the
    scales of batch norm are not decayed.

    Parameters
    ----------
    variables : list of tf.Variable
        The weights to train.
    weight_decay : float
        Share of the learning rate by which weights shrink each step.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7

    def __init__(self, variables: list[tf.Variable], weight_decay: float) -> None:
        self.variables, self.weight_decay = variables, weight_decay
        self.steps = tf.Variable(0.0)
        self.means = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self.squares = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    @property
    def state(self) -> list[tf.Variable]:
        """All that must be kept for a training to go on as if it had not been stopped."""
        return [self.steps, *self.means, *self.squares]

    def apply(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        """Move each weight against its gradient, at a learning rate."""
        self.steps.assign_add(1.0)
        powers = {"beta1_power": self.BETA1**self.steps, "beta2_power": self.BETA2**self.steps}
        constants = {"beta1": self.BETA1, "beta2": self.BETA2, "epsilon": self.EPSILON}
        for variable, mean, square, gradient in zip(self.variables, self.means, self.squares, gradients, strict=True):
            if self.weight_decay and variable.shape.rank > 1:
                variable.assign(variable * (1.0 - rate * self.weight_decay))
            tf.raw_ops.ResourceApplyAdam(var=variable.handle, m=mean.handle, v=square.handle, lr=rate, grad=gradient, **powers, **constants)
