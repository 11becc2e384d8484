"""The steps of a run: each notebook tells what it is called, takes, needs, and trains."""

import ast
import graphlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import paths, profiles
from ..files import within
from ..parameters import Params, UsageError

NAME = re.compile(r"\d\d_[a-z0-9_]+")
TRAINERS = "models"  # among the needs of a step: every step that trains a model


@dataclass(frozen=True)
class Step:
    """A notebook as it describes itself."""

    name: str  # its stem, as in 02_baseline_cnn
    title: str  # the heading of its first Markdown cell
    section: str | None  # of the parameters, whose model it trains: the stem without its number
    needs: tuple[str, ...]  # the steps whose predictions it reads
    parameters: tuple[str, ...]  # the names in its parameters cell

    @property
    def file(self) -> Path:
        """The notebook."""
        return paths.NOTEBOOKS / f"{self.name}.ipynb"


def read_cells(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a notebook's cells and metadata; raises UsageError where the file is none.

    As plain JSON: nbformat takes a second to import, half of what a run with nothing to do takes.
    """
    try:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        cells = [
            {"type": cell["cell_type"], "source": "".join(cell["source"]),
             "tags": cell["metadata"].get("tags", [])} for cell in notebook["cells"]
        ]  # fmt: skip
        return cells, notebook["metadata"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "restore it, or settle the merge that left it so"
        kind = type(error).__name__
        raise UsageError(f"{file}: cannot be read as a notebook ({kind}); {remedy}") from error


def find_steps() -> tuple[Step, ...]:
    """Return the steps in running order: by number, but after those that they need.

    Raises UsageError where a notebook does not describe itself as it should, or cannot be read.
    """
    files = sorted(paths.NOTEBOOKS.glob("[!.]*.ipynb"))
    found = {step.name: step for step in map(_described, files) if step}
    trainers = {step.name for step in found.values() if step.section}
    for name, step in found.items():
        needs = set(step.needs) | (trainers - {name} if TRAINERS in step.needs else set())
        found[name] = replace(step, needs=tuple(sorted(needs - {TRAINERS})))
        for other in sorted(set(found[name].needs) - set(found)):
            close = profiles.nearest(other, found)
            raise UsageError(f"notebooks/{name}.ipynb: needs {other}, which is not there{close}")
    try:
        graphlib.TopologicalSorter({name: step.needs for name, step in found.items()}).prepare()
    except graphlib.CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise UsageError(f"notebooks: {circle}; take one out of a notebook's needs") from None
    ordered: dict[str, Step] = {}
    while left := [step for name, step in found.items() if name not in ordered]:
        ready = next(step for step in left if set(step.needs) <= set(ordered))
        ordered[ready.name] = ready
    return tuple(ordered.values())


def title_of(cells: list[dict[str, Any]]) -> str:
    """Return the heading of a notebook's first Markdown cell; an empty text without one."""
    first = next((cell["source"] for cell in cells if cell["type"] == "markdown"), "")
    heading = re.match(r"# +(\S.*)", first)
    return heading[1].strip() if heading else ""


def _described(file: Path) -> Step | None:
    """What one notebook says of itself; None of one that a command runs, as 05_predict."""
    name, where = file.stem, f"notebooks/{file.name}"
    if not NAME.fullmatch(name):
        like = "two digits and words in lower case, as in 05_predict; rename it, or move it away"
        raise UsageError(f"{where}: a step's name is {like}")
    cells, metadata = read_cells(file)
    if "command" in within(metadata, "cxr"):
        return None
    if not (title := title_of(cells)):
        remedy = "begin it with # and the report's title"
        raise UsageError(f"{where}: its first Markdown cell has no heading; {remedy}")
    try:
        about = metadata.get("cxr", {})
        needs = tuple(map(str, about.get("needs", [])))
    except (AttributeError, TypeError):
        like = '{"needs": ["models"]}'
        raise UsageError(f"{where}: its metadata cxr is not like {like}") from None
    tagged = [cell["source"] for cell in cells if "parameters" in cell["tags"]]
    try:
        (source,) = tagged
        parameters = tuple(one.target.id for one in ast.parse(source).body)
    except (ValueError, SyntaxError, AttributeError):
        like = "exactly one cell, of assignments like seed: int = 2026, must be tagged parameters"
        raise UsageError(f"{where}: {like}; {len(tagged)} are") from None
    profiles.flat(Params(), name, parameters, "")  # raises where one is none
    stem = name.partition("_")[2]
    section = stem if stem in Params().sections else None
    if section:
        _check_builder(section)
    return Step(name, title, section, needs, parameters)


def _check_builder(section: str) -> None:
    """Raise UsageError where the function that builds a model's network is not there."""
    builder = Params().sections[section].builder
    networks = (paths.PACKAGE / "models" / "networks.py").read_text(encoding="utf-8")
    if not re.search(rf"^def {re.escape(builder)}\(", networks, flags=re.MULTILINE):
        where = "no function in cxr_utils/models/networks.py; write it, or name one"
        raise UsageError(f"parameters {section}: its builder {builder or '(none)'} is {where}")
