"""Runs the notebook of a command, which is no step of a run, and makes it a page."""

import sys
from pathlib import Path
from typing import Any

from .. import paths
from ..reporting import html
from . import execution, steps


def of_command(
    notebook: str,
    values: dict[str, Any],
    folder: paths.RunFolder,
    name: str,
    synthetic: bool,
    temporary: Path,
) -> bool:
    """Run a notebook with `values` and write the page `name` in a folder, however it ends.

    Returns whether it ran to its end; else an error is printed, and the page says so.
    """
    done = True
    try:
        execution.execute(notebook, values, folder.executed(name), temporary)
    except execution.StepFailed as error:
        print(f"error: {error}", file=sys.stderr)
        done = False
    cells, _ = steps.read_cells(paths.NOTEBOOKS / f"{notebook}.ipynb")
    html.render(name, steps.title_of(cells), [], folder, synthetic, not done)
    return done
