"""Runs the steps of a run that are not valid, alone in its folder, and records what was done."""

import contextlib
import json
import logging
import multiprocessing
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .. import paths, profiles
from ..data import dataset, sources
from ..evaluation import results
from ..files import read_json, silenced_errors, within, write_atomically
from ..models import weights
from ..parameters import UsageError
from . import record, validity
from .steps import Step
from .validity import Decision, Run

PREFIX = "cxr-"
LONGEST = 70  # bytes of the name of a folder for sockets, of a socket's own 107

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone_in(folder: paths.RunFolder) -> Iterator[Path]:
    """Hold the run lock of a folder, and yield a folder for temporary files.

    What a run that was killed left unfinished is removed first; the temporary files go at the end.
    Raises UsageError where the folder cannot be written, or another run is at work in it.
    """
    temporary = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(6)}"
    if len(os.fsencode(temporary)) > LONGEST:
        remedy = "set TMPDIR to a folder with a shorter one"
        raise UsageError(f"{temporary.parent}: the path is too long for sockets; {remedy}")
    lock = FileLock(folder.lock, timeout=0)
    try:
        folder.make()
        lock.acquire()
        _settle_in(folder, temporary)
    except Timeout:
        known = read_json(folder.holder)  # one that has just begun has not said so yet
        who, remedy = "another run", "wait for it or give another --run NAME or --out DIR"
        if {"process", "host", "since"} <= set(known):
            who = f"process {known['process']} on {known['host']}, since {known['since']},"
        raise UsageError(f"{folder.root}: {who} is at work there; {remedy}") from None
    except OSError as error:
        lock.release()
        remedy = "give another folder with --out"
        raise UsageError(f"{folder.root}: cannot be written ({error.strerror}); {remedy}") from None
    try:
        temporary.mkdir(mode=0o700)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        folder.holder.unlink(missing_ok=True)
        lock.release()


def _settle_in(folder: paths.RunFolder, temporary: Path) -> None:
    """Say who is here, and clean up after a run that was killed.

    Temporary files are named before they are made, so that the next run finds them whenever this
    one is killed.
    """
    left = Path(str(read_json(folder.holder).get("files", "")))
    folder.holder.unlink(missing_ok=True)
    since = f"{datetime.now():%Y-%m-%d %H:%M}"
    about = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    write_atomically(folder.holder, json.dumps({**about, "files": str(temporary)}))
    for part in list(folder.parts()):
        part.unlink(missing_ok=True)
    ours = left.parent == temporary.parent and left.name.startswith(PREFIX)
    if ours and left.is_dir() and left.stat().st_uid == os.getuid():
        shutil.rmtree(left, ignore_errors=True)


def log_to(folder: paths.RunFolder) -> None:
    """Let what is said of a run, by libraries too, go to the log in its folder."""
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("cxr_utils")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False
    # What libraries say goes to the log alone, as asyncio's traceback of what nobody waits for.
    logging.getLogger().addHandler(handler)


def check_data(run: Run, known: dict[str, Any]) -> None:
    """Raise UsageError where the data cannot be trained on, or is not that of a `known` record."""
    record.check_same_data(known, run)
    training = float("inf")
    if run.manifest:
        files = dataset.split_files(run.manifest, run.params)
        training = int((files["split"] == "train").sum())
    for name in filter(None, (step.section for step in run.steps)):
        section = run.params.sections[name]
        if section.weights_file:
            weights.check_file(section.weights_file)
        if section.batch_size > training:
            there = f"there are only {training} training images; take a smaller batch"
            raise UsageError(f"{name}.batch_size = {section.batch_size}: {there}")


def _check_weights(section: Any) -> None:
    """Raise UsageError where named weights do not fit; called in a process of its own.

    TensorFlow's threads would be in the way of those that decode images.
    """
    with silenced_errors():  # of what TensorFlow says as it starts
        from ..models import networks

        networks.check_weights(section)


def work(run: Run, decisions: Sequence[Decision], force: bool = False) -> list[str]:
    """Run the steps that were decided on, and publish the pages of the run, however it ends.

    A failed step does not stop those that do not need it. Returns one line for each step that
    failed or could not run.
    """
    running = [decision.step for decision in decisions if decision.action == "run"]
    for section in (run.params.sections.get(step.section or "") for step in running):
        if section and section.weights_file:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
                other.submit(_check_weights, section).result()
    published = run.folder.index.is_file() and run.record.get("problems") == []
    if not running and published and run.record.get("parameters") == run.params.model_dump():
        return []
    _begin(run)
    from . import execution  # noqa: F401  # first: two threads that import at once may meet halfway

    threading.Thread(target=_import_report).start()  # imports while the first kernel starts
    problems: dict[str, str] = {}
    try:
        for step in running:
            _clear(step, run, force)
            if failed := [needed for needed in step.needs if needed in problems]:
                problems[step.name] = f"{step.name}: did not run, as {failed[0]} failed"
            elif problem := _attempt(step, run):
                problems[step.name] = problem
    except BaseException:
        with _only_logged():
            _publish(run, {})
        raise
    _publish(run, problems)
    return list(problems.values())


def _import_report() -> None:
    with contextlib.suppress(Exception):  # who needs it then says what is wrong with it
        from ..reporting import html  # noqa: F401


@contextlib.contextmanager
def _only_logged() -> Iterator[None]:
    """Let nothing that goes wrong while an exception is on its way take that one's place."""
    try:
        yield
    except Exception:
        log.exception("while ending the run")


def _begin(run: Run) -> None:
    """Describe the run in its record, and take away what speaks of another.

    The page to open first goes until there is one of this run: no kill in between can leave the
    scores of other parameters, other data or a model of another name.
    """
    scores = read_json(run.folder.metrics)
    digests = [within(known, "data").get("manifest") for known in (run.record, scores)]
    run.record = {**run.record, **record.describe(run), "problems": None}
    run.folder.index.unlink(missing_ok=True)
    if run.manifest and any(digest and digest != run.manifest.digest for digest in digests):
        for file in run.folder.results():
            file.unlink(missing_ok=True)
    there = {file.stem for file in run.folder.predictions("x").parent.glob("*.csv")}
    for name in (there | set(within(scores, "models"))) - set(run.models):
        results.forget(name, run.folder)
        for file in run.folder.figure("x").parent.glob("*.png"):
            if re.search(rf"(^|_){re.escape(name)}(_|$)", file.stem):
                file.unlink(missing_ok=True)


def _clear(step: Step, run: Run, force: bool) -> None:
    """Take away what a step left before, so that nothing of it can pass for this run's."""
    folder, model = run.folder, run.model(step)
    stale = [folder.executed(step.name), folder.html(step.name), folder.progress(model)]
    if model:
        results.forget(model, folder)
        for trained in [folder, *folder.members()] * force:
            stale += [trained.model_card(model), trained.checkpoint(model)]
    for file in stale:
        file.unlink(missing_ok=True)


def _attempt(step: Step, run: Run) -> str:
    """Run a step and render its report, however it ends; returns what is wrong, or nothing."""
    from . import execution  # papermill takes a second, which a run with nothing to do saves

    assert run.temporary, "the run's folder is held"
    folder, model = run.folder, run.model(step)
    values = profiles.flat(run.params, step.name, step.parameters, folder.root)
    if "source" in values:
        values["source"] = sources.name_of(run.source, run.params.data)
    key = validity.step_key(step, run)  # of what is run: it may be edited meanwhile
    done: dict[str, Any] = {"started": record.now(), "parameters": values}
    run.record["steps"] = {**within(run.record, "steps"), step.name: done}
    record.write_record(run)
    target, started = folder.executed(step.name), time.perf_counter()
    progress = folder.progress(model) if model else None
    try:
        execution.execute(step.name, values, target, run.temporary, run.minutes, progress)
        done["seconds"] = round(time.perf_counter() - started, 1)
    except BaseException as error:
        with _only_logged():
            _render(step, run, failed=True)
        if isinstance(error, execution.StepFailed):
            return str(error)
        raise
    _render(step, run, failed=False)
    if wrong := validity.check_artefacts(step, run):
        return wrong
    if model:
        card = read_json(folder.model_card(model))
        done["came_to"] = {name: card.get(name) for name in ("precision", "start", "epochs")}
    done.update(files=validity.remember(step, run), key=key)  # done, last of all
    record.write_record(run)
    return ""


def _render(step: Step, run: Run, failed: bool) -> None:
    from ..reporting import html

    if run.folder.executed(step.name).is_file():
        synthetic = run.source.synthetic
        html.render(step.name, step.title, _pages(run), run.folder, synthetic, failed)


def _pages(run: Run) -> list[tuple[str, str]]:
    """Step and title of each report."""
    return [(step.name, step.title) for step in run.steps]


def _publish(run: Run, problems: dict[str, str]) -> None:
    """Write the page of the run and that of all runs, and then that it was done."""
    from ..reporting import html

    others = [step for step in run.steps if step.name not in problems]
    said = [f"{step.name}: not run this time; {reason}" for step in others
            if (reason := validity.validity(step, run))]  # fmt: skip
    run.record["problems"] = [*problems.values(), *said]
    html.write_index(run.folder, run.record, _pages(run), run.record["problems"])
    if not (run.folder.root.parents[1] / "study.json").is_file():  # a study has a page of its own
        html.write_runs(run.folder.root.parent)
    record.write_record(run)
