"""Small notebooks that leave what real ones leave, within seconds."""

import json
from dataclasses import replace

import pytest

from cxr_utils import paths
from cxr_utils.data import sources
from cxr_utils.data.manifest import read_manifest
from cxr_utils.pipeline import run as runs
from cxr_utils.pipeline.validity import Run
from cxr_utils.reporting import html

SCORED = """
import hashlib, json
from pathlib import Path
run = Path(run_dir)
(run / "predictions" / f"{name}.csv").write_text("split,path,score\\ntest,a.png,0.5\\n")
(run / "models" / f"{name}.keras").write_bytes(b"weights")
digest = hashlib.sha256(b"weights").hexdigest()
card = {"sha256": digest, "precision": {"used": "float32"}, "start": {"kind": "random"}}
(run / "models" / f"{name}.json").write_text(json.dumps({**card, "epochs": {"done": 1}}))
for split in ("validation", "test"):
    (run / "figures" / f"confusion_matrix_{name}_{split}.png").touch()
file = run / "metrics.json"
known = json.loads(file.read_text()) if file.is_file() else {"models": {}}
known["data"] = json.loads((run / "run.json").read_text())["data"]
known["models"][name] = {"test": {"n": 1}}
file.write_text(json.dumps(known))
"""
OWN = {
    "01_eda": ("noise: float = 0.03", "print(noise)"),
    "02_baseline_cnn": ("epochs: int = 1", "name = 'baseline_cnn'" + SCORED),
    "03_resnet50v2": ("backbone: str = 'ResNet50V2'", "name = backbone.lower()" + SCORED),
    "04_comparison": ("", "print('compared')"),
}


class Notebooks:
    """The notebooks of a project, to be written and changed."""

    def write(self, name, parameters="", code="", needs=(), heading="# A title"):
        cells = [
            {"cell_type": "markdown", "metadata": {}, "source": heading},
            _code(f"run_dir: str = ''\nseed: int = 1\n{parameters}", ["parameters"]),
            _code(code, []),
        ]
        about = {"cxr": {"needs": list(needs)}}
        notebook = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
        (paths.NOTEBOOKS / f"{name}.ipynb").write_text(json.dumps(notebook))

    def break_off(self, name):
        self.write(name, OWN[name][0], "raise ValueError('spoilt')")


def _code(source, tags):
    own = {"metadata": {"tags": tags}, "execution_count": None, "outputs": []}
    return {"cell_type": "code", "source": source, **own}


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    paths.NOTEBOOKS.mkdir()
    made = Notebooks()
    for name, (parameters, code) in OWN.items():
        made.write(name, parameters, code, ["models"] if name == "04_comparison" else [])
    return made


@pytest.fixture(scope="session")
def manifest(phantom_root):
    return read_manifest(phantom_root)


@pytest.fixture
def prepared(notebooks, tmp_path, smoke, manifest, monkeypatch):
    """A function that prepares a run with other parameters, as `run_all` does."""
    monkeypatch.setattr(html, "write_index", lambda folder, *_: folder.index.touch())
    monkeypatch.setattr(html, "write_runs", lambda _: None)

    def prepare(params=smoke, digest=manifest.digest):
        folder = paths.RunFolder(tmp_path / "run")
        record = json.loads(folder.record.read_text()) if folder.record.is_file() else {}
        own = replace(manifest, digest=digest)
        return Run(folder, "smoke", params, sources.plan(params.data), own, record)

    return prepare


@pytest.fixture
def done(prepared):
    """A function that does a run, and returns it, what was decided, and the problems."""

    def do(*params, asked=None, force=False):
        from cxr_utils.pipeline import validity

        run = prepared(*params)
        with runs.alone_in(run.folder) as run.temporary:
            decisions = validity.decide(run, asked, force)
            problems = runs.work(run, decisions, force)
        return run, {one.step.name: (one.action, one.reason) for one in decisions}, problems

    return do
