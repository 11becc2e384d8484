"""What decides a model's weights and what decides a report: digests that change exactly when something of it does."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from . import paths
from .params import Params, UsageError

# What decides a model's weights: when one of these changes, it is trained again.
MODULES = (
    "pixels", "manifest", "folds", "images", "augmentation", "models", "weights", "stress",
    "hardware", "optimizer", "gradient", "transfer", "checkpoint", "keys", "training",
)  # fmt: skip
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


# As they are when a process begins, not when it asks: what is edited while a notebook runs is not what it imported.
SOURCES = {module: paths.digest(paths.PACKAGE / f"{module}.py") for module in MODULES}


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
    card, settings = paths.read_json(run.model_card(name)), getattr(params, name)
    asked = getattr(settings, "weights", "none")
    if asked in ("auto", "imagenet"):
        start = str(card.get("start"))
    else:
        start = "random" if asked == "none" else paths.digest(settings.weights_file)
    same = card.get("training_key") == training_key(name, params, manifest, start)
    return same and isinstance(card.get("history"), list) and card.get("sha256") == paths.digest(run.model(name))


def notebook_digest(step: str) -> str:
    """Return a digest of a notebook's cells as they read: neither outputs nor what an editor notes beside them count.

    Raises
    ------
    UsageError
        The file is not a notebook, as after a merge with conflicts.
    """
    file = paths.NOTEBOOKS / f"{step}.ipynb"
    try:  # as plain JSON: nbformat takes a second to import, half of what a run with nothing to do would take
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        return digest_of([[cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])] for cell in cells])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file}: cannot be read as a notebook ({type(error).__name__}); restore it, or settle the merge that left it so"
        ) from error


@functools.cache
def package_digest() -> str:
    """Return a digest of the package's code and templates, as they are when it is first asked for."""
    files = sorted([*paths.PACKAGE.glob("*.py"), *paths.TEMPLATE.glob("*.*")])
    return digest_of([[file.name, paths.digest(file)] for file in files])
