"""What runs, what is kept, and what is left behind; the notebooks are stand-ins."""

import json

import pytest

from cxr_utils import paths, profiles
from cxr_utils.parameters import UsageError
from cxr_utils.pipeline import execution, validity
from cxr_utils.pipeline.steps import find_steps

TRAINED = "its model is trained"


def test_a_run_is_done_once(done, notebooks):
    run, decided, problems = done()
    assert not problems and {action for action, _ in decided.values()} == {"run"}
    assert decided["02_baseline_cnn"][1] == f"has not run yet; {TRAINED}"
    record = json.loads(run.folder.record.read_text())
    assert record["problems"] == [] and list(record["steps"]) == list(decided)
    came_to = record["steps"]["02_baseline_cnn"]["came_to"]
    assert came_to["precision"] == {"used": "float32"} and came_to["epochs"] == {"done": 1}
    assert set(record["steps"]["01_eda"]["parameters"]) == {"run_dir", "seed", "noise"}
    _, decided, _ = done()
    assert {action for action, _ in decided.values()} == {"keep"}


def test_force_takes_away_what_was_trained(done, notebooks):
    """Of an ensemble also the trainings that it is the mean of; other models' stay."""
    run, _, _ = done()
    member = run.folder.member(1).make()
    for name in ("baseline_cnn", "resnet50v2"):
        member.model_card(name).write_text("{}")
    done(asked=["02_baseline_cnn"])
    assert member.model_card("baseline_cnn").is_file()
    done(asked=["02_baseline_cnn"], force=True)
    assert not member.model_card("baseline_cnn").is_file()
    assert member.model_card("resnet50v2").is_file()


def test_what_changed_is_named_and_runs_alone(done, notebooks):
    run, _, _ = done()
    changed = profiles.load("smoke", ["augmentation.noise=0.2", "data.source=phantom"])
    _, decided, _ = done(changed)
    assert decided["01_eda"] == ("run", "changed: noise")
    assert {decided[step][0] for step in list(decided)[1:]} == {"keep"}
    notebooks.write("04_comparison", "", "print('anew')", ["models"])
    run.folder.predictions("baseline_cnn").write_text("split,path,score\ntest,a.png,0.6\n")
    _, decided, problems = done(changed)
    assert not problems and decided["01_eda"][0] == "keep"
    assert "predictions/baseline_cnn.csv is not what the step left" in decided["02_baseline_cnn"][1]
    assert decided["04_comparison"][1] == "changed: notebook, predictions of 02_baseline_cnn"
    run.folder.html("01_eda").unlink()
    assert done(changed)[1]["01_eda"] == ("run", "01_eda.html is missing")


def test_a_study_that_was_done_since_renews_the_comparison_alone(done, notebooks):
    run, _, _ = done()
    study = run.folder.root.parent / "studies" / "seeds" / "study.json"
    study.parent.mkdir(parents=True)
    study.write_text("{}")
    _, decided, _ = done()
    assert decided["04_comparison"] == ("run", "changed: study seeds")
    assert {decided[step][0] for step in list(decided)[:-1]} == {"keep"}


def test_a_failed_step_stops_what_needs_it_alone(done, notebooks):
    notebooks.break_off("02_baseline_cnn")
    run, _, (failed, blocked) = done()
    assert "raised ValueError: spoilt; mend that" in failed
    assert blocked == "04_comparison: did not run, as 02_baseline_cnn failed"
    assert run.folder.predictions("resnet50v2").is_file()
    assert not run.folder.html("04_comparison").exists()
    assert "This step failed" in run.folder.html("02_baseline_cnn").read_text()


def test_a_step_that_leaves_nothing_has_failed(done, notebooks):
    notebooks.write("03_resnet50v2", "backbone: str = ''", "pass")
    _, _, problems = done(asked=["03_resnet50v2"])
    assert "ran to its end, but resnet50v2.csv is missing" in problems[0]


def test_a_model_goes_by_its_backbone_and_the_one_before_is_forgotten(done, smoke):
    run, _, _ = done()
    assert run.folder.predictions("resnet50v2").is_file()
    other = profiles.load("smoke", ["resnet50v2.backbone=MobileNetV2", "data.source=phantom"])
    run, decided, problems = done(other)
    assert not problems and "changed: backbone" in decided["03_resnet50v2"][1]
    known = json.loads(run.folder.metrics.read_text())["models"]
    assert set(known) == {"baseline_cnn", "mobilenetv2"} == set(run.models)
    assert (
        run.folder.predictions("mobilenetv2").is_file()
        and run.folder.model("mobilenetv2").is_file()
    )
    assert not run.folder.predictions("resnet50v2").exists()
    assert not list((run.folder.root / "figures").glob("*resnet50v2*"))
    assert run.folder.predictions("baseline_cnn").is_file()


def test_a_step_needs_what_is_not_there(prepared):
    with pytest.raises(UsageError, match="repeat the command with --from 02_baseline_cnn"):
        validity.decide(prepared(), ["04_comparison"])


def test_other_data_leaves_nothing_to_pass_for_its_own(done, smoke):
    done()
    run, decided, _ = done(smoke, "another", asked=["01_eda"])
    assert decided["01_eda"] == ("run", "changed: data")
    assert not run.folder.metrics.exists() and not run.folder.html("02_baseline_cnn").exists()
    assert any("02_baseline_cnn: not run this time" in said for said in run.record["problems"])


def test_the_bar_follows_the_epochs_that_training_counts(tmp_path):
    progress = tmp_path / "models" / "x.progress.json"
    with execution.tqdm(total=5, disable=True) as bar:
        watch = execution._Watch("02", bar, None, 0, progress, epochs=6)
        watch.end()
        assert (bar.n, bar.total) == (1, 5 + 6 * execution.EPOCH)  # as many as are asked for
        progress.parent.mkdir()
        progress.write_text(json.dumps({"epoch": 2, "epochs": 3}))
        watch.end()
        assert (bar.n, bar.total) == (2 + 2 * execution.EPOCH, 5 + 3 * execution.EPOCH)
        progress.unlink()  # as a training does that has ended
        watch.end()
    assert (bar.n, bar.total) == (3 + 2 * execution.EPOCH, 5 + 3 * execution.EPOCH)


def test_a_step_that_takes_too_long_is_stopped(done, notebooks, tmp_path, prepared):
    notebooks.write("01_eda", "noise: float = 1.0", "import time; time.sleep(60)")
    step, target = find_steps()[0], tmp_path / "late.ipynb"
    with pytest.raises(
        execution.StepFailed, match=r"was not done after 0.03 minutes; --time-limit"
    ):
        execution.execute(step.name, {}, target, tmp_path, minutes=0.03)
    assert "This cell was not done" in target.read_text()


def test_braces_in_a_folder_are_no_format(tmp_path, notebooks):
    target = tmp_path / "re{ports}" / "01.ipynb"
    execution.execute("01_eda", {"noise": 0.5}, target, tmp_path)
    assert "0.5" in target.read_text() and not list(paths.NOTEBOOKS.glob("kernel-*"))
