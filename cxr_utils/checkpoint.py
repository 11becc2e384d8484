"""The state of a training after each epoch, so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


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
        part = self.path.with_name(f".part.{self.path.name}")
        named = {f"array{number}": array for number, array in enumerate(arrays)}
        with part.open("wb") as file:
            np.savez(file, key=self.key, notes=json.dumps(notes), **named)
        part.replace(self.path)

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

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
