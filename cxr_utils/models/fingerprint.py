"""What decides a model's weights: a digest that changes exactly when something of it does."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import paths
from ..files import read_json, sha256_of, within
from ..parameters import ModelSection, Params

KEYED_BY_CONTENT = {"data/sources", "data/phantom"}  # the digest of the data stands for them
TRAINING_LIBRARIES = ("tensorflow", "keras", "numpy", "pillow")
LIBRARIES = (
    *TRAINING_LIBRARIES, "pandas", "scikit-learn", "scipy", "matplotlib", "seaborn",
    "papermill", "nbclient", "nbconvert", "ipykernel", "pydantic",
)  # fmt: skip


def digest_of(value: Any) -> str:
    """Return the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the version of each library as it is installed."""
    return {library: version(library) for library in libraries}


def modules_behind(module: str) -> list[str]:
    """Return the modules in ``data`` and ``models`` that one of them is made of, by way of imports.

    Parameters
    ----------
    module : str
        ``folder/name``, as in ``models/training``.
    """
    found, asked = set(), [module]
    while asked:
        name = asked.pop()
        found.add(name)
        room = name.split("/")[0]
        for node in ast.walk(ast.parse((paths.PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                inside = (node.module or "").replace(".", "/")
                base = "/".join(filter(None, [room if node.level == 1 else "", inside]))
                named = [base, *(f"{base}/{alias.name}" for alias in node.names)]
                asked += [other for other in named if other.startswith(("data/", "models/")) and other not in found | KEYED_BY_CONTENT
                          and (paths.PACKAGE / f"{other}.py").is_file()]  # fmt: skip
    return sorted(found)


# As they are when a process begins, not when it asks: what is edited while a notebook runs is not what it imported.
SOURCES = {
    module: sha256_of(paths.PACKAGE / f"{module}.py")
    for module in modules_behind("models/training")
}


def recipe_of(train: Callable[..., Any]) -> str:
    """Return the source of a function and of all functions of its notebook that it calls.

    The network, the loss, the optimizer and the callbacks stand there: a change retrains the model, a
    change of a comment or of another cell does not.
    """
    functions = {
        name: inspect.getsource(value)
        for name, value in train.__globals__.items()
        if inspect.isfunction(value) and value.__module__ == train.__module__
    }
    return _recipe(functions, train.__name__)


def recipe_in(notebook: Path) -> str:
    """Return the same of the function ``train`` in a notebook's file."""
    from IPython.core.inputtransformer2 import TransformerManager  # reads cells with magics

    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    plain = TransformerManager().transform_cell
    code = [plain("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    functions = {
        node.name: ast.unparse(node)
        for source in code
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }
    return _recipe(functions, "train")


def _recipe(functions: dict[str, str], first: str) -> str:
    trees, asked = {}, [first]
    while asked:
        name = asked.pop()
        if name in functions and name not in trees:
            trees[name] = ast.parse(functions[name])
            asked += [node.id for node in ast.walk(trees[name]) if isinstance(node, ast.Name)]
    return "\n".join(ast.unparse(trees[name]) for name in sorted(trees))


def training_key(
    section: ModelSection, params: Params, manifest: str, start: str, recipe: str
) -> str:
    """Return a digest of all that decides a model's weights: data, parameters, code and libraries.

    Parameters
    ----------
    section : ModelSection
        The model's section of the parameters.
    params : Params
        All parameters of the run.
    manifest : str
        The manifest's digest.
    start : str
        Digest of the weights that the training starts from, or ``random``.
    recipe : str
        Source of the notebook's ``train``.
    """
    return digest_of(
        {
            "seed": params.seed,
            "validation": [params.data.validation, params.data.validation_fraction],
            "fit": params.data.fit,
            "augmentation": params.augmentation.model_dump(),
            "model": section.model_dump(),
            "weights": start,
            "manifest": manifest,
            "recipe": recipe,
            "libraries": versions(TRAINING_LIBRARIES),
            "modules": SOURCES,
        }
    )


def is_trained(
    section: ModelSection, params: Params, manifest: str, recipe: str, run: paths.RunFolder
) -> bool:
    """Tell whether the model in a run's folder is the one that parameters, data and code give.

    What ``auto`` and ``imagenet`` came to when it was trained is part of the model: neither a network
    that has come back nor one that has gone changes it.
    """
    card = read_json(run.model_card(section.name))
    file, asked = getattr(section, "weights_file", None), getattr(section, "weights", "none")
    start = "random" if asked == "none" else str(within(card, "start").get("sha256"))
    if file:
        start = sha256_of(file)
    return (
        card.get("training_key") == training_key(section, params, manifest, start, recipe)
        and isinstance(card.get("history"), list)
        and card.get("sha256") == sha256_of(run.model(section.name))
    )
