"""The commands: ``run_all.py`` runs notebooks, ``python -m cxr_utils`` looks at data and runs."""

import argparse
import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from . import paths, profiles
from .data import dataset, sources
from .data.manifest import read_manifest
from .data.splits import breakdown
from .files import NO_ROOM, one_line, read_json, within
from .parameters import UsageError
from .pipeline import record, validity
from .pipeline import run as runs
from .pipeline.validity import Decision, Run
from .prediction import command
from .studies import command as study

DONE, FAILED, BAD_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOURCE_HELP = f"{', '.join(sources.NAMES)}, or a folder in the Kaggle layout"
SET: dict[str, Any] = {"metavar": "SECTION.KEY=VALUE", "action": "append", "default": []}
SET |= {"help": "override one parameter (repeatable)"}

SHOWN = ("accuracy", "AUROC", "sensitivity", "specificity")  # of each model, when a run is done

log = logging.getLogger("cxr_utils")


class _Terminated(SystemExit):
    """SIGTERM arrived; an event loop that runs meanwhile would swallow what is not a SystemExit."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def guarded(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command; what may go wrong becomes an exit code and one line on standard error."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup, or in the background
            signal.signal(number, _stop)
    logging.raiseExceptions = False  # a full disk under the log is no traceback on the terminal
    tqdm.monitor_interval = 0  # its thread would keep workers from being forked
    for name in ("CXR_CACHE", "CXR_DATA"):  # kernels work in another folder
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    log.addHandler(logging.NullHandler())
    resumed = "run" if command is run_all else "study" if "study" in arguments[:1] else ""
    resumes = f"; the same command resumes the {resumed}" * bool(resumed)
    try:
        code = command(arguments)
        if sys.stdout:  # there is none where it was closed before the start
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        log.exception("standard output is closed")
        if sys.stdout:  # or Python would fail once more as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, said = FAILED, f"stopped, as nobody reads the output any more{resumes}"
    except UsageError as error:
        code, said = BAD_USAGE, f"error: {one_line(str(error))}"
    except KeyboardInterrupt:
        code, said = INTERRUPTED, f"interrupted{resumes}"
    except _Terminated:
        code, said = TERMINATED, f"terminated{resumes}"
    except Exception as error:
        log.exception("unexpected")
        code, said = FAILED, f"error: {one_line(error)}; {_remedy(error, resumes)}"
    print(said, file=sys.stderr)
    return code


def _remedy(error: Exception, resumes: str) -> str:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"make room on that disk{resumes}"
    logs = [f"the traceback is in {one.baseFilename}" for one in log.handlers
            if isinstance(one, logging.FileHandler)]  # fmt: skip
    cache = str(paths.cache_folder())
    if not logs or str(getattr(error, "filename", "")).startswith(cache):
        logs.insert(0, f"the cache is {cache}, which $CXR_CACHE can move")
    return ", ".join(logs)


def _stop(number: int, _: Any) -> NoReturn:
    """Begin to end; a second signal does not stop that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else _Terminated


def run_all(arguments: Sequence[str]) -> int:
    """Run the notebooks in sequence; see ``python run_all.py --help``."""
    asked = _run_parser().parse_args(arguments)
    params = profiles.load(asked.profile, asked.set, _source(asked.data))
    given = Path(asked.profile).expanduser()
    known = read_json(given) if given.suffix == ".json" else {}  # of a run that is run again
    usual = f"{known.get('run', given.stem)}-repeated" if known else given.stem
    name = usual if asked.run is None else asked.run
    if not name or name.startswith(".") or {"/", os.sep} & set(name) or not name.isprintable():
        plain = "a plain folder name is needed, without slashes, line breaks or a leading dot"
        raise UsageError(f"--run {name!r}: {plain}")
    reports = Path(asked.out).expanduser().resolve() if asked.out else paths.REPORTS
    folder, source = paths.RunFolder(reports / name), sources.plan(params.data)
    run = Run(folder, str(known.get("profile", given.stem)), params, source)
    run.arguments, run.minutes, run.record = arguments, asked.time_limit, read_json(folder.record)
    chosen = _steps(asked, [step.name for step in run.steps])
    if asked.dry_run and source.root.is_dir():
        run.manifest = read_manifest(source.root, dataset.squares(params))
    runs.check_data(run, known)  # what can be known before a folder is made or anything fetched
    if asked.dry_run:
        _print_run(run)
        for one in validity.decide(run, chosen, asked.force):
            print(f"  {one.step.name:<16} {one.action:<6} {one.reason}")
        return DONE
    with runs.alone_in(folder) as run.temporary:
        run.record = read_json(folder.record)  # another run may have ended since
        runs.log_to(folder)
        run.source, run.manifest = dataset.prepare(params, progress=True)
        runs.check_data(run, known)
        decisions = validity.decide(run, chosen, asked.force)
        _print_run(run)
        if known and (changed := record.changed_surroundings(known, record.describe(run))):
            print(f"not as it was: {one_line(changed)}")
        problems = runs.work(run, decisions, asked.force)
    _print_summary(run, decisions, problems)
    return FAILED if problems else DONE


def _run_parser() -> argparse.ArgumentParser:
    about = "Run the notebooks in sequence, resuming what is still valid."
    parser = _Parser("run_all.py", description=about)
    add = parser.add_argument
    profile = "a file in params/ by its stem, a path, or the run.json of a run, to run it again"
    add("profile", nargs="?", default="default", help=f"{profile} (default: default)")
    add("--data", metavar="SOURCE", help=SOURCE_HELP)
    add("--set", **SET)
    one_of = parser.add_mutually_exclusive_group().add_argument
    one_of("--only", metavar="STEP", help="run this step alone")
    one_of("--from", metavar="STEP", dest="start", help="run this step and those after it")
    add("--force", action="store_true", help="rerun and retrain even what is still valid")
    listed = "list the steps, say what would run and why, and stop"
    add("--list", "--dry-run", action="store_true", dest="dry_run", help=listed)
    limit = "minutes that a step may take (default: 1440; 0: no limit)"
    add("--time-limit", metavar="MINUTES", type=_minutes, default=1440.0, help=limit)
    add("--run", metavar="NAME", help="name of the run (default: the profile's stem)")
    add("--out", metavar="DIR", help="folder of all runs (default: reports)")
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


def _steps(asked: argparse.Namespace, steps: Sequence[str]) -> Sequence[str]:
    name = asked.start if asked.only is None else asked.only
    if name is None:
        return steps
    found = [number for number, step in enumerate(steps) if step.startswith(name)]
    if len(found) != 1:
        known = f"{profiles.nearest(name, steps)}; the steps are {', '.join(steps)}"
        raise UsageError(f"step {name!r} is unknown{known}")
    return steps[found[0] :] if asked.only is None else [steps[found[0]]]


def _print_run(run: Run) -> None:
    data = f"{run.source.kind}{' (SYNTHETIC)' * run.source.synthetic}"
    there = "" if run.manifest else ", not on disk yet"
    print(f"run {run.folder.name}: profile {run.profile}, data {data}{there}", flush=True)


def _print_summary(run: Run, decisions: Sequence[Decision], problems: Sequence[str]) -> None:
    if kept := [decision.step.name for decision in decisions if decision.action == "keep"]:
        print(f"still valid: {', '.join(kept)}")
    for model, splits in within(read_json(run.folder.metrics), "models").items():
        test = splits["test"] | {"AUROC": splits["test"]["auroc"]}
        shares = ", ".join(f"{name} {test[name]:.3f}" for name in SHOWN)
        print(f"{model:<14} test: {shares} (n = {test['n']})")
    for problem in problems:
        print(f"error: {one_line(problem)}; more in {run.folder.log}", file=sys.stderr)
    print(f"open {run.folder.index}", flush=True)
    if run.source.synthetic:
        said = "SYNTHETIC data: these scores say nothing about real X-rays. For the real set:"
        print(f"{said} {sources.REAL_RUN} ({sources.REAL_RUN_COST})")


def main(arguments: Sequence[str]) -> int:
    """Describe data, compare runs, list parameters, apply and export models, run studies."""
    parser = _Parser("python -m cxr_utils", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="fetch or make a data set, verify it, describe it")
    data.add_argument("source", help=SOURCE_HELP)
    data.add_argument("--set", **SET)
    compared = commands.add_parser("compare", help="print what differs between two runs")
    compared.add_argument("runs", nargs=2, metavar="RUN", help="a name in reports/, or a folder")
    commands.add_parser("parameters", help="print the reference of all parameters, in Markdown")
    command.add_parsers(commands)
    study.add_parser(commands)
    asked = parser.parse_args(arguments)
    if asked.command in ("predict", "export"):
        return DONE if getattr(command, asked.command)(asked) else FAILED
    if asked.command == "study":
        return DONE if study.study(asked, _source(asked.data)) else FAILED
    if asked.command == "parameters":
        print(profiles.reference(), end="")
    elif asked.command == "data":
        chosen = profiles.load("default", asked.set, _source(asked.source))
        _describe(dataset.open_data(chosen, dataset.OVERVIEW_SIZE, progress=True))
    else:
        found = [one if one.is_dir() else paths.REPORTS / one for one in map(Path, asked.runs)]
        total, differing = record.compare(*map(paths.RunFolder, found))
        for line in differing:
            print(f"differs: {one_line(line)}")
        print(f"{total - len(differing)} of {total} figures and predictions are equal")
        return FAILED if differing else DONE
    return DONE


def _describe(data: dataset.Dataset) -> None:
    """Print what a data set holds, how it stands to the published one, and what may be wrong."""
    from .evaluation import audit
    from .reporting import published, tables, text  # here, as scikit-learn takes seconds to import

    standing = published.standing(data.source.kind, data.manifest.counts())
    audited = audit.audit(data)
    numbers = text.counts(data.manifest, standing) | {"standing": standing, "audited": audited}
    origin = tables.origin(data, standing).to_numpy()
    print(f"{data.source.kind}{' (SYNTHETIC)' * data.source.synthetic}: {data.manifest.root}")
    width = max(shutil.get_terminal_size((120, 24)).columns - 2, 40)
    for line in text.render_lines("data_set", origin=origin, **numbers):
        print(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    "))
    for column, title in (("folder", "published folder"), ("split", "split of a default run")):
        print(f"\nimages and patients by {title}:\n{breakdown(data.files, column).to_string()}")
    for one in (one for one in audited if one.files):
        print(f"\n{one.check}, files (those joined by = belong together):")
        print("\n".join(f"  {one_line(name)}" for name in one.files))
