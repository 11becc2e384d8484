"""Repeats a run from its ``run.json`` and tells whether the same scores come out."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from .. import parameters, paths
from ..data.manifest import Manifest
from ..files import read_json, within
from ..parameters import MODELS, STEPS, Params, UsageError

CODE = (
    "notebook",
    "package",
    "weights",
)  # parts of a step's key that are compared; libraries are by name
ASIDE = ("run",)  # of metrics.json: the name of the run is another one


class _CameTo(BaseModel):
    """What ``auto`` came to when a model was trained."""

    precision: str = Field(pattern=r"^\w+")
    weights: str


class _Step(BaseModel):
    parameters: dict[str, Any] = {}
    key: dict[str, str] | str | None = None
    came_to: _CameTo | None = None


class _Data(BaseModel):
    source: str
    root: str | None = None
    manifest: str | None = None


class Record(BaseModel):
    """The parts of a ``run.json`` that a repetition needs."""

    run: str
    profile: str
    parameters: dict[str, Any]
    data: _Data
    versions: dict[str, Any]
    machine: dict[str, Any]
    environment: dict[str, Any] = {}
    git: str | None = None
    steps: dict[str, _Step] = {}

    @property
    def done(self) -> dict[str, _Step]:
        """The steps that ran to their end, in order."""
        return {
            step: self.steps[step] for step in STEPS if step in self.steps and self.steps[step].key
        }


def read_record(file: Path) -> Record:
    """Return a ``run.json``; raises UsageError where the file is none."""
    try:
        return Record.model_validate(read_json(file))
    except ValidationError as error:
        missing = ".".join(map(str, error.errors()[0]["loc"]))
        raise UsageError(
            f"--repeat {file}: not the run.json of a run ({missing}); give reports/NAME/run.json"
        ) from None


def params_of(record: Record, where: Path, source: str | None = None) -> Params:
    """Return the parameters of a recorded run, as each of its steps had them, with what ``auto`` came to in their place.

    Parameters
    ----------
    record : Record
        What `read_record` returned.
    where : Path
        Its file, for messages.
    source : str, optional
        Where the data lies now.

    Raises
    ------
    UsageError
        No step was done, they were done with different parameters, or not with such as this version takes.
    """
    if not record.done:
        raise UsageError(
            f"--repeat {where}: no step of that run was done; there is nothing to repeat"
        )
    tree: dict[str, Any] = {}
    for step, done in record.done.items():
        try:
            had = profiles.gather(step, done.parameters).model_dump(
                include={"seed", *parameters.sections_of(step)}
            )
        except KeyError as error:
            raise UsageError(
                f"--repeat {where}: {step} has no parameter {error}; repeat it with the version that wrote it"
            ) from None
        other = [name for name in tree.keys() & had.keys() if tree[name] != had[name]]
        if other:
            raise UsageError(
                f"--repeat {where}: its steps had different parameters ({other[0]}); there is no one run to repeat"
            )
        tree |= had
        section = had.get(step.partition("_")[2], {})
        if done.came_to:
            section["precision"] = done.came_to.precision.split()[0]
            if section.get("weights") == "auto":
                section["weights"] = (
                    "none" if done.came_to.weights.startswith("random") else done.came_to.weights
                )
    tree["data"]["source"] = source or (
        record.data.root if record.data.source == "folder" else record.data.source
    )
    return profiles.checked(tree, f"--repeat {where}")


def check_data(record: Record, manifest: Manifest | None) -> None:
    """Raise UsageError where the data is not that of the recorded run."""
    known = str(record.data.manifest)
    if manifest and known != manifest.digest:
        raise UsageError(
            f"data {manifest.root}: not the data of the record (manifest {manifest.digest[:12]} instead of {known[:12]}); "
            "name the data it was made with by --data"
        )


def changed_surroundings(record: Record, now: Mapping[str, Any]) -> list[str]:
    """Say what else is not as it was: libraries, code, machine, settings of the environment."""
    pairs: list[tuple[str, Any, Any]] = [("code", record.git, now["git"])]
    for part in ("versions", "machine", "environment"):
        before = getattr(record, part)
        pairs += [(name, before.get(name), now[part].get(name)) for name in {**before, **now[part]}]
    for step, done in record.done.items():
        key, known = (
            within(now, "steps", step, "key"),
            done.key if isinstance(done.key, dict) else {},
        )
        pairs += [
            (f"{part} of {step}", known[part][:12], key[part][:12])
            for part in known
            if part in key and part in CODE
        ]
    return [
        f"{name}: {before or 'none'} in the record, {after or 'none'} now"
        for name, before, after in pairs
        if before != after
    ]


def compare(original: paths.RunFolder, repeated: paths.RunFolder) -> tuple[int, list[str]]:
    """Compare scores and predictions of two runs.

    Returns
    -------
    int
        How many figures and predictions were compared.
    list of str
        One line for each that differs.
    """
    before, after = (
        {**read_json(run.metrics), **dict.fromkeys(ASIDE)} for run in (original, repeated)
    )
    pairs = _pairs(dict(_flat(before)), dict(_flat(after)), "metrics.json")
    for model in MODELS:
        pairs += _pairs(
            _scores(original.predictions(model)),
            _scores(repeated.predictions(model)),
            f"{model}.csv",
        )
    return len(pairs), [
        f"{name}: {one!r} in the original, {other!r} in the repetition"
        for name, one, other in pairs
        if one != other
    ]


def _pairs(
    before: Mapping[str, Any], after: Mapping[str, Any], file: str
) -> list[tuple[str, Any, Any]]:
    return [
        (f"{file} {name}", before.get(name, "nothing"), after.get(name, "nothing"))
        for name in {**before, **after}
    ]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and word of a nested value, with where it stands."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(part, f"{name}/{key}")
    else:
        yield name, value


def _scores(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {f"{row['split']} {row['path']}": row["score"] for row in csv.DictReader(lines)}
