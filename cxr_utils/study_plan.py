"""Studies become cells: what ``params/studies/NAME.yaml`` may hold, and the runs it comes to."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from . import paths, profiles
from .parameters import MODELS, Number, Params, Section, UsageError

BASE = "base"  # the setting that changes nothing
LONGEST = 60  # characters of a setting's name, which is part of a folder's
# What may differ between settings that are compared on the same films.
VARIED_DATA = {"data.fit", "data.training_share"}


class Range(Section):
    """Numbers from `low` to `high`; whole ones where the parameter's are."""

    low: int | Number
    high: int | Number
    log: bool = False

    @model_validator(mode="after")
    def _spans(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            said = "low must be below high, and above 0 where log is true"
            raise ValueError(f"low = {self.low}, high = {self.high}: {said}")
        return self


class Sample(Section):
    """So many settings, drawn from values or a range of each factor."""

    settings: int = Field(ge=1)
    over: dict[str, list[Any] | Range] = Field(min_length=1)

    def allows(self, values: dict[str, Any]) -> bool:
        """Tell whether a setting with these values can be drawn."""
        return all(
            value in asked if isinstance(asked, list) else asked.low <= value <= asked.high
            for asked, value in ((self.over[name], value) for name, value in values.items())
        )


class StudyFile(Section):
    """The content of a study's file; docs/studies.md describes it."""

    question: str = Field(min_length=1)
    profile: str = "default"
    models: list[str] = Field(list(MODELS), min_length=1)
    set: dict[str, Any] = Field({})
    seeds: int = Field(1, ge=1)
    folds: int = Field(0, ge=0, le=20)
    settings: dict[str, dict[str, Any]] | None = None
    grid: dict[str, list[Any]] | None = None
    random: Sample | None = None
    search: Sample | None = None

    @model_validator(mode="after")
    def _asks(self) -> Self:
        kinds = [kind for kind in ("settings", "grid", "random", "search")
                 if getattr(self, kind) is not None]  # fmt: skip
        if len(kinds) > 1:
            raise ValueError(f"{' and '.join(kinds)}: only one is allowed; remove the other")
        factors = self.sample.over if self.sample else self.grid if kinds else {"": [0]}
        if self.settings == {} or factors == {} or [] in (factors or {}).values():
            raise ValueError(f"{kinds[0]}: nothing to try; give every factor a value")
        if unknown := sorted({*self.models} - {*MODELS}):
            raise ValueError(f"unknown model {unknown[0]}; choose from {', '.join(MODELS)}")
        return self

    @property
    def count(self) -> int:
        """How many cells there are, those that equal the base counted too."""
        settings = 1 + len(self.settings or ())
        if self.grid:
            settings += math.prod(len(values) for values in self.grid.values())
        each = self.seeds * max(1, self.folds)
        return (self.sample.settings if self.sample else settings) * each

    def known_settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield a name that a folder can have, and the changes, of each setting but the base."""
        settings, names = self.settings or {}, {BASE}
        for values in itertools.product(*(self.grid or {}).values()):
            changes = dict(zip(self.grid or (), values, strict=True))
            named = (f"{name.split('.')[-1]}={value}" for name, value in changes.items())
            settings = settings | {",".join(named) or BASE: changes}
        for setting, changes in settings.items():
            name = re.sub(r"[^\w=.,+-]+", "-", setting).lstrip(".-")
            if name in names or not 0 < len(name) <= LONGEST:  # the same in every order
                told = json.dumps([setting, changes], sort_keys=True, default=str)
                name = f"{name[:LONGEST]}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"
            names.add(name)
            yield name, changes

    def factors(self) -> frozenset[str]:
        """Return the parameters that settings change, each by ``section.key``."""
        listed = itertools.chain.from_iterable((self.settings or {}).values())
        sampled = self.sample.over if self.sample else ()
        return frozenset([*listed, *(self.grid or ()), *sampled])

    @property
    def sample(self) -> Sample | None:
        """What is drawn while the study goes on."""
        return self.random or self.search


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    setting: str
    changes: dict[str, Any]  # of the setting, by section.key
    params: Params

    @property
    def name(self) -> str:
        """What its folder is called."""
        fold = f"-fold{self.params.data.fold}" if self.params.data.folds else ""
        return f"{self.setting}-{self.params.seed}{fold}"

    @property
    def about(self) -> dict[str, Any]:
        """What ``study.json`` says of it, however it ends."""
        told = {"setting": self.setting, "changes": self.changes, "seed": self.params.seed}
        return told | {"fold": self.params.data.fold if self.params.data.folds else None}


@dataclass(frozen=True)
class Study:
    """A study as it was asked for in the file `where`."""

    name: str
    where: str
    asked: StudyFile
    base: Params

    def cell(self, setting: str, changes: dict[str, Any], seed: int = 0, fold: int = 0) -> Cell:
        """Return a setting's cell of a seed and a fold, counted from 0; raises UsageError."""
        assigned = changes | {"seed": self.base.seed + seed}
        if self.asked.folds:
            assigned |= {"data.folds": self.asked.folds, "data.fold": fold + 1}
        params = profiles.changed(self.base, assigned, f"{self.where}: {setting}")
        return Cell(setting, params.values(changes), params)

    def cells_of(self, setting: str, changes: dict[str, Any]) -> list[Cell]:
        """Return a setting's cells: one for each seed and fold; raises UsageError."""
        each = itertools.product(range(self.asked.seeds), range(max(1, self.asked.folds)))
        return [self.cell(setting, changes, *one) for one in each]

    def cells(self) -> list[Cell]:
        """Return the cells that are known beforehand, the base's first; raises UsageError.

        A setting that comes to the same parameters as one before it is left out.
        """
        found: dict[Params, list[Cell]] = {}
        for name, changes in [(BASE, {}), *self.asked.known_settings()]:
            cells = self.cells_of(name, changes)
            found.setdefault(cells[0].params, cells)
        return [] if self.asked.sample else list(itertools.chain(*found.values()))


def read(file: Path, source: str | None) -> Study:
    """Read a study's file, with another source of the data where one is given.

    Raises UsageError where it is not as it must be, or asks for what cannot be, be it in a cell
    that is drawn later.
    """
    where = str(file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file)
    asked = _read(file, where)
    base = profiles.changed(profiles.load(asked.profile, (), source), asked.set, where)
    study = Study(file.stem, where, asked, base)
    study.cell(BASE, {})
    for name in sorted(asked.factors()):
        if name == "seed" or (name.startswith("data.") and name not in VARIED_DATA):
            said = f"{name} cannot be tried, as settings are compared on the same films"
            raise UsageError(f"{where}: {said}; put it under set, or ask for seeds and folds")
    for name, values in asked.sample.over.items() if asked.sample else ():
        for value in values if isinstance(values, list) else (values.low, values.high):
            study.cell(f"{name} = {value}", {name: value})
    return study


def _read(file: Path, where: str) -> StudyFile:
    try:
        return StudyFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except OSError as error:
        like = "give a file like those in params/studies"
        said = f"cannot be read ({error.strerror}); {like}"
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        said = f"not valid YAML ({error}); fix that line"
    except ValidationError as error:
        first = error.errors()[-1]  # of a union's members, the one that says most
        named = [str(part) for part in first["loc"] if not re.search(r"[\[(]", str(part))]
        place = "".join(f"{part}: " for part in named if part != "Range")
        wrong = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        wrong = "unknown key" if first["type"] == "extra_forbidden" else wrong
        said = f"{place}{wrong}; see docs/studies.md"
    raise UsageError(f"{where}: {said}")
