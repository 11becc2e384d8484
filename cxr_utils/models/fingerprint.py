"""What decides a model's weights: a digest that changes when something of it does."""

import ast
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import paths
from ..files import read_json, sha256_of, within
from ..parameters import ModelSection, Params, UsageError

# What a run sets is in the key by value, whatever a notebook's cell says of it.
SECTIONS = [value for value in Params().model_dump().values() if isinstance(value, dict)]
PARAMETERS = {"run_dir", "seed"}.union(*SECTIONS)
# All that ``models/training`` imports of data and models, as a test checks; but data/sources and
# data/phantom, for which the digest of the data stands.
MODULES = (
    "data/dataset", "data/decoding", "data/looks", "data/manifest", "data/splits",
    "models/augmentation", "models/callbacks", "models/fingerprint", "models/hardware",
    "models/networks", "models/optimizer", "models/robustness", "models/training", "models/weights",
)  # fmt: skip
SPLITTING = {"fit", "validation", "validation_fraction", "folds", "fold", "training_share"}
TRAINING_LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn")
LIBRARIES = (
    *TRAINING_LIBRARIES, "pandas", "scipy", "matplotlib", "seaborn", "papermill", "nbclient",
    "nbconvert", "ipykernel", "pydantic",
)  # fmt: skip


def digest_of(value: Any) -> str:
    """Return the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the version of each library as it is installed."""
    return {library: version(library) for library in libraries}


# As they are when a process begins: what is edited while a notebook runs is not what it imported.
SOURCES = {module: sha256_of(paths.PACKAGE / f"{module}.py") for module in MODULES}


def recipe_of(train: Callable[..., Any]) -> str:
    """Return the source of a notebook's function and of all that the notebook defines for it.

    Functions, classes and constants that it uses, by way of others too: the network, the loss, the
    optimizer and the callbacks. A change there retrains the model; one of a comment does not.
    """
    cells = train.__globals__.get("In")  # IPython's cells as they were executed
    recipe = _recipe(cells or [Path(train.__code__.co_filename).read_text(encoding="utf-8")])
    if not recipe:
        raise UsageError("train: not in the notebook's cells; define it in a cell without magics")
    return recipe


def recipe_in(notebook: Path) -> str:
    """Return the same of a notebook's file; an empty text where it has no ``train``."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _recipe("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _recipe(cells: Iterable[str]) -> str:
    from IPython.core.inputtransformer2 import TransformerManager  # reads cells with magics

    defined: dict[str, ast.stmt] = {}
    for cell in cells:
        with contextlib.suppress(SyntaxError):  # a cell that did not run
            for node in ast.parse(TransformerManager().transform_cell(cell)).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    defined[node.name] = node
                elif isinstance(node, ast.Assign) and _is_constant(node.value):
                    names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                    defined |= {name: node for name in names if name not in PARAMETERS}
    used, asked = set(), ["train"]
    while asked:
        name = asked.pop()
        if name in defined and name not in used:
            used.add(name)
            nodes = ast.walk(defined[name])
            asked += [node.id for node in nodes if isinstance(node, ast.Name)]
    return "\n".join(ast.unparse(defined[name]) for name in sorted(used))


def _is_constant(value: ast.expr) -> bool:
    live = (ast.Name, ast.Call, ast.Attribute)
    return isinstance(value, ast.Lambda) or not any(isinstance(n, live) for n in ast.walk(value))


def training_key(
    section: ModelSection, params: Params, manifest: str, start: str, recipe: str
) -> str:
    """Return a digest of all that decides a model's weights: data, parameters, code and libraries.

    `manifest` is the digest of the data, `start` that of the weights that the training starts from,
    or ``random``, `recipe` the source of the notebook's ``train``.
    """
    decides = {
        "seed": params.seed,
        "members": params.evaluation.members,
        "split": params.data.model_dump(include=SPLITTING),
        "augmentation": params.augmentation.model_dump(),
        "model": section.model_dump(exclude={"weights", "weights_address"}),
        "weights": start,
        "manifest": manifest,
        "recipe": recipe,
        "libraries": versions(TRAINING_LIBRARIES),
        "modules": SOURCES,
    }
    return digest_of(decides)


def is_trained(
    section: ModelSection, params: Params, manifest: str, recipe: str, run: paths.RunFolder
) -> bool:
    """Tell whether the model in a run's folder is the one that parameters, data and code give.

    What ``auto`` and ``imagenet`` came to when it was trained is part of the model: neither a
    network that has come back nor one that has gone changes it.
    """
    card = read_json(run.model_card(section.name))
    file, asked = getattr(section, "weights_file", None), getattr(section, "weights", "none")
    start = "random" if asked == "none" else str(within(card, "start").get("sha256"))
    if asked == "imagenet" and start == "random":
        return False
    if file:
        start = sha256_of(file)
    return (
        card.get("training_key") == training_key(section, params, manifest, start, recipe)
        and isinstance(card.get("history"), list)
        and card.get("sha256") == sha256_of(run.model(section.name))
    )
