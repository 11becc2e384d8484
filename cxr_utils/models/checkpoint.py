"""What a training has reached after each epoch, kept so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..files import replacing


class Checkpoint:
    """One file that holds the last finished epoch.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        What decides the weights; the state of another training is not taken for this one's.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def save(self, arrays: list[np.ndarray], notes: dict[str, Any]) -> None:
        """Write arrays and what JSON can hold, all or nothing."""
        named: dict[str, Any] = {f"array{number}": array for number, array in enumerate(arrays)}
        with replacing(self.path) as part, part.open("wb") as file:
            np.savez(file, key=self.key, notes=json.dumps(notes), **named)

    def load(self) -> tuple[list[np.ndarray], dict[str, Any]] | None:
        """Return what was saved, or None where there is nothing that belongs to this training."""
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                if str(saved["key"]) != self.key:
                    return None
                arrays = [saved[f"array{number}"] for number in range(len(saved.files) - 2)]
                return arrays, json.loads(str(saved["notes"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def notes(self) -> dict[str, Any]:
        """Return what was noted beside the arrays; empty where there is nothing that belongs to this training."""
        saved = self.load()
        return saved[1] if saved else {}

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


class Progress:
    """A row for each epoch of a training, and the weights of the best one; taken up from a checkpoint.

    Parameters
    ----------
    model : keras.Model
        Holds the weights to be kept, after each epoch.
    variables : list of tf.Variable
        All that changes in training.
    checkpoint : Checkpoint or None
        Where the state is kept, and taken from where it is this training's.
    precision : str
        Arithmetic of the training, noted in the checkpoint.
    """

    def __init__(
        self,
        model: keras.Model,
        variables: list[tf.Variable],
        checkpoint: Checkpoint | None,
        precision: str = "float32",
    ) -> None:
        self.model, self.variables, self.checkpoint, self.precision = (
            model,
            variables,
            checkpoint,
            precision,
        )
        self.kept: list[np.ndarray] = model.get_weights()
        self.rows: list[dict[str, float]] = []
        self.head: dict[str, Any] | None = None
        saved = checkpoint.load() if checkpoint else None
        if saved:
            arrays, notes = saved
            for variable, array in zip(variables, arrays[: len(variables)], strict=True):
                variable.assign(array)
            self.kept = arrays[len(variables) :]
            self.rows, self.head = notes["rows"], notes["head"]

    @property
    def criterion(self) -> str:
        """What the best epoch has least of."""
        return "stress_loss" if "stress_loss" in self.rows[0] else "validation_loss"

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        losses = [row[self.criterion] for row in self.rows] if self.rows else [0.0]
        return len(losses) - 1 - int(np.argmin(losses))

    def add(self, row: dict[str, float]) -> None:
        """Note an epoch, and keep its weights where it is the best so far."""
        self.rows.append(row)
        if not self.waited:
            self.kept = self.model.get_weights()
        if self.checkpoint:
            arrays = [variable.numpy() for variable in self.variables] + self.kept
            self.checkpoint.save(
                arrays, {"rows": self.rows, "head": self.head, "precision": self.precision}
            )
