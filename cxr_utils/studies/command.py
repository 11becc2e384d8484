"""The command ``study`` of ``python -m cxr_utils``."""

import argparse
from pathlib import Path
from typing import Any

from .. import paths, study_plan
from ..files import check_room, one_line
from ..parameters import UsageError
from ..pipeline import pages
from ..pipeline import run as runs
from ..pipeline.steps import find_steps
from ..study_plan import BASE

NOTEBOOK = "06_study"
MANY = 200  # cells; more are probably a mistake
MEGABYTES = 150  # of a cell's files, at most


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``python -m cxr_utils``."""
    add = commands.add_parser("study", help="many runs that answer one question").add_argument
    add("study", metavar="FILE", help="one of params/studies/, or another; see docs/studies.md")
    add("--data", metavar="SOURCE", help="data, as for run_all.py; every worker needs it")
    add("--workers", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    add("--scheduler", default="", metavar="ADDRESS", help="of a Dask scheduler: tcp://HOST:8786")
    add("--out", metavar="DIR", help="folder of all studies (default: reports/studies)")
    add("--dry-run", action="store_true", help="list the cells and stop")
    add("--yes", action="store_true", help=f"run more than {MANY} cells")


def study(asked: argparse.Namespace, source: str | None) -> bool:
    """Run the cells of a study that have not been run, and write its page.

    Returns whether all came to their end. Raises UsageError where nothing can begin.
    """
    study = study_plan.read(Path(asked.study).expanduser().resolve(), source)
    if asked.workers < 1:
        raise UsageError(f"--workers {asked.workers}: at least 1 is needed")
    steps = [step.name for step in find_steps() if step.section in study.asked.models]
    if (count := study.asked.count) > MANY and not asked.yes:
        remedy = "--yes runs them, or ask for fewer values, seeds or folds"
        raise UsageError(f"{study.where}: {count:,} cells, more than {MANY}; {remedy}")
    out = Path(asked.out).expanduser().resolve() if asked.out else paths.REPORTS / "studies"
    folder, cells = paths.RunFolder(out / study.name), study.cells()
    print(f"study {study.name}: {study.asked.question}")
    for cell in cells * asked.dry_run:
        values = ", ".join(f"{name}={value}" for name, value in cell.changes.items())
        print(f"  {cell.name}: {one_line(values) or 'as the base'}")
    if asked.dry_run:
        print(f"{len(cells) or count} cells, each runs {' and '.join(steps)}")
        return True
    try:
        from . import cluster, engine
    except ImportError as error:
        remedy = "pip install -e '.[studies]'"
        raise UsageError(f"study: {error.name} is needed; {remedy}") from None
    with runs.alone_in(folder) as temporary:
        runs.log_to(folder)
        missing = count - len(list(folder.root.glob("cells/*/cell.json")))
        check_room(folder.root, MEGABYTES * missing, "give another --out DIR")
        with cluster.connected(asked.workers, asked.scheduler) as client:
            print(f"Dask shows what runs where: {client.dashboard_link}", flush=True)
            told = cluster.survey(client, study.cell(BASE, {}).params, steps)
            running = engine.Engine(study, steps, folder.root, client, told)
            running.run()
        for figure in folder.figure("x").parent.glob("*.png"):
            figure.unlink()  # of what the study may have been before
        about, shown = running.about["data"], {"study_dir": str(folder.root)}
        done = pages.of_command(NOTEBOOK, shown, folder, "study", about["synthetic"], temporary)
    failed = [name for name, cell in running.cells.items() if cell["state"] == "failed"]
    if failed:
        print(f"{len(failed)} cells failed, {failed[0]} first; run the same command to retry them")
    print(f"open {folder.html('study')}")
    return done and not failed
