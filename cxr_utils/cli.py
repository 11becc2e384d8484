"""The commands: ``run_all.py`` runs the notebooks, ``python -m cxr_utils data`` fetches and describes data."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from . import description, parameters, paths
from .data import dataset, sources
from .data.decoding import Square
from .data.manifest import read_manifest
from .description import one_line
from .files import NO_ROOM, read_json, within
from .parameters import STEPS, UsageError
from .pipeline import repetition, steps, validity
from .pipeline.lock import alone_in
from .pipeline.validity import Run
from .reference import reference

DONE, FAILED, BAD_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = logging.getLogger("cxr_utils")


class _Terminated(BaseException):
    """SIGTERM arrived."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def guarded(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command and turn what may go wrong into an exit code and one line on standard error."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup, or in the background
            signal.signal(number, _stop)
    logging.raiseExceptions = (
        False  # a log that cannot be written is no reason for a traceback on the terminal
    )
    tqdm.monitor_interval = 0  # its thread would keep workers from being forked
    for name in ("CXR_CACHE", "CXR_DATA"):  # kernels work in another folder
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    log.addHandler(logging.NullHandler())
    try:
        code = command(arguments)
        if sys.stdout:  # there is none where it was closed before the start
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        log.exception("standard output is closed")
        if sys.stdout:  # or Python would fail once more as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(
            "stopped, as nobody reads the output any more; the same command goes on",
            file=sys.stderr,
        )
        return FAILED
    except UsageError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("interrupted; the same command resumes the run", file=sys.stderr)
        return INTERRUPTED
    except _Terminated:
        print("terminated; the same command resumes the run", file=sys.stderr)
        return TERMINATED
    except Exception as error:
        log.exception("unexpected")
        print(
            f"error: {type(error).__name__}: {one_line(error)[:300]}; {_remedy(error)}",
            file=sys.stderr,
        )
        return FAILED


def _remedy(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "make room on that disk, and the same command resumes the run"
    logs = [
        handler.baseFilename for handler in log.handlers if isinstance(handler, logging.FileHandler)
    ]
    remedies = [f"the traceback is in {file}" for file in logs]
    if not logs or (
        isinstance(error, OSError)
        and str(error.filename or "").startswith(str(paths.cache_folder()))
    ):
        remedies.insert(0, f"the cache is {paths.cache_folder()}, which $CXR_CACHE can move")
    return ", ".join(remedies)


def _stop(number: int, _: Any) -> NoReturn:
    """Begin to end; a second signal, as an impatient user or a closing terminal sends it, does not stop that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else _Terminated


def run_all(arguments: Sequence[str]) -> int:
    """Run the notebooks 01 to 04 in sequence; see ``python run_all.py --help``."""
    asked = _run_parser().parse_args(arguments)
    record = _recorded(asked) if asked.repeat else None
    where = _source(asked.data)
    named = asked.profile or "default"
    run_params = (
        repetition.params_of(record, asked.repeat, where)
        if record
        else profiles.load(named, asked.set, where)
    )
    reports = Path(asked.out).expanduser().resolve() if asked.out else paths.REPORTS
    folder = paths.RunFolder(reports / _run_name(asked, record))
    if record and folder.record.resolve() == asked.repeat.resolve():
        raise UsageError(
            f"--run {folder.name}: is the run that would be repeated; give another name"
        )
    chosen = tuple(record.done) if record else _steps(asked)
    source = sources.plan(run_params.data)
    profile = record.profile if record else Path(named).stem
    run = Run(
        folder,
        profile,
        run_params,
        source,
        None,
        read_json(folder.record),
        tuple(arguments),
        minutes=asked.time_limit,
    )
    if asked.list or asked.dry_run:
        run.manifest = (
            read_manifest(source.root, _squares(run_params)) if source.root.is_dir() else None
        )
        steps.check_data(run)
        _print_decisions(run, validity.decide(run, chosen, asked.force))
        return DONE
    steps.check_data(
        run
    )  # what can be known without the data, before a folder is made or anything fetched
    with alone_in(folder) as run.temporary:
        run.record = read_json(folder.record)  # another run may have ended since
        _log_to(folder)
        _get_data(run)
        if record:
            repetition.check_data(record, run.manifest)
        decisions = validity.decide(run, chosen, asked.force)
        code = _work(run, decisions, asked.force)
        if record and not any(decision.action == "run" for decision in decisions):
            print(
                f"run {folder.name} was there already and is compared as it is; --force repeats it once more"
            )
    return _compare(run, record, asked.repeat) if record and code == DONE else code


def _get_data(run: Run) -> None:
    """Fetch, list and decode what the notebooks will ask for; they then only read."""
    run.source = sources.fetch(run.params.data, progress=True)
    squares = _squares(run.params)
    run.manifest = read_manifest(run.source.root, squares, progress=True)
    for square in squares:
        dataset.load_pixels(run.manifest, square, progress=True)
    steps.check_data(run)


def _log_to(folder: paths.RunFolder) -> None:
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.propagate = False
    # What libraries say goes to the log alone: of an interrupted run asyncio may tell, with a traceback, that nobody waits any more.
    logging.getLogger().addHandler(handler)


def _recorded(asked: argparse.Namespace) -> repetition.Record:
    if asked.profile or asked.set or asked.only or asked.start:
        raise UsageError(
            "--repeat takes parameters and steps from the record; leave PROFILE, --set, --only and --from out"
        )
    return repetition.read_record(asked.repeat)


def _compare(run: Run, record: repetition.Record, file: Path) -> int:
    """Say whether a repetition came out as the original; its exit code is 1 where it did not."""
    for line in repetition.changed_surroundings(record, run.record):
        print(f"not as it was: {line}")
    original = paths.RunFolder(file.resolve().parent)
    if not original.metrics.is_file():
        print(f"{file}: no metrics.json lies beside it, so there is nothing to compare with")
        return DONE
    compared, differing = repetition.compare(original, run.folder)
    for line in differing[:10]:
        print(f"differs: {line}")
    print(
        f"{compared - len(differing)} of {compared} figures and predictions are equal to those of {original.root}"
    )
    return FAILED if differing else DONE


def _squares(run_params: parameters.Params) -> list[Square]:
    """What the notebooks will ask for, to be decoded in one pass; the kernels then only read."""
    sizes = {
        dataset.OVERVIEW_SIZE,
        *(getattr(run_params, model).image_size for model in parameters.MODELS),
    }
    return [Square(size, run_params.data.fit) for size in sorted(sizes)]


def _run_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "run_all.py",
        description="Run the notebooks 01 to 04 in sequence, resuming what is still valid.",
    )
    parser.add_argument(
        "profile", nargs="?", help="a file in params/ by its stem, or a path (default: default)"
    )
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help=f"{', '.join(sources.NAMES)}, or a folder in the Kaggle layout",
    )
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one parameter (repeatable)",
    )
    parser.add_argument("--only", metavar="STEP", help="run this step alone")
    parser.add_argument(
        "--from", metavar="STEP", dest="start", help="run this step and those after it"
    )
    parser.add_argument(
        "--force", action="store_true", help="run, and train, also what is still valid"
    )
    parser.add_argument("--list", action="store_true", help="list the steps and their state")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run and why, and stop"
    )
    parser.add_argument(
        "--repeat",
        metavar="RUN.JSON",
        type=Path,
        help="repeat the run that this file records, and compare the scores",
    )
    parser.add_argument(
        "--time-limit",
        metavar="MINUTES",
        type=_minutes,
        default=1440.0,
        help="of each step (default: 1440; 0: none)",
    )
    parser.add_argument(
        "--run", metavar="NAME", help="name of the run (default: the profile's stem)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of all runs (default: reports)")
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _source(data: str | None) -> str | None:
    """A folder named on the command line starts at the working directory."""
    if data is None or data in sources.NAMES or not (os.sep in data or os.path.lexists(data)):
        return data
    return str(Path(data).resolve())


def _run_name(asked: argparse.Namespace, record: repetition.Record | None) -> str:
    usual = f"{record.run}-repeated" if record else Path(asked.profile or "default").stem
    name = asked.run if asked.run is not None else usual
    if not name or name.startswith(".") or "/" in name or os.sep in name or not name.isprintable():
        raise UsageError(
            f"--run {name!r}: a plain folder name is needed, without slashes, line breaks or a leading dot"
        )
    return name


def _steps(asked: argparse.Namespace) -> tuple[str, ...]:
    only, start = _step(asked.only), _step(asked.start)
    if only and start:
        raise UsageError("--only and --from exclude each other; give one of them")
    return (only,) if only else STEPS[STEPS.index(start) :] if start else STEPS


def _step(name: str | None) -> str | None:
    if name is None:
        return None
    found = [step for step in STEPS if step.startswith(name)]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"step {name!r} is unknown{profiles.nearest(name, STEPS)}; the steps are {', '.join(STEPS)}"
    )


def _print_decisions(run: Run, decisions: Sequence[validity.Decision]) -> None:
    _print_run(run)
    for decision in decisions:
        print(f"  {decision.step:<16} {decision.action:<6} {decision.reason}")


def _print_run(run: Run) -> None:
    drawn = " (SYNTHETIC)" if run.source.synthetic else ""
    there = "" if run.manifest else ", not on disk yet"
    print(
        f"run {run.folder.name}: profile {run.profile}, data {run.source.kind}{drawn}{there}",
        flush=True,
    )


def _work(run: Run, decisions: Sequence[validity.Decision], force: bool) -> int:
    steps.check_weights(run, decisions)
    _print_run(run)
    problems: list[str] = []
    running = any(decision.action == "run" for decision in decisions)
    if running or not steps.is_published(run):
        steps.begin(run)
        try:
            problems = steps.work(run, decisions, force)
        except BaseException:
            with steps.only_logged():
                steps.publish(run, [])
            raise
        steps.publish(run, problems)
    _print_summary(run, decisions, problems)
    return FAILED if problems else DONE


def _print_summary(
    run: Run, decisions: Sequence[validity.Decision], problems: Sequence[str]
) -> None:
    kept = [decision.step for decision in decisions if decision.action == "keep"]
    if kept:
        print(f"still valid: {', '.join(kept)}")
    for model, splits in within(read_json(run.folder.metrics), "models").items():
        test = splits["test"]
        print(f"{model:<14} test: accuracy {test['accuracy']:.3f}, AUROC {test['auroc']:.3f}, "
              f"sensitivity {test['sensitivity']:.3f}, specificity {test['specificity']:.3f} (n = {test['n']})")  # fmt: skip
    for problem in problems:
        print(f"error: {one_line(problem)}; more in {run.folder.log}", file=sys.stderr)
    print(f"open {run.folder.index}", flush=True)
    if run.source.synthetic:
        print(
            f"SYNTHETIC data: these scores say nothing about real X-rays. For the real set: {sources.REAL_RUN} ({sources.REAL_RUN_COST})"
        )


def main(arguments: Sequence[str]) -> int:
    """Run ``python -m cxr_utils``: ``data SOURCE`` fetches, verifies and describes a data set; ``parameters`` prints their reference."""
    parser = _Parser("python -m cxr_utils", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser(
        "data", help="fetch or make a data set, verify it, print what it holds"
    )
    data.add_argument(
        "source", help=f"{', '.join(sources.NAMES)}, or a folder in the Kaggle layout"
    )
    data.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one parameter (repeatable)",
    )
    commands.add_parser("parameters", help="print the reference of all parameters, in Markdown")
    asked = parser.parse_args(arguments)
    if asked.command == "parameters":
        print(reference(), end="")
        return DONE
    chosen = profiles.load("default", asked.set, _source(asked.source))
    description.show(dataset.open_data(chosen, dataset.OVERVIEW_SIZE, progress=True))
    return DONE
