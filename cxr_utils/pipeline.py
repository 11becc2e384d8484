"""Decides which steps of a run are still valid, runs the others in order, and records what was done."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import paths, sources, weights
from .folds import split_folds
from .manifest import Manifest
from .params import LEAST_SIDE, MODELS, STEPS, Params, UsageError, flat, model_of
from .sources import Source

log = logging.getLogger(__name__)

NEEDS = {"04_comparison": ("02_baseline_cnn", "03_resnet50v2")}
LIBRARIES = (
    "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "pillow", "matplotlib", "seaborn",
    "papermill", "nbclient", "nbconvert", "ipykernel", "pydantic",
)  # fmt: skip


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
    """

    folder: paths.RunFolder
    profile: str
    params: Params
    source: Source
    manifest: Manifest | None
    record: dict[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    """What is to be done with a step, and why: ``run``, ``keep`` or ``leave`` (not asked for)."""

    step: str
    action: str
    reason: str


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object as far as it can be read; a damaged or missing one counts as empty."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def artefacts(step: str, run: Run) -> list[Path]:
    """Return the files that a step must leave behind."""
    folder = run.folder
    files = [folder.executed(step), folder.html(step)]
    model = model_of(step)
    if model:
        chosen = "val" if run.params.data.validation == "val" else "validation"
        files += [folder.predictions(model), folder.model(model), folder.model_card(model), folder.metrics]
        files += [folder.figure(f"confusion_matrix_{model}_{split}") for split in (chosen, "test")]
    return files


def step_key(step: str, run: Run) -> str:
    """Return a digest of all that a step's report depends on: parameters, data, code, libraries and inputs."""
    values = flat(run.params, step, "")
    values["source"] = run.source.kind
    package = sorted(file for file in paths.PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    inputs = [paths.digest(run.folder.predictions(str(model_of(needed)))) for needed in NEEDS.get(step, ())]
    asked = {
        "values": values,
        "manifest": run.manifest.digest if run.manifest else None,
        "notebook": paths.digest(paths.NOTEBOOKS / f"{step}.ipynb"),
        "package": [[file.relative_to(paths.PACKAGE).as_posix(), paths.digest(file)] for file in package],
        "libraries": {library: version(library) for library in LIBRARIES},
        "inputs": inputs,
        "weights": paths.digest(paths.from_root(values.get("weights", ""))),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def validity(step: str, run: Run) -> str:
    """Return why a step must run, or an empty string where what it left behind is still valid."""
    done = run.record.get("steps", {}).get(step)
    if not done:
        return "has not run yet"
    missing = [file.name for file in artefacts(step, run) if not file.is_file()]
    if missing:
        return f"{missing[0]} is missing"
    if model_of(step) and not _scored(str(model_of(step)), run):
        return "metrics.json does not hold its scores"
    if done.get("key") != step_key(step, run):
        return "its parameters, data or code have changed"
    return ""


def _scored(model: str, run: Run) -> bool:
    """Tell whether ``metrics.json`` holds a model's scores on the data of this run."""
    known = read_json(run.folder.metrics)
    same = run.manifest is not None and known.get("data", {}).get("manifest") == run.manifest.digest
    return same and model in known.get("models", {})


def decide(run: Run, only: str | None = None, start: str | None = None, force: bool = False) -> list[Decision]:
    """Decide for each step whether it runs.

    Parameters
    ----------
    run : Run
        The run.
    only, start : str, optional
        The one step to run, or the first of those to run.
    force : bool
        Run also what is still valid.

    Raises
    ------
    UsageError
        A step that is asked for needs predictions that are neither there nor made before it.
    """
    asked = (only,) if only else STEPS[STEPS.index(start) :] if start else STEPS
    decisions, running = [], set()
    for step in STEPS:
        if step not in asked:
            decisions.append(Decision(step, "leave", "not asked for"))
            continue
        reason = "--force" if force else validity(step, run)
        needed = [step for step in NEEDS.get(step, ()) if step in running]
        reason = reason or (f"{needed[0]} runs" if needed else "")
        _check_inputs(step, asked, run)
        decisions.append(Decision(step, "run" if reason else "keep", reason or "nothing has changed"))
        if reason:
            running.add(step)
    return decisions


def _check_inputs(step: str, asked: Sequence[str], run: Run) -> None:
    for needed in NEEDS.get(step, ()):
        reason = "" if needed in asked else validity(needed, run)
        if reason:
            raise UsageError(f"{step} needs {needed}: {reason}; repeat the command with --from {needed}")


def check_data(run: Run) -> None:
    """Raise UsageError where the data cannot be trained on as the parameters ask; no notebook has run yet."""
    named = run.params.resnet50v2.weights
    if named not in ("auto", "imagenet", "none"):
        weights.check_file(paths.from_root(named))
    if run.manifest is None:
        return
    files = split_folds(run.manifest.files, run.params.data, run.params.seed)
    training = int((files["fold"] == "train").sum())
    for model in MODELS:
        least = LEAST_SIDE.get(getattr(getattr(run.params, model), "backbone", ""), 32)
        if getattr(run.params, model).image_size < least:
            raise UsageError(f"{model}.image_size = {getattr(run.params, model).image_size}: the backbone takes {least} px and more")
        batch = getattr(run.params, model).batch_size
        if batch > training:
            raise UsageError(f"{model}.batch_size = {batch}: there are only {training} training images; take a smaller batch")


def check_weights(run: Run, decisions: Sequence[Decision]) -> None:
    """Raise UsageError where named weights do not fit the backbone that is about to be trained.

    A process of its own builds the network: TensorFlow's threads would be in the way of those that decode images.
    """
    running = [model_of(decision.step) for decision in decisions if decision.action == "run"]
    if "resnet50v2" in running and run.params.resnet50v2.weights not in ("auto", "imagenet", "none"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_silence) as other:
            other.submit(weights.check, run.params.resnet50v2).result()


def _silence() -> None:
    """Send to nowhere what TensorFlow says as it starts."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def work(run: Run, decisions: Sequence[Decision], force: bool = False) -> list[str]:
    """Run the steps that were decided on, and write the record after each.

    A failed step does not stop those that do not need it.

    Returns
    -------
    list of str
        One line for each step that failed or could not run.
    """
    from . import execution, report  # papermill and nbconvert take a second, which a run with nothing to do saves

    execution.quiet_libraries()
    _clear_other_data(run)
    run.record = {**run.record, **describe(run)}
    problems: list[str] = []
    failed: set[str] = set()
    for decision in decisions:
        step = decision.step
        if decision.action != "run":
            continue
        blocking = [needed for needed in NEEDS.get(step, ()) if needed in failed]
        if blocking:
            failed.add(step)
            for file in (run.folder.executed(step), run.folder.html(step)):  # they speak of the run before
                file.unlink(missing_ok=True)
            problems.append(f"{step}: did not run, as {blocking[0]} failed")
            continue
        finished = False
        try:
            run_step(step, run, force)
            finished = True
        except execution.StepFailed as error:
            failed.add(step)
            problems.append(str(error))
        finally:
            if run.folder.executed(step).is_file():
                report.render(step, run.folder, run.source.synthetic, failed=not finished)
        if step not in failed:
            problem = _complete(step, run)
            failed |= {step} if problem else set()
            problems += [problem] if problem else []
    return problems


def _clear_other_data(run: Run) -> None:
    """Remove scores and reports of another data set from the folder, so that none can pass for this one's."""
    known = read_json(run.folder.metrics)
    if known and run.manifest and known.get("data", {}).get("manifest") != run.manifest.digest:
        stale = [run.folder.metrics, *run.folder.floor("x").parent.glob("*.csv"), run.folder.index, *map(run.folder.predictions, MODELS)]
        for file in [*stale, *map(run.folder.html, STEPS), *map(run.folder.executed, STEPS), *run.folder.figure("x").parent.glob("*.png")]:
            file.unlink(missing_ok=True)


def run_step(step: str, run: Run, force: bool) -> None:
    """Execute the notebook of one step; raises StepFailed."""
    from . import execution, scoring

    run.record.setdefault("steps", {}).pop(step, None)
    write_record(run)
    for file in (run.folder.executed(step), run.folder.html(step)):
        file.unlink(missing_ok=True)
    model = model_of(step)
    if model:
        scoring.forget(model, run.folder)
    if force and model:
        run.folder.model_card(model).unlink(missing_ok=True)
    values = flat(run.params, step, run.folder.root)
    values["source"] = sources.name_of(run.source, run.params.data)
    key = step_key(step, run)  # before the notebook runs: what is edited meanwhile is not what ran
    run.record["steps"][step] = {"started": _now(), "parameters": values}
    started = time.perf_counter()
    execution.execute(step, values, run.folder.executed(step))
    run.record["steps"][step]["ran_as"] = key
    run.record["steps"][step]["seconds"] = round(time.perf_counter() - started, 1)


def _complete(step: str, run: Run) -> str:
    """Record a step as done once its files are there; returns what is wrong where they are not."""
    missing = [file for file in artefacts(step, run) if not file.is_file()]
    if missing:
        return f"{step}: ran to its end but left no {missing[0].name}; look into its report"
    run.record["steps"][step]["key"] = run.record["steps"][step].pop("ran_as")
    write_record(run)
    return ""


def outdated(run: Run, problems: Sequence[str]) -> list[str]:
    """Return a line for each step, not already among the problems, that is not what the parameters say."""
    reasons = {step: validity(step, run) for step in STEPS if not any(problem.startswith(step) for problem in problems)}
    return [f"{step}: not run this time; {reason}" for step, reason in reasons.items() if reason]


def describe(run: Run) -> dict[str, Any]:
    """Return what ``run.json`` says of a run besides its steps: all that is needed to repeat it."""
    manifest = run.manifest
    return {
        "schema": 1,
        "run": run.folder.name,
        "profile": run.profile,
        "command": ["run_all.py", *run.arguments],
        "parameters": run.params.model_dump(),
        "data": {
            "asked": run.params.data.source,
            "source": run.source.kind,
            "synthetic": run.source.synthetic,
            "root": str(run.source.root),
            "manifest": manifest.digest if manifest else None,
            "counts": manifest.counts() if manifest else None,
            "left_out": len(manifest.left_out) if manifest else None,
        },
        "seed": run.params.seed,
        "versions": {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}},
        "git": _git_revision(),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "written": _now(),
    }


def write_record(run: Run) -> None:
    """Write ``run.json``."""
    paths.write_atomically(run.folder.record, json.dumps(run.record, indent=1))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
