"""docs/extending.md followed to the letter, in a copy of the project."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import faults
import nbformat
import pytest

from cxr_utils import paths

SMALL = ("data.phantom_images=120", "data.phantom_size=64", "evaluation.resamples=100")
MODEL = ("tiny_cnn.image_size=32", "tiny_cnn.epochs=1", "tiny_cnn.average=0.5")


def _blocks(title, kind="python"):
    """The blocks of code in a section of the document."""
    text = (paths.ROOT / "docs" / "extending.md").read_text()
    (section,) = [part for part in text.split("\n## ") if part.startswith(f"{title}\n")]
    return re.findall(rf"```{kind}\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def project(tmp_path):
    return faults.copy_project(tmp_path)


def _insert(file, code, before=""):
    """Put code into a module above a line, or at its end; returns how many lines that adds."""
    text = file.read_text()
    place = text.index(before) if before else len(text)
    added = code + "\n\n" if before and not code.startswith(" ") else code
    file.write_text(text[:place] + ("" if before else "\n\n") + added + text[place:])
    return len([line for line in code.splitlines() if line.strip()])


def _call(project, *command):
    own = {"PYTHONPATH": str(project), "CXR_DATA": ""}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | own,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(project, *extra, sets=SMALL):
    values = [word for value in sets for word in ("--set", value)]
    command = ["run_all.py", "smoke", "--data", "phantom", "--run", "own"]
    return _call(project, *command, *extra, *values)


@pytest.mark.long
def test_a_third_model(project):
    section, field, network = _blocks("Another model")
    (defaults,), (copy,) = _blocks("Another model", "yaml"), _blocks("Another model", "sh")
    parameters = project / "cxr_utils" / "parameters.py"
    lines = _insert(parameters, section, "class Evaluation(Section)")
    lines += _insert(parameters, field, "    evaluation: Evaluation =")
    lines += _insert(project / "cxr_utils" / "models" / "networks.py", network)
    lines += _insert(project / "params" / "default.yaml", defaults)
    assert lines <= 30  # in three files
    subprocess.run(copy.splitlines()[0], shell=True, cwd=project, check=True)
    notebook = nbformat.read(project / "notebooks" / "07_tiny_cnn.ipynb", as_version=4)
    nbformat.validate(notebook)
    said = _run(project, "--only", "07", sets=(*SMALL, *MODEL))
    assert re.search(r"tiny_cnn +test: accuracy", said)
    run = paths.RunFolder(project / "reports" / "own")
    assert run.predictions("tiny_cnn").is_file() and run.model("tiny_cnn").is_file()
    page, index = run.html("07_tiny_cnn").read_text(), run.index.read_text()
    assert "7 Tiny CNN" in page and "Confusion matrix" in page and "Tiny cnn" in index
    assert "`tiny_cnn.epochs`" in _call(project, "-m", "cxr_utils", "parameters")
    listed = _run(project, "--list", sets=(*SMALL, *MODEL))
    assert re.findall(r"^  (\d\d)_", listed, flags=re.MULTILINE) == ["01", "02", "03", "07", "04"]
    assert re.search(r"07_tiny_cnn +keep +nothing has changed", listed)


@pytest.mark.long
def test_a_fifth_step(project, tmp_path):
    (heading,), (about,) = _blocks("Another step", "markdown"), _blocks("Another step", "json")
    parameters, code = _blocks("Another step")
    before = {file: file.read_bytes() for file in project.rglob("*.py")}
    new = nbformat.v4
    cells = [new.new_markdown_cell(heading), new.new_code_cell(parameters), new.new_code_cell(code)]
    cells[1].metadata["tags"] = ["parameters"]
    notebook = new.new_notebook(cells=cells, metadata=json.loads(about))
    nbformat.write(notebook, project / "notebooks" / "07_mine.ipynb")
    small = ("baseline_cnn.image_size=32", "baseline_cnn.epochs=1", "baseline_cnn.average=0.5")
    sets = (*SMALL, *small)
    _run(project, "--only", "02", sets=sets)
    _run(project, "--only", "07", sets=sets)
    run = paths.RunFolder(project / "reports" / "own")
    assert "SYNTHETIC · " in run.html("07_mine").read_text()
    assert 'href="07_mine.html"' in run.index.read_text()
    listed = _run(project, "--list", sets=(*sets, "baseline_cnn.epochs=2"))
    assert re.search(r"07_mine +run +02_baseline_cnn runs", listed)
    assert {file: file.read_bytes() for file in before} == before  # no line beside the notebook


def test_a_downloaded_source(project, server, phantom_root, tmp_path):
    (code,) = _blocks("Another source")
    archive = shutil.make_archive(tmp_path / "mine", "zip", phantom_root)
    content = (tmp_path / "mine.zip").read_bytes()
    server.files["mine.zip"] = content
    assert archive and len(code.splitlines()) <= 40
    here = code.replace("https://example.org/", server.address)
    here = here.replace("0123456789abcdef" * 2, hashlib.md5(content).hexdigest())
    assert here != code
    _insert(project / "cxr_utils" / "data" / "sources.py", here, "NAMES = ")
    said = _call(project, "-m", "cxr_utils", "data", "mine")
    assert "address: http://127.0.0.1" in said and "licence: CC BY 4.0" in said
    server.files.clear()  # it is in the cache now
    assert "mine" in _call(project, "run_all.py", "--data", "mine", "--list")
