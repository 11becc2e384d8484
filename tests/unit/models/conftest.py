"""The training that the notebooks show, taken from their cells."""

import ast
import json
from types import SimpleNamespace

import keras
import pytest

from cxr_utils import parameters, paths
from cxr_utils.models import augmentation, callbacks, networks, optimizer, training, weights

RANDOM = weights.Start("random")


def train_of(section, changes, seed, splits, run):
    """Return the function ``train`` of the notebook that a model's section belongs to."""
    step = "02_baseline_cnn" if section.builder == "residual_cnn" else "03_resnet50v2"
    cells = json.loads((paths.NOTEBOOKS / f"{step}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    defined = [
        source
        for source in code
        if all(isinstance(node, ast.FunctionDef) for node in ast.parse(source).body)
    ]
    file = run.root / "notebook.py"  # the key of a training reads the source of its functions
    file.write_text("\n\n".join(defined))
    names = {
        "__name__": "notebook", "keras": keras, "augmentation": augmentation, "callbacks": callbacks, "networks": networks,
        "optimizer": optimizer, "training": training, "section": section, "name": section.name,
        "settings": parameters.Params(augmentation=changes), "seed": seed, "run": run,
        "data": SimpleNamespace(splits=splits), **section.model_dump(),
    }  # fmt: skip
    exec(compile(file.read_text(), file, "exec"), names)
    return names["train"]


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """Train as the notebooks do; the state is kept in a folder of its own, or in `saved`."""

    def call(section, changes, seed, splits, start=RANDOM, saved=None, change=None):
        run = paths.RunFolder(tmp_path_factory.mktemp("fit")).make()
        saved = saved or callbacks.Saved(run.checkpoint(section.name), "key")
        train = train_of(section, changes, seed, splits, run)
        return training.fit(train, section, seed, splits, start, saved)

    return call
