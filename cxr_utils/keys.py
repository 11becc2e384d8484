"""What decides a model's weights and what decides a report: digests that change exactly when something of it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import nbformat

from . import paths, weights
from .params import Params

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


def training_key(name: str, params: Params, manifest: str, start: weights.Start) -> str:
    """Return a digest of all that decides a model's weights: data, parameters, code and libraries.

    Parameters
    ----------
    name : str
        ``baseline_cnn`` or ``resnet50v2``.
    params : Params
        All parameters of the run.
    manifest : str
        The manifest's digest.
    start : Start
        What the training starts from.
    """
    return digest_of(
        {
            "seed": params.seed,
            "validation": [params.data.validation, params.data.validation_fraction],
            "fit": params.data.fit,
            "augmentation": params.augmentation.model_dump(),
            "model": getattr(params, name).model_dump(),
            "weights": paths.digest(start.file) if start.file else "random",
            "manifest": manifest,
            "libraries": versions(TRAINING_LIBRARIES),
            "modules": {module: paths.digest(paths.PACKAGE / f"{module}.py") for module in MODULES},
        }
    )


def notebook_digest(step: str) -> str:
    """Return a digest of a notebook's cells as they read: neither outputs nor what an editor notes beside them count."""
    notebook = nbformat.read(paths.NOTEBOOKS / f"{step}.ipynb", as_version=4)
    return digest_of([[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells])


def package_digest() -> str:
    """Return a digest of the whole package, templates included."""
    files = sorted(file for file in paths.PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest_of([[file.relative_to(paths.PACKAGE).as_posix(), paths.digest(file)] for file in files])
