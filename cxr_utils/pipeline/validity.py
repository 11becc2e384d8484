"""What a run is, what its steps leave behind, and which of them are still valid."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import paths
from ..data.manifest import Manifest
from ..data.sources import Source
from ..files import read_json, sha256_of, within
from ..models import fingerprint
from ..parameters import STEPS, Params, UsageError, flat, model_of

NEEDS = {"04_comparison": ("02_baseline_cnn", "03_resnet50v2")}


@dataclass
class Run:
    """A run that is about to happen.

    Parameters
    ----------
    folder : RunFolder
        Where its files go.
    profile : str
        Name of the profile.
    params : Params
        All parameters.
    source : Source
        The data set that ``data.source`` stands for.
    manifest : Manifest or None
        Its files; None while the data set has still to be drawn or downloaded.
    record : dict
        Content of ``run.json`` as the last run left it.
    arguments : sequence of str
        What stood on the command line.
    temporary : Path or None
        Folder for files that go when the run ends; None while nothing runs.
    minutes : float
        Time limit of each step; 0 is none.
    """

    folder: paths.RunFolder
    profile: str
    params: Params
    source: Source
    manifest: Manifest | None
    record: dict[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    temporary: Path | None = None
    minutes: float = 0


@dataclass(frozen=True)
class Decision:
    """What is to be done with a step, and why: ``run``, ``keep`` or ``leave`` (not asked for)."""

    step: str
    action: str
    reason: str


def artefacts(step: str, run: Run) -> list[Path]:
    """Return the files that a step must leave behind."""
    folder = run.folder
    files = [folder.executed(step), folder.html(step)]
    model = model_of(step)
    if model:
        chosen = "val" if run.params.data.validation == "val" else "validation"
        files += [
            folder.predictions(model),
            folder.model(model),
            folder.model_card(model),
            folder.metrics,
        ]
        files += [folder.figure(f"confusion_matrix_{model}_{split}") for split in (chosen, "test")]
    return files


def notebook_digest(step: str) -> str:
    """Return a digest of a notebook's cells as they read: neither outputs nor what an editor notes beside them count.

    Raises
    ------
    UsageError
        The file is not a notebook, as after a merge with conflicts.
    """
    file = paths.NOTEBOOKS / f"{step}.ipynb"
    try:  # as plain JSON: nbformat takes a second to import, half of what a run with nothing to do would take
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        return fingerprint.digest_of(
            [
                [cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])]
                for cell in cells
            ]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file}: cannot be read as a notebook ({type(error).__name__}); restore it, or settle the merge that left it so"
        ) from error


@functools.cache
def package_digest() -> str:
    """Return a digest of the package's code and templates, as they are when it is first asked for."""
    files = sorted([*paths.PACKAGE.rglob("*.py"), *paths.TEMPLATES.glob("*.*")])
    return fingerprint.digest_of(
        [[file.relative_to(paths.PACKAGE).as_posix(), sha256_of(file)] for file in files]
    )


def step_key(step: str, run: Run) -> dict[str, str]:
    """Return what a step's report depends on, by what it is called: parameters, data, code, libraries and inputs."""
    values = flat(run.params, step, "") | {"source": run.source.kind}
    named = sha256_of(paths.from_root(values.get("weights", "")))
    return {
        "parameters": fingerprint.digest_of(
            {name: value for name, value in values.items() if name != "run_dir"}
        ),
        "data": run.manifest.digest if run.manifest else "",
        "notebook": notebook_digest(step),
        "package": package_digest(),
        "libraries": fingerprint.digest_of(fingerprint.versions(fingerprint.LIBRARIES)),
        **({"weights": named} if named else {}),
        **{
            f"predictions of {needed}": sha256_of(run.folder.predictions(str(model_of(needed))))
            for needed in NEEDS.get(step, ())
        },
    }


def validity(step: str, run: Run) -> str:
    """Return why a step must run, or an empty string where what it left behind is still valid."""
    done = within(run.record, "steps", step)
    if not within(done, "key"):
        return "has not run yet" if not done else "has not run to its end"
    missing = [file.name for file in artefacts(step, run) if not file.is_file()]
    if missing:
        return f"{missing[0]} is missing"
    if model_of(step) and not _scored(str(model_of(step)), run):
        return "metrics.json does not hold its scores"
    key = step_key(step, run)
    other = [part for part in {**key, **done["key"]} if done["key"].get(part) != key.get(part)]
    if other:
        named = [
            _changed_values(step, done, run) if part == "parameters" else part for part in other
        ]
        return f"changed: {', '.join(named)}"
    spoilt = [
        name
        for name, known in within(done, "files").items()
        if sha256_of(run.folder.root / name) != known
    ]
    return f"{spoilt[0]} is not what the step left" if spoilt else ""


def _changed_values(step: str, done: dict[str, Any], run: Run) -> str:
    """Name the parameters that are not those of the last time."""
    before, values = within(done, "parameters"), flat(run.params, step, "")
    names = [
        name
        for name in values
        if name not in ("run_dir", "source") and before.get(name) != values[name]
    ]
    return " and ".join(names) or "parameters"


def remember(step: str, run: Run) -> dict[str, str]:
    """Return the digests of what a step left behind, ``metrics.json`` aside, which two steps write."""
    files = [file for file in artefacts(step, run) if file != run.folder.metrics]
    return {file.relative_to(run.folder.root).as_posix(): sha256_of(file) for file in files}


def check_artefacts(step: str, run: Run) -> str:
    """Return what is wrong with what a step has just left behind, or an empty string."""
    missing = [file for file in artefacts(step, run) if not file.is_file()]
    if missing:
        return f"{step}: ran to its end but left no {missing[0].name}; look into its report"
    model = model_of(step)
    if model and not _scored(model, run):
        return f"{step}: ran to its end but metrics.json does not hold its scores; run it again"
    if model and read_json(run.folder.model_card(model)).get("sha256") != sha256_of(
        run.folder.model(model)
    ):
        return f"{step}: ran to its end but {run.folder.model(model).name} is not the model that was scored; run it again"
    return ""


def _scored(model: str, run: Run) -> bool:
    """Tell whether ``metrics.json`` holds a model's scores of all its predictions, on the data of this run."""
    known = read_json(run.folder.metrics)
    scores = within(known, "models", model)
    if (
        not scores
        or run.manifest is None
        or within(known, "data").get("manifest") != run.manifest.digest
    ):
        return False
    with run.folder.predictions(model).open(
        encoding="utf-8", errors="replace", newline=""
    ) as lines:
        rows = sum(1 for _ in csv.DictReader(lines))
    return sum(split.get("n", 0) for split in scores.values() if isinstance(split, dict)) == rows


def training_ahead(step: str, run: Run) -> str:
    """Say of a step that will run whether its model will be trained or was trained before; empty where it has none."""
    model = model_of(step)
    if not model or run.manifest is None:
        return ""
    kept = fingerprint.is_trained(model, run.params, run.manifest.digest, run.folder)
    return "its model is taken as it was trained" if kept else "its model is trained"


def decide(run: Run, asked: Sequence[str] = STEPS, force: bool = False) -> list[Decision]:
    """Decide for each step whether it runs.

    Parameters
    ----------
    run : Run
        The run.
    asked : sequence of str
        The steps that may run.
    force : bool
        Run also what is still valid.

    Raises
    ------
    UsageError
        A notebook cannot be read, or a step that is asked for needs predictions that are neither there nor made
        before it.
    """
    decisions, running = [], set()
    for step in STEPS:
        if step not in asked:
            decisions.append(Decision(step, "leave", "not asked for"))
            continue
        notebook_digest(step)  # one that cannot be read is known before anything runs
        reason = "--force" if force else validity(step, run)
        needed = [other for other in NEEDS.get(step, ()) if other in running]
        reason = reason or (f"{needed[0]} runs" if needed else "")
        _check_inputs(step, asked, run)
        if not reason:
            decisions.append(Decision(step, "keep", "nothing has changed"))
            continue
        ahead = "" if force else training_ahead(step, run)
        decisions.append(Decision(step, "run", f"{reason}; {ahead}" if ahead else reason))
        running.add(step)
    return decisions


def _check_inputs(step: str, asked: Sequence[str], run: Run) -> None:
    for needed in NEEDS.get(step, ()):
        reason = "" if needed in asked else validity(needed, run)
        if reason:
            raise UsageError(
                f"{step} needs {needed}: {reason}; repeat the command with --from {needed}"
            )
