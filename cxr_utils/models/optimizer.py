"""How weights move: AdamW by a fused kernel under a warm-up and a cosine, and the average of where they have been."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

FIRST_SCALE, STEPS_TO_DOUBLE = 2.0**12, 500  # of the loss in float16
AVERAGED_EVERY = (
    4  # steps: often enough for a decay over hundreds of steps, at a quarter of the cost
)


def learning_rates(peak: float, epochs: int, steps: int, warmup_epochs: float) -> np.ndarray:
    """Return the learning rate of every step of a training of so many steps an epoch; float32, shape (epochs * steps,).

    It rises linearly over the warm-up and then falls along a cosine to zero (Loshchilov and Hutter
    2017, arXiv:1608.03983).
    """
    total = epochs * steps
    warmup = min(round(warmup_epochs * steps), total // 2)
    index = np.arange(total)
    rise = (index + 1) / max(warmup, 1)
    fall = 0.5 * (1 + np.cos(np.pi * (index - warmup) / max(total - warmup, 1)))
    return (peak * np.where(index < warmup, rise, fall)).astype(np.float32)


def put(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assign to a variable; where several devices hold copies, to that of the device that asks."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


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
    shares : sequence of float, optional
        Share of the learning rate that each weight gets; all of it where left out.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
    scale = 1.0  # of the loss

    def __init__(
        self,
        variables: list[tf.Variable],
        weight_decay: float,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.variables, self.weight_decay = variables, weight_decay
        self.shares = shares or [1.0] * len(variables)
        self.means = [tf.Variable(tf.zeros(variable.shape)) for variable in variables]
        self.squares = [tf.Variable(tf.zeros(variable.shape)) for variable in variables]

    @property
    def state(self) -> list[tf.Variable]:
        """All that must be kept for a training to go on as if it had not been stopped."""
        return [*self.means, *self.squares]

    def apply(self, gradients: list[tf.Tensor], rate: tf.Tensor, number: tf.Tensor) -> None:
        """Move each weight against its gradient, at a learning rate, in a step of the given number from 0."""
        powers = {
            "beta1_power": self.BETA1 ** (number + 1.0),
            "beta2_power": self.BETA2 ** (number + 1.0),
        }
        constants = {"beta1": self.BETA1, "beta2": self.BETA2, "epsilon": self.EPSILON}
        for variable, mean, square, gradient, share in zip(
            self.variables, self.means, self.squares, gradients, self.shares, strict=True
        ):
            if self.weight_decay and variable.shape.rank > 1:
                put(variable, variable * (1.0 - share * rate * self.weight_decay))
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                lr=share * rate,
                grad=gradient,
                **powers,
                **constants,
            )


class LossScale:
    """AdamW for float16, whose small gradients would vanish (Micikevicius et al. 2018, arXiv:1710.03740).

    The loss is multiplied by a scale, which is halved where a gradient overflowed and doubled after a long
    time without; an overflow moves nothing.

    Parameters
    ----------
    optimizer : AdamW
        Moves the weights.
    """

    def __init__(self, optimizer: AdamW) -> None:
        self.optimizer, self.variables = optimizer, optimizer.variables
        self.scale, self.good = tf.Variable(FIRST_SCALE), tf.Variable(0)

    @property
    def state(self) -> list[tf.Variable]:
        """All that must be kept for a training to go on as if it had not been stopped."""
        return [self.scale, self.good, *self.optimizer.state]

    def apply(self, gradients: list[tf.Tensor], rate: tf.Tensor, number: tf.Tensor) -> None:
        """Move the weights by gradients of a scaled loss, or leave them where one overflowed."""
        gradients = [gradient / self.scale for gradient in gradients]
        finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
        )

        def move():
            self.optimizer.apply(gradients, rate, number)
            return tf.constant(True)

        tf.cond(finite, move, lambda: tf.constant(False))
        doubled = finite & (self.good >= STEPS_TO_DOUBLE)
        put(self.good, tf.where(finite & ~doubled, self.good + 1, 0))
        put(self.scale, self.scale * tf.where(finite, tf.where(doubled, 2.0, 1.0), 0.5))


class Average:
    """The exponential moving average of all weights, statistics of batch norm among them (Polyak and Juditsky 1992).

    Early on it looks back a tenth of the steps so far only, or random weights would stay in it for long.

    Parameters
    ----------
    network : keras.Model
        The network in training.
    decay : float
        In (0, 1), a step; .998 averages about 500 steps.
    """

    def __init__(self, network: keras.Model, decay: float) -> None:
        self.followed = [weight.value for weight in network.weights]
        self.state = [tf.Variable(weight) for weight in network.get_weights()]
        self.decay = decay

    def follow(self, number: int) -> None:
        """Take in the weights after a step of the given number from 0."""
        if number % AVERAGED_EVERY == 0:
            self._move(
                tf.constant(1.0 - min(self.decay, (1 + number) / (10 + number)) ** AVERAGED_EVERY)
            )

    @tf.function(autograph=False)
    def _move(self, share: tf.Tensor) -> None:
        for kept, weight in zip(self.state, self.followed, strict=True):
            if kept.dtype.is_floating:
                kept.assign_add(share * (weight - kept))
            else:  # a count, which has no average
                kept.assign(weight)

    def weights(self) -> list[np.ndarray]:
        """Return the average, in the order of the network's weights."""
        return [weight.numpy() for weight in self.state]
