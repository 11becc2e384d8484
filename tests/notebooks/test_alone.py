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
from cxr_utils.reporting import display

STEPS = sorted(file.stem for file in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
TRAINING = ["02_baseline_cnn", "03_resnet50v2"]
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
    """Its prose and its findings."""
    shown = [
        output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    prose = [data["text/markdown"] for data in shown if "text/markdown" in data]
    found = [one["says"] for data in shown for one in data.get(display.FINDINGS, [])]
    return "\n".join([*prose, *found])


def test_comparison_without_predictions_names_what_to_run(tmp_path):
    notebook = _run("04_comparison", tmp_path / "out.ipynb", run_dir=str(tmp_path / "empty"))
    said = _said(notebook).replace("\\", "")
    assert all(step in said for step in TRAINING) and "python run_all.py" in said


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with one model, trained by its notebook alone; and what the notebook said."""
    folder = tmp_path_factory.mktemp("lab")
    values = {"run_dir": str(folder / "lab"), "epochs": 1, "image_size": 48}
    return folder / "lab", _run("02_baseline_cnn", folder / "out.ipynb", **values, **SMALL)


def test_baseline_alone_with_a_changed_parameter(lab):
    folder, notebook = lab
    assert (folder / "predictions" / "baseline_cnn.csv").is_file()
    assert "SYNTHETIC PNEUMONIA" in _said(notebook)


def test_one_model_alone_has_scores_and_nothing_to_be_compared_with(lab, tmp_path):
    folder, _ = lab
    notebook = _run("04_comparison", tmp_path / "out.ipynb", run_dir=str(folder), **SMALL)
    said = _said(notebook)
    assert "Only Baseline CNN has been scored" in said and "**Intended use.**" in said
    assert "McNemar" not in said and (folder / "comparison.json").is_file()
    floors = json.loads((folder / "metrics.json").read_text())["floors"]
    assert set(floors) >= {"always_pneumonia"}


def test_comparison_refuses_other_data_than_the_models_had(lab, tmp_path):
    other = SMALL | {"phantom_seed": 2}
    with pytest.raises(papermill.PapermillExecutionError, match="not what the models were scored"):
        _run("04_comparison", tmp_path / "out.ipynb", run_dir=str(lab[0]), **other)


def test_wrong_value_is_told_by_name(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match=r"baseline_cnn\.epochs = 0"):
        _run("02_baseline_cnn", tmp_path / "out.ipynb", run_dir=str(tmp_path), epochs=0, **SMALL)


def test_jupyter_runs_a_notebook_with_its_defaults(tmp_path):
    """``jupyter execute`` of 01, in a copy of the project: reports/lab stays the user's."""
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


def _read(step):
    notebook = nbformat.read(paths.NOTEBOOKS / f"{step}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


@pytest.mark.parametrize("step", STEPS)
def test_notebooks_are_committed_clean_and_short(step):
    cells = _read(step)
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    # A parameters cell has a line for each of its parameters, however many; others are short.
    others = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    assert len(others) == len(code) - 1
    assert max(len(cell.source.splitlines()) for cell in others) <= 15
    assert max(len(line) for cell in code for line in cell.source.splitlines()) <= 100
    assert cells[0].source.startswith(f"# {int(step[:2])} ")
    assert (paths.NOTEBOOKS / f"{step}.ipynb").stat().st_size < 40_000


def test_notebooks_of_models_are_one_from_the_scores_on():
    """Whoever has read one knows the other; none names its model there."""
    ends = []
    for step in TRAINING:
        cells = _read(step)
        assert sum(cell.cell_type == "code" for cell in cells) <= 18
        (start,) = (n for n, cell in enumerate(cells) if cell.source.startswith("## Scores\n"))
        ends.append([(cell.cell_type, cell.source) for cell in cells[start:]])
    assert ends[0] == ends[1]
    assert not any(step[3:] in source for _, source in ends[0] for step in TRAINING)
