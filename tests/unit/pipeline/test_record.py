"""A run is run again from its record, on the same data, and compared."""

import json

import pytest

from cxr_utils import cli, paths, profiles
from cxr_utils.parameters import UsageError
from cxr_utils.pipeline import record


@pytest.fixture
def pair(tmp_path):
    folders = [paths.RunFolder(tmp_path / name).make() for name in ("one", "other")]
    for folder in folders:
        scores = {"run": folder.name, "models": {"x": {"test": {"n": 3, "matrix": [[1, 2]]}}}}
        folder.metrics.write_text(json.dumps(scores))
        folder.predictions("x").write_text("split,path,score\ntest,a,0.25\ntest,b,0.5\n")
    return folders


def test_equal_runs_are_equal(pair, capsys):
    assert cli.guarded(cli.main, ["compare", *(str(run.root) for run in pair)]) == 0
    assert "5 of 5 figures and predictions are equal" in capsys.readouterr().out


def test_what_differs_is_named(pair, capsys):
    other = pair[1]
    other.metrics.write_text(other.metrics.read_text().replace('"n": 3', '"n": 4'))
    other.predictions("x").write_text("split,path,score\ntest,a,0.26\n")
    assert cli.guarded(cli.main, ["compare", *(str(run.root) for run in pair)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "differs: metrics.json/models/x/test/n: 3 in one, 4 in other" in said
    assert "differs: x.csv test a: 0.25 in one, 0.26 in other" in said
    assert "differs: x.csv test b: 0.5 in one, nothing in other" in said
    assert said[-1].startswith("2 of 5")


def test_a_folder_without_scores_is_bad_usage(pair, tmp_path, capsys):
    command = ["compare", str(pair[0].root), str(tmp_path)]
    assert cli.guarded(cli.main, command) == 2
    assert "no metrics.json is there" in capsys.readouterr().err


def test_a_record_is_a_profile(done):
    run, _, _ = done(profiles.load("smoke", ["seed=7", "data.source=phantom"]))
    params = profiles.load(str(run.folder.record))
    assert params.seed == 7 and params.data.source == "phantom"
    assert params.baseline_cnn.precision == "float32"  # what auto came to
    assert params.resnet50v2.weights == "none"
    assert profiles.load(str(run.folder.record), ["seed=8"]).seed == 8
    known = json.loads(run.folder.record.read_text())
    record.check_same_data(known, run)
    known["data"]["manifest"] = "another"
    with pytest.raises(UsageError, match="not the data of that run"):
        record.check_same_data(known, run)
    known["versions"]["keras"], known["git"] = "1.0", run.record["git"]
    changed = record.changed_surroundings(known, run.record)
    assert changed.startswith("keras 3") and changed.endswith("(was 1.0)")
    known = json.loads(run.folder.record.read_text())
    del known["parameters"]["baseline_cnn"]["oversampling"]  # of a version that had none
    added = record.changed_surroundings(known, run.record)
    assert added == "baseline_cnn.oversampling 9 (was none)"


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"parameters": {}, "data": 3}'])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run.json: (not|expected)"):
        profiles.load(str(tmp_path / "run.json"))
