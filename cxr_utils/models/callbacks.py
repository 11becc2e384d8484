"""What a training does beside its steps: Keras callbacks, in the order `fit` takes them in."""

import json
import math
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data.dataset import Split
from ..data.splits import chosen_on
from ..files import replacing, write_atomically
from . import networks, robustness

# Steps: often enough for a decay over hundreds of steps, at a quarter of the cost.
AVERAGED_EVERY = 4


class MovingAverage(keras.callbacks.Callback):
    """Validate and keep the exponential moving average of the weights (Polyak and Juditsky 1992).

    The average stands in the network from the end of each epoch to the begin of the next, where the
    callbacks after this one see it. Keras' own (``use_ema``) leaves out the statistics of batch
    norm and has no ramp: this one looks back a tenth of the steps so far at first, or random
    weights would stay in it for long. The `decay` of a step is in [0, 1): .998 averages about 500
    steps, 0 keeps the weights themselves.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.average: list[tf.Variable] = []
        self.trained: list[np.ndarray] = []  # the weights that training goes on with

    def on_train_begin(self, logs=None) -> None:
        """Begin with the weights as they are."""
        if self.decay:
            self.average = [tf.Variable(weight) for weight in self.model.get_weights()]

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Go on with the weights that were trained."""
        if self.trained:
            self.model.set_weights(self.trained)
            self.trained = []

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Take in the weights after a step."""
        step = int(self.model.optimizer.iterations.numpy()) - 1
        if self.decay and step % AVERAGED_EVERY == 0:
            decay = min(self.decay, (1 + step) / (10 + step))
            self._move(tf.constant(1.0 - decay**AVERAGED_EVERY))

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Put the average into the network."""
        if self.decay:
            self.trained = self.model.get_weights()
            self.model.set_weights([kept.numpy() for kept in self.average])

    @tf.function(autograph=False)
    def _move(self, share: tf.Tensor) -> None:
        for kept, weight in zip(self.average, self.model.weights, strict=True):
            if kept.dtype.is_floating:
                kept.assign_add(share * (weight.value - kept))
            else:  # a count, which has no average
                kept.assign(weight.value)


class Validation(keras.callbacks.Callback):
    """Add to an epoch's logs how the network does, in float32, where choices are made.

    ``validation_loss``, ``validation_accuracy`` and, where there is a split ``validation``,
    ``stress_loss`` on shifted copies of it. `model`, the network in float32 on one device, is given
    the weights of the one in training. Raises FloatingPointError once a loss is not finite.
    """

    def __init__(self, model: keras.Model, splits: dict[str, Split]) -> None:
        super().__init__()
        self.scored, self.splits, self.epoch = model, splits, 0
        self.monitor = "stress_loss" if "validation" in splits else "validation_loss"

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Know the epoch, to name it."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Stop at once where the loss is lost: it does not come back."""
        self._check(logs)

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Score the network."""
        self.scored.set_weights(self.model.get_weights())
        chosen = self.splits[chosen_on(self.splits)]
        found = networks.logits(self.scored, chosen.pixels)
        logs["validation_loss"] = robustness.log_loss(found, chosen.labels)
        if "validation" in self.splits:
            stressed = robustness.mixed_logits(self.scored, chosen)
            logs["stress_loss"] = robustness.log_loss(stressed, chosen.labels)
        logs["validation_accuracy"] = float(np.mean((found >= 0) == chosen.labels))
        self._check(logs)

    def _check(self, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} in epoch {self.epoch}")


class Saved:
    """The file that holds the last finished epoch of the training with a key, not of another."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def save(self, arrays: list[np.ndarray], notes: dict[str, Any]) -> None:
        """Write arrays and what JSON can hold, all or nothing."""
        named: dict[str, Any] = {f"array{number}": array for number, array in enumerate(arrays)}
        with replacing(self.path) as part, part.open("wb") as file:
            np.savez(file, key=self.key, notes=json.dumps(notes), **named)

    @property
    def notes(self) -> dict[str, Any]:
        """What was saved beside the arrays; empty where nothing belongs to this training."""
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                return json.loads(str(saved["notes"])) if str(saved["key"]) == self.key else {}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}

    def arrays(self) -> list[np.ndarray]:
        """Return the arrays; raises OSError or ValueError where the file is not whole."""
        with np.load(self.path, allow_pickle=False) as saved:
            return [saved[f"array{number}"] for number in range(len(saved.files) - 2)]

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


class Checkpoint(keras.callbacks.Callback):
    """Keep all that a training is after each epoch, so that one that was stopped ends the same.

    Keras' ``BackupAndRestore`` leaves out the seeds of dropout and the best epoch so far, is not
    atomic and is tied to no parameters. Comes after `average` and `stopping`, which hold a part of
    what is kept, in the list of callbacks. `notes` are kept too; the file `progress` is told the
    epochs that are done and planned, and the losses that `stopping` watches.
    """

    def __init__(
        self,
        saved: Saved,
        average: MovingAverage,
        stopping: keras.callbacks.EarlyStopping,
        notes: dict[str, Any],
        progress: Path,
    ) -> None:
        super().__init__()
        self.saved, self.average, self.stopping, self.notes = saved, average, stopping, notes
        self.progress, self.started = progress, 0.0
        self.rows: list[dict[str, float]] = []

    def _variables(self) -> list[Any]:
        """All that changes in training but the weights, which are kept as they were trained."""
        weights = {id(weight) for weight in self.model.weights}
        seeds = [variable for variable in self.model.variables if id(variable) not in weights]
        kept = [*self.model.optimizer.variables, *seeds]
        return [variable.value for variable in kept] + self.average.average

    def on_train_begin(self, logs=None) -> None:
        """Take up what was saved."""
        with self.model.distribute_strategy.scope():
            self.model.optimizer.build(self.model.trainable_variables)
        notes = self.saved.notes
        if notes:
            arrays, count = self.saved.arrays(), len(self.model.weights)
            for variable, array in zip(self._variables(), arrays[2 * count :], strict=True):
                variable.assign(array)
            self.average.trained, best = arrays[:count], arrays[count : 2 * count]
            self.stopping.best_weights = best
            self.model.set_weights(self.average.trained)
            for name in ("best", "best_epoch", "wait"):
                setattr(self.stopping, name, notes[name])
            self.rows = notes["rows"]

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Start the clock, and tell how far the training is."""
        self.started = time.perf_counter()
        losses = [row[self.stopping.monitor] for row in self.rows]
        done = {"epoch": epoch, "epochs": self.params["epochs"], "losses": losses}
        write_atomically(self.progress, json.dumps(done))

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Note an epoch, and save."""
        seconds = time.perf_counter() - self.started
        rate = float(self.model.optimizer.learning_rate)
        row = {"epoch": epoch + 1, **logs, "learning_rate": rate, "seconds": seconds}
        self.rows.append(row)
        arrays = [variable.numpy() for variable in self._variables()]
        trained = self.average.trained or self.model.get_weights()
        state = {name: getattr(self.stopping, name) for name in ("best", "best_epoch", "wait")}
        state |= {"rows": self.rows, "stopped": self.model.stop_training}
        self.saved.save([*trained, *self.stopping.best_weights, *arrays], self.notes | state)

    def on_train_end(self, logs=None) -> None:
        """Leave no progress behind."""
        self.progress.unlink(missing_ok=True)
