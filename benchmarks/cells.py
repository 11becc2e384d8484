"""The training that a notebook shows, taken from its cells, to be timed, compared and tested."""

import ast
import json
from types import SimpleNamespace

import keras

from cxr_utils import parameters, paths
from cxr_utils.models import augmentation, callbacks, networks, optimizer, training


def namespace_of(section, changes, seed, splits, run):
    """Return a notebook's names after the cells that define its functions, ``train`` among them.

    Parameters
    ----------
    section : ModelSection
        The model's section of the parameters.
    changes : Augmentation
        Changes to the training images.
    seed : int
        As in the notebook.
    splits : dict of Split
        The data.
    run : RunFolder
        Where the state of the training is kept.
    """
    step = "02_baseline_cnn" if section.builder == "residual_cnn" else "03_resnet50v2"
    cells = json.loads((paths.NOTEBOOKS / f"{step}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    functions = [
        source
        for source in code
        if all(isinstance(node, ast.FunctionDef) for node in ast.parse(source).body)
    ]
    file = run.root / "notebook.py"  # the key of a training reads the source of its functions
    file.write_text("\n\n".join(functions), encoding="utf-8")
    modules = (augmentation, callbacks, networks, optimizer, training)
    names = {module.__name__.split(".")[-1]: module for module in (keras, *modules)}
    names |= section.model_dump() | {
        "__name__": "notebook",
        "section": section,
        "name": section.name,
        "settings": parameters.Params(augmentation=changes, seed=seed),
        "seed": seed,
        "run": run,
        "data": SimpleNamespace(splits=splits),
    }
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), names)
    return names


def train_of(*arguments):
    """Return a notebook's function ``train``; see `namespace_of`."""
    return namespace_of(*arguments)["train"]
