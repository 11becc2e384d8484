"""Where everything lies: the project's own folders, the user's cache and the files of a run."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import platformdirs

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
TEMPLATES = PACKAGE / "reporting" / "templates"


def cache_folder() -> Path:
    """Return the folder for downloads, phantoms and decoded images.

    ``$CXR_CACHE`` where it is set, else the operating system's cache folder of the user.
    """
    chosen = os.environ.get("CXR_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("cxr_utils"))


def from_root(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one starts at the project's root."""
    return ROOT / Path(path).expanduser()


@dataclass
class _One:
    """A file that a run has once."""

    place: str

    def __get__(self, run: "RunFolder", _: type) -> Path:
        return run.root / self.place


class _Each(_One):
    """A file that a run has of each step, model or figure: a function of its name."""

    def __get__(self, run: "RunFolder", _: type) -> Callable[[str], Path]:  # type: ignore[override]
        return lambda name: run.root / self.place.replace("*", name)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, ``reports/<run>/``; knows names, creates nothing but folders."""

    root: Path

    index = _One("index.html")  # the page to open first
    metrics = _One("metrics.json")  # every score
    comparison = _One("comparison.json")  # how the models differ on the same images
    record = _One("run.json")  # what is needed to run it again, and which steps are done
    log = _One("run.log")  # what the notebooks printed, and the tracebacks
    lock = _One(".lock")  # held while a run works in the folder
    holder = _One(".holder.json")  # who holds it
    # Of each step:
    html = _Each("*.html")  # its report
    executed = _Each("executed/*.ipynb")  # the notebook as it was executed
    # Of each model:
    predictions = _Each("predictions/*.csv")  # its scores, one row an image
    model = _Each("models/*.keras")  # weights and architecture
    model_card = _Each("models/*.json")  # preprocessing, threshold, source and provenance
    training_films = _Each("models/*.films.npz")  # their statistics, to detect unlike films
    onnx = _Each("models/*.onnx")  # the same model without TensorFlow, where it was exported
    checkpoint = _Each("models/*.checkpoint")  # state of a training that is not finished
    progress = _Each("models/*.progress.json")  # epochs of a training, done and planned
    reference = _Each("floors/*.csv")  # scores of a reference classifier, as predictions
    figure = _Each("figures/*.png")

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.root.name

    def member(self, number: int) -> "RunFolder":
        """The folder of one of the trainings whose mean a model is; `number` counts from 1."""
        return RunFolder(self.root / "members" / str(number))

    def members(self) -> list["RunFolder"]:
        """The folders of those trainings that are there."""
        return [RunFolder(folder) for folder in sorted(self.root.glob("members/*"))]

    def results(self) -> list[Path]:
        """All that is there and tells of the data: all but models, record and log."""
        kinds = ("metrics.json", "comparison.json", "predictions/*.csv", "floors/*.csv",
                 "figures/*.png", "executed/*.ipynb", "[0-9][0-9]_*.html")  # fmt: skip
        return [file for kind in kinds for file in self.root.glob(kind)]

    def parts(self) -> Iterator[Path]:
        """Files that a process which was killed had not finished."""
        return self.root.rglob(".*.part*")

    def make(self) -> Self:
        """Create the folders; raises OSError where that is not allowed."""
        for folder in ("executed", "predictions", "models", "figures"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        return self
