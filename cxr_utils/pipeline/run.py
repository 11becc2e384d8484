"""Runs the steps of a run that are not valid, in order, and records what was done."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ..data import sources
from ..data.splits import assign_splits
from ..files import read_json, within
from ..models import weights
from ..parameters import LEAST_SIDE, MODELS, STEPS, UsageError, flat, model_of
from . import record, validity
from .validity import NEEDS, Decision, Run

log = logging.getLogger(__name__)


def check_data(run: Run) -> None:
    """Raise UsageError where the data cannot be trained on as the parameters ask; no notebook has run yet."""
    if run.params.resnet50v2.weights_file:
        weights.check_file(run.params.resnet50v2.weights_file)
    for model in MODELS:
        settings = getattr(run.params, model)
        least = LEAST_SIDE.get(getattr(settings, "backbone", ""), 32)
        if settings.image_size < least:
            raise UsageError(
                f"{model}.image_size = {settings.image_size}: the backbone takes {least} px and more"
            )
    if run.manifest is None:
        return
    files = assign_splits(run.manifest.files, run.params.data, run.params.seed)
    training = int((files["split"] == "train").sum())
    for model in MODELS:
        batch = getattr(run.params, model).batch_size
        if batch > training:
            raise UsageError(
                f"{model}.batch_size = {batch}: there are only {training} training images; take a smaller batch"
            )


def check_weights(run: Run, decisions: Sequence[Decision]) -> None:
    """Raise UsageError where named weights do not fit the backbone that is about to be trained.

    A process of its own builds the network: TensorFlow's threads would be in the way of those that decode images.
    """
    running = [model_of(decision.step) for decision in decisions if decision.action == "run"]
    if "resnet50v2" in running and run.params.resnet50v2.weights_file:
        with ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_silence
        ) as other:
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
    from . import execution  # papermill takes a second, which a run with nothing to do saves

    execution.quiet_libraries()
    # What renders reports takes more than a second to import, which the first notebook's kernel takes to start anyway.
    threading.Thread(target=_import_report).start()
    problems: dict[str, str] = {}
    for step in (decision.step for decision in decisions if decision.action == "run"):
        blocking = [needed for needed in NEEDS.get(step, ()) if needed in problems]
        problem = _drop(step, run, blocking[0]) if blocking else _attempt(step, run, force)
        if problem:
            problems[step] = problem
    return list(problems.values())


def _import_report() -> None:
    """Import what will be needed; who needs it then says what is wrong with it."""
    with contextlib.suppress(Exception):
        from ..reporting import html  # noqa: F401


def begin(run: Run) -> None:
    """Describe the run in its record, and take away what speaks of other data or of the run before.

    The page to open first goes until there is one of this run: no kill in between can leave the scores of another.
    """
    before = (
        within(run.record, "data").get("manifest"),
        within(read_json(run.folder.metrics), "data").get("manifest"),
    )
    run.record = {**run.record, **record.describe(run), "problems": None}
    run.folder.index.unlink(missing_ok=True)
    if run.manifest and any(known and known != run.manifest.digest for known in before):
        for file in run.folder.results():
            file.unlink(missing_ok=True)


def publish(run: Run, problems: Sequence[str]) -> None:
    """Write the page of the run and that of all runs, and then that it was done."""
    from ..reporting import html

    incomplete = [*problems, *outdated(run, problems)]
    html.write_index(run.folder, run.record, incomplete)
    html.write_runs(run.folder.root.parent)
    run.record["problems"] = incomplete
    record.write_record(run)


def is_published(run: Run) -> bool:
    """Tell whether the page of the run shows what its folder holds, of a run with these parameters and nothing missing."""
    return (
        run.folder.index.is_file()
        and run.record.get("problems") == []
        and run.record.get("parameters") == run.params.model_dump()
    )


@contextlib.contextmanager
def only_logged() -> Iterator[None]:
    """Let nothing that goes wrong while an exception is on its way take that one's place."""
    try:
        yield
    except Exception:
        log.exception("while ending the run")


def _drop(step: str, run: Run, blocking: str) -> str:
    """Leave out a step that cannot run, and what speaks of its run before; returns what is to be said of it."""
    for file in (run.folder.executed(step), run.folder.html(step)):
        file.unlink(missing_ok=True)
    return f"{step}: did not run, as {blocking} failed"


def _attempt(step: str, run: Run, force: bool) -> str:
    """Run a step and render its report, however it ends; returns what is wrong, or an empty string."""
    from . import execution

    def render(failed: bool) -> None:
        from ..reporting import html

        if run.folder.executed(step).is_file():
            html.render(step, run.folder, run.source.synthetic, failed)

    try:
        run_step(step, run, force)
    except BaseException as error:
        with only_logged():
            render(failed=True)
        if isinstance(error, execution.StepFailed):
            return str(error)
        raise
    render(failed=False)
    return _complete(step, run)


def run_step(step: str, run: Run, force: bool) -> None:
    """Execute the notebook of one step; raises StepFailed."""
    from ..evaluation import results
    from . import execution

    assert run.temporary, "the run's folder is held"
    values = flat(run.params, step, run.folder.root) | {
        "source": sources.name_of(run.source, run.params.data)
    }
    key = validity.step_key(
        step, run
    )  # before the notebook runs: what is edited meanwhile is not what ran
    done: dict[str, Any] = {"started": record.now(), "parameters": values}
    run.record["steps"] = {**within(run.record, "steps"), step: done}
    record.write_record(run)
    for file in (run.folder.executed(step), run.folder.html(step)):
        file.unlink(missing_ok=True)
    model = model_of(step)
    if model:
        results.forget(model, run.folder)
    if force and model:
        run.folder.model_card(model).unlink(missing_ok=True)
        run.folder.checkpoint(model).unlink(missing_ok=True)
    started = time.perf_counter()
    execution.execute(step, values, run.folder.executed(step), run.temporary, run.minutes)
    done.update(seconds=round(time.perf_counter() - started, 1), ran_as=key)


def _complete(step: str, run: Run) -> str:
    """Record a step as done, last of all, once what it left was checked; returns what is wrong with it."""
    problem = validity.check_artefacts(step, run)
    if not problem:
        done = run.record["steps"][step]
        model = model_of(step)
        if model:
            card = read_json(run.folder.model_card(model))
            done["came_to"] = {name: card[name] for name in ("precision", "weights")}
        done["files"] = validity.remember(step, run)
        done["key"] = done.pop("ran_as")
        record.write_record(run)
    return problem


def outdated(run: Run, problems: Sequence[str]) -> list[str]:
    """Return a line for each step, not already among the problems, that is not what the parameters say."""
    reasons = {
        step: validity.validity(step, run)
        for step in STEPS
        if not any(problem.startswith(step) for problem in problems)
    }
    return [f"{step}: not run this time; {reason}" for step, reason in reasons.items() if reason]
