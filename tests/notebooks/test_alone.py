"""Each notebook by itself, as JupyterLab or papermill runs it: without run_all.py."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
import pytest

from cxr_utils import paths
from cxr_utils.pipeline.execution import OwnInterpreterKernelManager

STEPS = [step.name for step in find_steps()]

SMALL = {"source": "phantom", "phantom_images": 120, "phantom_size": 64}


def _run(step, target, **values):
    with tempfile.TemporaryDirectory(prefix="cxr-") as sockets:
        manager = OwnInterpreterKernelManager(Path(sockets))
        return papermill.execute_notebook(
            str(paths.NOTEBOOKS / f"{step}.ipynb"),
            str(target),
            values,
            progress_bar=False,
            km=manager,
        )


def _said(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        output["data"]["text/markdown"]
        for output in outputs
        if "text/markdown" in output.get("data", {})
    )


def test_comparison_without_predictions_names_what_to_run(tmp_path):
    notebook = _run("04_comparison", tmp_path / "out.ipynb", run_dir=str(tmp_path / "empty"))
    said = _said(notebook)
    assert (
        "02\\_baseline\\_cnn" in said
        and "03\\_resnet50v2" in said
        and "python run\\_all.py" in said
    )


def test_baseline_alone_with_a_changed_parameter(tmp_path):
    notebook = _run(
        "02_baseline_cnn",
        tmp_path / "out.ipynb",
        run_dir=str(tmp_path / "lab"),
        epochs=1,
        image_size=48,
        **SMALL,
    )
    assert (tmp_path / "lab" / "predictions" / "baseline_cnn.csv").is_file()
    assert "SYNTHETIC test images" in _said(notebook)


def test_wrong_value_is_told_by_name(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match=r"baseline_cnn\.epochs = 0"):
        _run("02_baseline_cnn", tmp_path / "out.ipynb", run_dir=str(tmp_path), epochs=0, **SMALL)


def test_jupyter_runs_a_notebook_with_its_defaults(tmp_path):
    """``jupyter execute`` of 01, defaults untouched, in a copy of the project so that reports/lab stays the user's."""
    project = tmp_path / "project"
    for name in ("cxr_utils", "notebooks", "params"):
        shutil.copytree(paths.ROOT / name, project / name)
    command = [sys.executable, "-m", "jupyter", "execute", "notebooks/01_eda.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(project), "CXR_DATA": ""}
    done = subprocess.run(
        command,
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (project / "reports" / "lab" / "figures" / "class_counts.png").is_file()


def test_users_kernelspec_is_not_used(tmp_path, monkeypatch):
    """A broken python3 kernelspec of the user's does no harm."""
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["/no/such/python"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    _run("04_comparison", tmp_path / "out.ipynb", run_dir=str(tmp_path / "empty"))


@pytest.mark.parametrize("step", STEPS)
def test_notebooks_are_committed_clean(step):
    notebook = nbformat.read(paths.NOTEBOOKS / f"{step}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            # A parameters cell has a line for each of its parameters, however many there are; others are short.
            assert len(cell.source.splitlines()) <= 15 or "parameters" in cell.metadata.get(
                "tags", []
            )
    assert notebook.cells[0].source.startswith(f"# {int(step[:2])} ")
    assert Path(paths.NOTEBOOKS / f"{step}.ipynb").stat().st_size < 40_000
