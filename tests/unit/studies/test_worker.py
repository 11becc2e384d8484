"""What a worker does for a cell, on the disk of the study or on another."""

import types

import pytest

from cxr_utils import paths
from cxr_utils.pipeline import subprocesses, validity
from cxr_utils.studies import worker

STEPS = ["02_baseline_cnn"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A worker whose runs leave a few files, and what they were told."""
    told = []

    def run(arguments, folder, hopeless):
        told.append((arguments, folder.root))
        for name in ("metrics.json", "predictions/m.csv", "models/m.json", "models/m.keras"):
            (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.root / name).write_text(name)
        return True

    known = types.SimpleNamespace(address="tcp://here")
    monkeypatch.setattr(worker.distributed, "get_worker", lambda: known)
    monkeypatch.setattr(worker.subprocesses, "run", run)
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    return told


def _run(folder, mark, code=None):
    code = validity.numbers_digest(STEPS) if code is None else code
    return worker.run_cell("a-1", ["--set=seed=1"], STEPS, str(folder), mark, code, False)


def test_on_the_study_s_disk_nothing_is_sent(here, tmp_path):
    (tmp_path / worker.MARK).write_text("mine")
    told = _run(tmp_path, "mine")
    assert told["state"] == "done" and told["worker"] == "tcp://here" and told["files"] == {}
    assert here == [(["--set=seed=1", "--only=02_baseline_cnn"], tmp_path / "cells" / "a-1")]


@pytest.mark.parametrize("there", [True, False])
def test_from_another_disk_scores_come_back(here, tmp_path, there):
    """Also where a folder of that name is there, but is that of another study."""
    folder = tmp_path / "seeds"
    if there:
        folder.mkdir()
        (folder / worker.MARK).write_text("other")
    told = _run(folder, "mine")
    assert here[0][1] == tmp_path / "reports" / "studies" / "seeds" / "cells" / "a-1"
    assert set(told["files"]) == {"metrics.json", "predictions/m.csv", "models/m.json"}
    assert told["files"]["metrics.json"] == b"metrics.json"


def test_code_that_changed_runs_nothing(here, tmp_path):
    told = _run(tmp_path, "mine", code="before")
    assert told["state"] == "failed" and "start it anew" in told["error"] and not here


@pytest.mark.parametrize(
    ("error", "state"),
    [(subprocesses.Failed("no"), "failed"), (MemoryError("no"), "no memory"), (None, "pruned")],
)
def test_how_a_cell_ends(here, tmp_path, monkeypatch, error, state):
    def run(*_):
        if error:
            raise error
        return False

    monkeypatch.setattr(worker.subprocesses, "run", run)
    assert _run(tmp_path, "mine")["state"] == state


def test_what_another_try_may_change_is_raised(here, tmp_path, monkeypatch):
    def run(*_):
        raise subprocesses.Unlucky("port")

    monkeypatch.setattr(worker.subprocesses, "run", run)
    with pytest.raises(subprocesses.Unlucky):
        _run(tmp_path, "mine")
