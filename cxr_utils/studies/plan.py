"""What a study's file asks for: a question, and the cells, one run each, that answer it."""

import functools
import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths, profiles, study_file
from ..files import sha256_of
from ..models import fingerprint
from ..parameters import Params
from ..pipeline.steps import find_steps, read_cells
from ..study_file import StudyFile

BASE = "base"  # the setting that changes nothing
LONGEST = 60  # characters of a setting's name, which is part of a folder's
# What decides a cell's numbers; a change of a report or of the engine repeats no cell.
DECIDES = ("data/*.py", "models/*.py", "evaluation/results.py", "evaluation/metrics.py",
           "evaluation/thresholds.py", "evaluation/intervals.py")  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    setting: str
    changes: dict[str, Any]  # of the setting, by section.key
    assigned: dict[str, Any]  # all that is not as in the profile
    params: Params

    @property
    def name(self) -> str:
        """What its folder is called."""
        fold = f"-fold{self.params.data.fold}" if self.params.data.folds else ""
        return f"{self.setting}-{self.params.seed}{fold}"


@dataclass(frozen=True)
class Study:
    """A study as it was asked for in the file `where`."""

    name: str
    where: str
    asked: StudyFile
    base: Params

    @functools.cached_property
    def steps(self) -> list[str]:
        """The steps that train the study's models."""
        return [step.name for step in find_steps() if step.section in self.asked.models]

    @property
    def count(self) -> int:
        """How many cells there are, but for those that equal the base."""
        asked, settings = self.asked, 1
        if asked.sample:
            settings = asked.sample.settings
        elif asked.settings or asked.grid:
            grid = (asked.grid or {}).values()
            settings += len(asked.settings or ()) or math.prod(len(values) for values in grid)
        return settings * asked.seeds * max(1, asked.folds)

    def cells_of(self, setting: str, changes: dict[str, Any]) -> list[Cell]:
        """Return a setting's cells: one for each seed and fold; raises UsageError."""
        cells, asked = [], self.asked
        for number, fold in itertools.product(range(asked.seeds), range(max(1, asked.folds))):
            assigned = asked.set | changes | {"seed": self.base.seed + number}
            if asked.folds:
                assigned |= {"data.folds": asked.folds, "data.fold": fold + 1}
            params = profiles.changed(self.base, assigned, f"{self.where}: {setting}")
            cells.append(Cell(setting, changes, assigned, params))
        return cells

    def cells(self) -> list[Cell]:
        """Return the cells that are known beforehand, the base's first; raises UsageError.

        A setting that comes to the same parameters as one before it is left out.
        """
        if self.asked.sample:
            return []
        settings = self.asked.settings or {}
        for values in itertools.product(*(self.asked.grid or {}).values()):
            changes = dict(zip(self.asked.grid or (), values, strict=True))
            named = (f"{name.split('.')[-1]}={value}" for name, value in changes.items())
            settings = settings | {",".join(named): changes}
        found, names = [self.cells_of(BASE, {})], {BASE}
        for setting, changes in settings.items():
            name = re.sub(r"[^\w=.,+-]+", "-", setting)[:LONGEST]
            name = f"{name}-{len(names)}" if name in names else name
            cells = self.cells_of(name, changes)
            if all(cells[0].params != others[0].params for others in found):
                found.append(cells)
                names.add(name)
        return list(itertools.chain(*found))

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values that the base has of some parameters."""
        tree = self.cells_of(BASE, {})[0].params.model_dump()
        return {name: functools.reduce(dict.__getitem__, name.split("."), tree) for name in names}

    def commands(self, cell: Cell) -> list[list[str]]:
        """Return what ``run_all.py`` is to be told, once for each step of a cell."""
        sets = [f"--set={name}={json.dumps(value)}" for name, value in cell.assigned.items()]
        about = [self.asked.profile, f"--data={self.base.data.source}", *sets]
        return [[*about, f"--only={step}"] for step in self.steps]

    def describe(self) -> dict[str, Any]:
        """Return what ``study.json`` says of what was asked for."""
        asked = self.asked.model_dump(exclude_none=True)
        return {"schema": 1, "study": self.name, **asked, "steps": self.steps,
                "parameters": self.base.model_dump()}  # fmt: skip

    def key(self, cell: Cell, manifest: str) -> str:
        """Return a digest of what decides a cell's numbers; `manifest` is that of the data."""
        params = cell.params.model_dump(exclude={"data": {"source"}})
        notebooks = [read_cells(paths.NOTEBOOKS / f"{step}.ipynb")[0] for step in self.steps]
        return fingerprint.digest_of([params, manifest, code(), notebooks])


def code() -> str:
    """Return a digest of the code and the libraries that decide a cell's numbers."""
    files = [file for pattern in DECIDES for file in sorted(paths.PACKAGE.glob(pattern))]
    libraries = fingerprint.versions(fingerprint.LIBRARIES)
    return fingerprint.digest_of([libraries, *map(sha256_of, files)])


def about(cell: Cell) -> dict[str, Any]:
    """Return what ``study.json`` says of a cell, however it ends."""
    fold = cell.params.data.fold if cell.params.data.folds else None
    return {
        "setting": cell.setting,
        "changes": cell.changes,
        "seed": cell.params.seed,
        "fold": fold,
    }


def read(file: Path, source: str | None) -> Study:
    """Read a study's file, with another source of the data where one is given.

    Raises UsageError where it asks for what is not possible, be it in a cell that a sample may
    come to.
    """
    asked = study_file.read(file)
    base = profiles.load(asked.profile, (), source)
    study = Study(file.stem, study_file.shown(file), asked, base)
    study.cells_of(BASE, {})
    for name, values in asked.sample.over.items() if asked.sample else ():
        for value in values if isinstance(values, list) else (values.low, values.high):
            study.cells_of(f"{name} = {value}", {name: value})
    return study
