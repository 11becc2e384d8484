"""The steps of a run: each notebook tells what it is called, takes, needs, and trains."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import paths, profiles
from ..parameters import Params, UsageError

NAME = re.compile(r"\d\d_[a-z0-9_]+")
TRAINERS = "models"  # among the needs of a step: every step that trains a model


@dataclass(frozen=True)
class Step:
    """A notebook as it describes itself.

    Parameters
    ----------
    name : str
        Its stem, as in ``02_baseline_cnn``.
    title : str
        The heading of its first Markdown cell.
    section : str or None
        The section of the parameters whose model it trains: the stem without the number.
    needs : tuple of str
        The steps whose predictions it reads.
    cover : str
        The figure that stands for it on the page of the run; may be empty.
    parameters : tuple of str
        The names in its parameters cell.
    """

    name: str
    title: str
    section: str | None
    needs: tuple[str, ...]
    cover: str
    parameters: tuple[str, ...]

    @property
    def file(self) -> Path:
        """The notebook."""
        return paths.NOTEBOOKS / f"{self.name}.ipynb"


def read_cells(name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a notebook's cells and metadata; raises UsageError where the file is none.

    As plain JSON: nbformat takes a second to import, half of what a run with nothing to do takes.
    """
    file = paths.NOTEBOOKS / f"{name}.ipynb"
    try:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        cells = [
            {
                "type": cell["cell_type"],
                "source": "".join(cell["source"]),
                "tags": cell["metadata"].get("tags", []),
            }
            for cell in notebook["cells"]
        ]
        return cells, notebook["metadata"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: cannot be read as a notebook ({type(error).__name__}); restore "
                         "it, or settle the merge that left it so") from error  # fmt: skip


def find_steps() -> tuple[Step, ...]:
    """Return the steps in running order: by number, but after those that they need.

    Raises
    ------
    UsageError
        A notebook does not describe itself as it should, or cannot be read.
    """
    found = {}
    for file in sorted(paths.NOTEBOOKS.glob("[!.]*.ipynb")):
        found[file.stem] = _described(file)
    trainers = [step.name for step in found.values() if step.section]
    needs = {
        name: [
            other
            for needed in step.needs
            for other in (trainers if needed == TRAINERS else [needed])
            if needed != TRAINERS or other != name
        ]
        for name, step in found.items()
    }
    ordered: dict[str, Step] = {}

    def place(name: str, waiting: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in waiting:
            circle = " needs ".join([*waiting[waiting.index(name) :], name])
            raise UsageError(f"notebooks: {circle}; take one of these out of a notebook's needs")
        for other in needs[name]:
            if other not in found:
                raise UsageError(f"notebooks/{name}.ipynb: needs {other}, which is not there"
                                 f"{profiles.nearest(other, found)}")  # fmt: skip
            place(other, (*waiting, name))
        ordered[name] = replace(found[name], needs=tuple(dict.fromkeys(needs[name])))

    for name in found:
        place(name, ())
    return tuple(ordered.values())


def _described(file: Path) -> Step:
    """What one notebook says of itself."""
    name, where = file.stem, f"notebooks/{file.name}"
    if not NAME.fullmatch(name):
        raise UsageError(f"{where}: a step's name is two digits and words in lower case, as in "
                         "05_predict; rename it, or move it elsewhere")  # fmt: skip
    cells, metadata = read_cells(name)
    first = next((cell["source"] for cell in cells if cell["type"] == "markdown"), "")
    heading = re.match(r"# +(\S.*)", first)
    if not heading:
        raise UsageError(f"{where}: its first Markdown cell has no heading; begin it with # and "
                         "the report's title")  # fmt: skip
    about = metadata.get("cxr", {})
    try:
        needs, cover = [str(other) for other in about.get("needs", [])], str(about.get("cover", ""))
    except (AttributeError, TypeError):
        like = '{"needs": ["models"], "cover": "comparison"}'
        raise UsageError(f"{where}: its metadata cxr is not like {like}") from None
    section = name.partition("_")[2]
    models = Params().sections
    if section in models:
        _check_builder(section, models[section].builder)
    parameters = _parameters(cells, where)
    profiles.flat(Params(), name, parameters, "")
    return Step(
        name,
        heading[1].strip(),
        section if section in models else None,
        tuple(needs),
        cover,
        parameters,
    )


def _parameters(cells: list[dict[str, Any]], where: str) -> tuple[str, ...]:
    """The names that a notebook's parameters cell assigns."""
    tagged = [cell["source"] for cell in cells if "parameters" in cell["tags"]]
    try:
        (source,) = tagged
        statements = ast.parse(source).body
    except (ValueError, SyntaxError):
        raise UsageError(f"{where}: one cell, of plain assignments, is to be tagged parameters; "
                         f"{len(tagged)} are") from None  # fmt: skip
    targets = [
        target
        for statement in statements
        for target in getattr(statement, "targets", [getattr(statement, "target", None)])
    ]
    return tuple(target.id for target in targets if isinstance(target, ast.Name))


def _check_builder(section: str, builder: str) -> None:
    """Raise UsageError where the function that builds a model's network is not there."""
    source = (paths.PACKAGE / "models" / "networks.py").read_text(encoding="utf-8")
    known = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    if builder not in known:
        raise UsageError(f"parameters {section}: its builder {builder or '(none)'} is no function "
                         "in cxr_utils/models/networks.py; write it, or name one")  # fmt: skip
