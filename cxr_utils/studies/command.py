"""The command ``study`` of ``python -m cxr_utils``."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from .. import paths
from ..files import one_line
from ..parameters import UsageError
from ..pipeline import pages
from ..pipeline import run as runs
from . import plan
from .plan import Study

NOTEBOOK = "06_study"
MANY = 200  # cells; more are probably a mistake
MEGABYTES = 150  # of a cell's files, at most


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``python -m cxr_utils``."""
    add = commands.add_parser("study", help="many runs that answer one question").add_argument
    add("study", metavar="FILE", help="one of params/studies/, or another; see docs/studies.md")
    add("--data", metavar="SOURCE", help="as of run_all.py; each worker must have it")
    add("--workers", type=int, default=1, metavar="N", help="runs at a time here (default: 1)")
    add("--scheduler", default="", metavar="TCP", help="of a Dask cluster, as tcp://HOST:8786")
    add("--out", metavar="DIR", help="folder of all studies (default: reports/studies)")
    add("--dry-run", action="store_true", help="list the cells and stop")
    add("--yes", action="store_true", help=f"run more than {MANY} cells")


def study(asked: argparse.Namespace, source: str | None) -> bool:
    """Run the cells of a study that have not been run, and write its page.

    Returns whether all cells and the page came to their end. Raises UsageError where nothing can
    begin.
    """
    if asked.workers < 1:
        raise UsageError(f"--workers {asked.workers}: at least 1 is needed")
    study = plan.read(Path(asked.study).expanduser().resolve(), source)
    if study.count > MANY and not asked.yes:
        many = f"{study.count:,} cells are over {MANY}; --yes runs them"
        raise UsageError(f"{study.where}: {many}, or ask for fewer values, seeds or folds")
    out = Path(asked.out).expanduser().resolve() if asked.out else paths.REPORTS / "studies"
    folder, cells = paths.RunFolder(out / study.name), study.cells()
    print(f"study {study.name}: {study.asked.question}")
    if asked.dry_run:
        for cell in cells:
            values = ", ".join(f"{name}={value}" for name, value in cell.assigned.items())
            print(f"  {cell.name}: {one_line(values)}")
        drawn = f"{study.count} that are drawn as the study goes on" * bool(study.asked.sample)
        print(f"{drawn or len(cells)} cells, each runs {' and '.join(study.steps)}")
        return True
    try:
        from . import engine
    except ImportError as error:
        remedy = "pip install 'cxr-utils[studies]'"
        raise UsageError(f"study: {error.name} is needed; {remedy}") from None
    with runs.alone_in(folder) as temporary:
        runs.log_to(folder)
        _check_room(folder.root, study, len(cells))
        with engine.connected(asked.workers, asked.scheduler) as client:
            print(f"Dask shows what runs where: {client.dashboard_link}", flush=True)
            running = engine.Engine(study, folder.root, client)
            running.survey()
            running.run()
        synthetic = running.about["data"]["synthetic"]
        shown: dict[str, Any] = {"study_dir": str(folder.root)}
        page = pages.of_command(NOTEBOOK, shown, folder, "study", synthetic, temporary)
    failed = [name for name, cell in running.cells.items() if cell["state"] == "failed"]
    if failed:
        print(f"{len(failed)} cells failed, as {failed[0]}; the same command tries them again")
    print(f"open {folder.html('study')}")
    return page and not failed


def _check_room(folder: Path, study: Study, cells: int) -> None:
    """Raise UsageError where the disk is too small for the cells that are not there yet."""
    there = len(list(folder.glob("cells/*/cell.json")))
    needed, free = MEGABYTES * max(0, study.count - there), shutil.disk_usage(folder).free / 1e6
    if free < needed:
        said = f"{study.count - there} cells may need {needed:,} MB, {free:,.0f} MB are free"
        raise UsageError(f"{folder}: {said}; make room, or give another --out DIR")
