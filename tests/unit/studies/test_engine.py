"""Each cell ends once, whatever happens to workers, connections and the command."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from work import work

from cxr_utils.files import read_json
from cxr_utils.studies import cluster
from cxr_utils.studies.engine import Engine

STEPS = ["02_baseline_cnn"]
SURVEYED = {"x": {"manifest": "m", "synthetic": True, "kind": "phantom", "host": "here"}}


def _engine(study, folder, client, told=SURVEYED):
    return Engine(study, STEPS, folder, client, told, work)


def _settings(*names):
    shifts = (f"  {name}: {{augmentation.shift: {0.06 + n / 500}}}" for n, name in enumerate(names))
    return "settings:\n" + "\n".join(shifts)


def _log(folder):
    return collections.Counter((folder / "log").read_text().split())


def test_each_cell_runs_once_and_study_json_says_where(study_of, client, tmp_path):
    study = study_of(_settings("a", "b", "c") + "\nseeds: 2")
    engine = _engine(study, tmp_path, client)
    engine.run()
    told = json.loads((tmp_path / "study.json").read_text())
    assert list(told["cells"]) == [cell.name for cell in study.cells()] and len(told["cells"]) == 8
    for cell in told["cells"].values():
        assert cell["state"] == "done" and cell["worker"] in client.scheduler_info()["workers"]
    assert set(_log(tmp_path).values()) == {1}
    again = _engine(study, tmp_path, client)
    again.run()
    assert set(_log(tmp_path).values()) == {1} and again.cells == engine.cells


def test_what_other_parameters_data_or_code_gave_runs_again(study_of, client, tmp_path):
    _engine(study_of(_settings("a")), tmp_path, client).run()
    changed = _engine(study_of("settings: {a: {augmentation.shift: 0.4}}"), tmp_path, client)
    changed.run()
    assert _log(tmp_path)["end:a-2026"] == 2 and _log(tmp_path)["end:base-2026"] == 1
    back = _engine(study_of(_settings("a")), tmp_path, client)
    back.run()  # what the change left is not taken for it
    assert _log(tmp_path)["end:a-2026"] == 3 and _log(tmp_path)["end:base-2026"] == 1
    other = {"x": SURVEYED["x"] | {"manifest": "other"}}
    engine = _engine(study_of(_settings("a")), tmp_path, client, other)
    engine.run()
    assert _log(tmp_path)["end:a-2026"] == 4 and _log(tmp_path)["end:base-2026"] == 2
    errors = {cell["error"] for cell in engine.cells.values()}
    assert errors == {"the data on here is not the study's"}


def test_failures_are_listed_and_only_what_may_help_is_tried_again(study_of, client, tmp_path):
    names = ["fail", "unlucky=2", "memory=1", "die=1", "memory=9", "last", "full"]
    engine = _engine(study_of(_settings(*names)), tmp_path, client)
    engine.run()
    states = {cell["setting"]: cell["state"] for cell in engine.cells.values()}
    bad = {"fail": "failed", "memory=9": "failed", "full": "failed"}
    assert states == dict.fromkeys(["base", *names], "done") | bad
    begun = _log(tmp_path)
    tries = [begun[f"begin:{name}-2026"] for name in names]
    assert tries[:2] == [1, 3] and tries[3] == 2 and tries[5] == 1
    assert tries[2] in (2, 3)  # again where the worker that had its answer died
    assert engine.cells["fail-2026"]["error"] == "fail-2026: a wrong value"
    assert engine.room == 2 and not engine.tight  # as before, once it has ended
    assert read_json(tmp_path / "study.json")["cells"] == engine.cells


def test_a_cut_connection_repeats_no_cell_that_had_ended(study_of, client, tmp_path):
    study = study_of(_settings(*(f"sleep=0.4-{n}" for n in range(6))))
    engine, ended = _engine(study, tmp_path, client), []

    def cut(cell, told, bar, end=engine._end):
        ended.append(cell.name)
        end(cell, told, bar)
        if len(ended) == 3:
            client.loop.add_callback(client.scheduler_comm.comm.abort)

    engine._end = cut
    engine.run()
    assert sorted(ended) == sorted(cell.name for cell in study.cells())
    assert {cell["state"] for cell in engine.cells.values()} == {"done"}
    before = _log(tmp_path)
    assert all(before[f"begin:{name}"] == 1 for name in ended[:3])


def test_a_worker_that_joins_late_gets_cells(study_of, tmp_path):
    study = study_of(_settings(*(f"sleep=0.8-{n}" for n in range(7))))
    with cluster.connected(1, "") as alone:
        engine, end = _engine(study, tmp_path, alone), Engine._end

        def grow(cell, told, bar):
            alone.cluster.scale(2)
            end(engine, cell, told, bar)

        engine._end = grow
        engine.run()
    assert len({cell["worker"] for cell in engine.cells.values()}) == 2


def test_a_scheduler_that_is_gone_is_said(study_of, tmp_path):
    with cluster.connected(1, "") as alone:
        engine = _engine(study_of(_settings("a")), tmp_path, alone)
        alone.close()
        with pytest.raises(ConnectionError, match="scheduler is gone; start it, and repeat"):
            engine.run()


COMMAND = """
import json, pathlib, sys
sys.path[:0] = [{here!r}]
from work import work
from cxr_utils import study_plan
from cxr_utils.studies import cluster, engine
folder = pathlib.Path(sys.argv[1])
study = study_plan.read(folder / "trial.yaml", "phantom")
if __name__ == "__main__":
    with cluster.connected(2, "") as client:
        engine.Engine(study, {steps!r}, folder, client, {surveyed!r}, work).run()
"""


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="1"), pytest.param(10, id="10", marks=pytest.mark.long)]
)
def test_a_killed_study_goes_on_where_it_was(kills, study_of, tmp_path):
    """SIGKILL at moments drawn by a seed: no cell that had ended begins again, and none is lost."""
    study = study_of(_settings(*(f"sleep=0.3-{n}" for n in range(5 * kills))))
    script = tmp_path / "command.py"
    script.write_text(
        COMMAND.format(here=str(Path(__file__).parent), surveyed=SURVEYED, steps=STEPS)
    )
    rng, command = random.Random(1), [sys.executable, str(script), str(tmp_path)]
    cells = tmp_path / "cells"
    known: dict[str, int] = {}
    for _ in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        began = len(list(cells.glob("*/cell.json")))
        while len(list(cells.glob("*/cell.json"))) <= began and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.9))
        os.kill(process.pid, signal.SIGKILL)  # the command alone; its workers end by themselves
        process.wait()
        time.sleep(0.7)  # what was running then may end
        for name in (file.parent.name for file in cells.glob("*/cell.json")):
            known.setdefault(name, _log(tmp_path)[f"begin:{name}"])  # as it first ended
        assert known
    assert subprocess.run(command, check=False).returncode == 0
    final = _log(tmp_path)
    assert {name: final[f"begin:{name}"] for name in known} == known
    told = read_json(tmp_path / "study.json")["cells"]
    assert list(told) == [cell.name for cell in study.cells()]
    assert {cell["state"] for cell in told.values()} == {"done"}
