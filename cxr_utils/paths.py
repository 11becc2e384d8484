"""Where everything lies: the project's own folders, the user's cache and the files of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parents[1]
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "reporting" / "templates"


def cache_folder() -> Path:
    """Return the folder for downloads, phantoms and decoded images.

    ``$CXR_CACHE`` where it is set, else the operating system's cache folder of the user.
    """
    chosen = os.environ.get("CXR_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("cxr_utils"))


def from_root(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one starts at the project's root."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else ROOT / path


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, ``reports/<run>/``; knows names, creates nothing but folders.

    Parameters
    ----------
    root : Path
        The run's folder.
    """

    root: Path

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.root.name

    @property
    def index(self) -> Path:
        """The page to open first."""
        return self.root / "index.html"

    @property
    def metrics(self) -> Path:
        """Every score of the run."""
        return self.root / "metrics.json"

    @property
    def comparison(self) -> Path:
        """How the models differ on the same images, with intervals."""
        return self.root / "comparison.json"

    @property
    def record(self) -> Path:
        """What is needed to repeat the run, and which steps are done."""
        return self.root / "run.json"

    @property
    def log(self) -> Path:
        """What the notebooks printed, and the tracebacks."""
        return self.root / "run.log"

    @property
    def lock(self) -> Path:
        """Held while a run works in the folder."""
        return self.root / ".lock"

    @property
    def holder(self) -> Path:
        """Says who holds the lock."""
        return self.root / ".holder.json"

    def html(self, step: str) -> Path:
        """Report of a step."""
        return self.root / f"{step}.html"

    def executed(self, step: str) -> Path:
        """Notebook of a step as it was executed."""
        return self.root / "executed" / f"{step}.ipynb"

    def predictions(self, model: str) -> Path:
        """Scores of a model, one row an image."""
        return self.root / "predictions" / f"{model}.csv"

    def reference(self, name: str) -> Path:
        """Scores of an answer that needs no look at the lungs, one row an image, in the columns of the predictions."""
        return self.root / "floors" / f"{name}.csv"

    def model(self, model: str) -> Path:
        """Weights and architecture of a model."""
        return self.root / "models" / f"{model}.keras"

    def checkpoint(self, model: str) -> Path:
        """State of a training that is not finished."""
        return self.root / "models" / f"{model}.checkpoint"

    def progress(self, model: str) -> Path:
        """How far a training is: its epochs, done and planned."""
        return self.root / "models" / f"{model}.progress.json"

    def model_card(self, model: str) -> Path:
        """Preprocessing, threshold, temperature, source and provenance of a model."""
        return self.root / "models" / f"{model}.json"

    def results(self) -> list[Path]:
        """All that is there and tells of the data: scores, predictions, figures and reports, but not the models."""
        kinds = (
            "metrics.json",
            "predictions/*.csv",
            "floors/*.csv",
            "figures/*.png",
            "executed/*.ipynb",
            "[0-9][0-9]_*.html",
        )
        return [file for kind in kinds for file in self.root.glob(kind)]

    def figure(self, name: str) -> Path:
        """A figure as PNG."""
        return self.root / "figures" / f"{name}.png"

    def parts(self) -> Iterator[Path]:
        """Files that a process which was killed had not finished."""
        return self.root.rglob(".*.part*")

    def make(self) -> RunFolder:
        """Create the folders; raises OSError where that is not allowed."""
        for folder in ("executed", "predictions", "models", "figures"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        return self
