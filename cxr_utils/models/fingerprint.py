"""What decides a model's weights: a digest that changes exactly when something of it does."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from .. import paths
from ..files import read_json, sha256_of
from ..parameters import Params

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


def training_key(name: str, params: Params, manifest: str, start: str) -> str:
    """Return a digest of all that decides a model's weights: data, parameters, code and libraries.

    Parameters
    ----------
    name : str
        ``baseline_cnn`` or ``resnet50v2``.
    params : Params
        All parameters of the run.
    manifest : str
        The manifest's digest.
    start : str
        Digest of the weights that the training starts from, or ``random``.
    """
    return digest_of(
        {
            "seed": params.seed,
            "validation": [params.data.validation, params.data.validation_fraction],
            "fit": params.data.fit,
            "augmentation": params.augmentation.model_dump(),
            "model": getattr(params, name).model_dump(),
            "weights": start,
            "manifest": manifest,
            "libraries": versions(TRAINING_LIBRARIES),
            "modules": SOURCES,
        }
    )


def is_trained(name: str, params: Params, manifest: str, run: paths.RunFolder) -> bool:
    """Tell whether the model in a run's folder is the one that these parameters, data and code give.

    What ``auto`` and ``imagenet`` came to when it was trained is part of the model: neither a network that has
    come back nor one that has gone changes it.
    """
    card, settings = read_json(run.model_card(name)), getattr(params, name)
    asked = getattr(settings, "weights", "none")
    start = "random" if asked == "none" else str(card.get("start"))
    if asked not in ("auto", "imagenet", "none"):
        start = sha256_of(settings.weights_file)
    same = card.get("training_key") == training_key(name, params, manifest, start)
    return (
        same
        and isinstance(card.get("history"), list)
        and card.get("sha256") == sha256_of(run.model(name))
    )
