"""Settings that are drawn as a study goes on: kept, resumed, pruned."""

import json

import pytest
from work import losing, work

from cxr_utils.pipeline.validity import numbers_digest
from cxr_utils.studies.engine import Engine
from cxr_utils.studies.search import Search
from cxr_utils.study_plan import read

OVER = "{settings: 6, over: {augmentation.zoom: {low: 0.0, high: 0.4}, baseline_cnn.depth: [1, 2]}}"


def _run(study, folder, client):
    told = {"x": {"manifest": "m", "synthetic": True, "kind": "phantom", "host": "here"}}
    engine = Engine(study, ["02_baseline_cnn"], folder, client, told, work)
    engine.run()
    return engine


@pytest.mark.parametrize("kind", ["search", "random"])
def test_settings_are_drawn_once_and_kept(kind, study_of, client, tmp_path):
    study = study_of(f"{kind}: {OVER}\nseeds: 2")
    engine = _run(study, tmp_path, client)
    assert len(engine.cells) == 12 and {cell["state"] for cell in engine.cells.values()} == {"done"}
    first = engine.cells["trial-0000-2026"]["changes"]
    assert first == {"augmentation.zoom": 0.15, "baseline_cnn.depth": 1}  # the base
    drawn = {json.dumps(cell["changes"]) for cell in engine.cells.values()}
    values = {trial.value for trial in engine.search.trials.trials}
    assert len(drawn) == len(values) == 6
    before = (tmp_path / "log").read_text()
    again = _run(study, tmp_path, client)
    assert (tmp_path / "log").read_text() == before and again.cells == engine.cells
    more = _run(study_of(f"{kind}: {OVER.replace('6', '7')}\nseeds: 2"), tmp_path, client)
    assert len(more.cells) == 14 and list(more.cells)[:12] == list(engine.cells)
    assert (tmp_path / "log").read_text().count("end:") == 14
    drawn = {json.dumps(cell["changes"]) for cell in more.cells.values()}
    assert len(drawn) == 7  # what is drawn after a stop is not drawn again


def test_other_words_or_more_settings_keep_trials_and_other_parameters_do_not(study_of, tmp_path):
    def trials(text):
        study = study_of(text)
        search = Search(study, study.asked.sample, tmp_path, "")
        next(search.cells())
        return search.trials

    first = trials(f"search: {OVER}")
    assert len(trials(f"search: {OVER.replace('6', '9')}").trials) == 1
    for other in (f"search: {OVER}\nset: {{augmentation.noise: 0}}", f"random: {OVER}"):
        assert trials(other).study_name != first.study_name


def test_a_trial_that_was_begun_goes_on(study_of, client, tmp_path):
    study = study_of(f"search: {OVER}")
    sample, decides = study.asked.sample, numbers_digest(["02_baseline_cnn"]) + "m"
    begun = [next(Search(study, sample, tmp_path, decides).cells()) for _ in range(1)]
    stopped = Search(study, sample, tmp_path, decides)
    cells = stopped.cells()
    begun += [next(cells), next(cells)]
    engine = _run(study, tmp_path, client)
    assert len(engine.cells) == 6
    for cell in begun:
        assert engine.cells[cell.name]["changes"] == cell.changes


def test_a_run_worse_than_the_median_is_hopeless(study_of, tmp_path):
    search = Search(study := study_of(f"search: {OVER}"), study.asked.sample, tmp_path, "")
    assert search.prunes
    cells = search.cells()
    for number, losses in enumerate([(0.5, 0.3), (0.6, 0.4), (0.7, 0.5), (0.5, 0.2), (0.6, 0.3)]):
        cell = next(cells)
        assert not any(search.is_hopeless(cell.name, n, loss) for n, loss in enumerate(losses, 1))
        (tmp_path / str(number)).mkdir()
        metrics = {
            "models": {"baseline_cnn": {"validation": {"loss": losses[-1]}, "test": {"loss": 9}}}
        }
        (tmp_path / str(number) / "metrics.json").write_text(json.dumps(metrics))
        search.end(cell, "done", tmp_path / str(number))
    assert search.trials.best_value == 0.2
    last = next(cells)
    assert not search.is_hopeless(last.name, 1, 0.4) and search.is_hopeless(last.name, 2, 0.9)
    search.end(last, "pruned", tmp_path)
    assert search.trials.trials[-1].state.name == "PRUNED"
    assert not search.is_hopeless("trial-of-another-day", 1, 9.0)


def test_a_hopeless_run_is_told_to_end_and_no_other(study_of, client, tmp_path):
    """The loss goes from worker to engine, the word to end back; another study hears neither."""
    study = study_of("search: {settings: 7, over: {augmentation.zoom: {low: 0.0, high: 0.4}}}")
    told = {"x": {"manifest": "m", "synthetic": True, "kind": "phantom", "host": "here"}}
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        engine = Engine(study, ["02_baseline_cnn"], folder, client, told, losing)
        engine.run()
        states = [cell["state"] for cell in engine.cells.values()]
        assert states == ["done"] * 6 + ["pruned"]
        assert engine.search.trials.trials[-1].state.name == "PRUNED"


def test_values_that_do_not_go_together_are_passed_over(study_of, client, tmp_path):
    over = "{resnet50v2.backbone: [ResNet50V2, Xception], resnet50v2.image_size: [64, 96]}"
    size = "set: {resnet50v2.image_size: 96}"
    study = study_of(f"{size}\nrandom: {{settings: 12, over: {over}}}")
    engine = _run(study, tmp_path, client)
    states = [trial.state.name for trial in engine.search.trials.trials]
    assert len(states) == 12 and states.count("FAIL") == 12 - len(engine.cells) > 0


def test_a_journal_that_a_full_disk_cut_off_is_read(study_of, client, tmp_path):
    study = study_of(f"search: {OVER}")
    _run(study, tmp_path, client)
    log = tmp_path / "optuna.log"
    log.write_bytes(log.read_bytes()[:-7])
    assert len(_run(study, tmp_path, client).cells) == 6


def test_a_factor_keeps_its_type(study_of, tmp_path):
    over = (
        "{augmentation.rim: {low: 0, high: 1}, baseline_cnn.width: {low: 8, high: 32, log: true}}"
    )
    study = study_of(f"random: {{settings: 9, over: {over}}}")
    cells = list(Search(study, study.asked.sample, tmp_path, "").cells())
    assert len({cell.changes["augmentation.rim"] for cell in cells}) == 9
    assert all(isinstance(cell.changes["baseline_cnn.width"], int) for cell in cells)


def test_epochs_are_judged_only_where_a_setting_is_one_run(study_of, tmp_path):
    asked = f"search: {OVER}\nseeds: 2", f"search: {OVER}\nfolds: 2", f"random: {OVER}"
    for number, text in enumerate(asked):
        study = study_of(text)
        (folder := tmp_path / str(number)).mkdir()
        assert not Search(study, study.asked.sample, folder, "").prunes


def test_a_base_outside_what_is_asked_for_is_not_drawn(study_of, tmp_path):
    study = study_of("search: {settings: 2, over: {augmentation.zoom: {low: 0.3, high: 0.4}}}")
    first = next(Search(study, study.asked.sample, tmp_path, "").cells())
    assert 0.3 <= first.changes["augmentation.zoom"] <= 0.4


def test_cells_of_a_grid(study_of):
    """The base is one of them, and is there once."""
    study = study_of("grid: {augmentation.zoom: [0.15, 0.3], baseline_cnn.depth: [1, 2]}\nfolds: 3")
    names = [cell.name for cell in study.cells()]
    assert names[:4] == ["base-2026-fold1", "base-2026-fold2", "base-2026-fold3",
                         "zoom=0.15,depth=2-2026-fold1"]  # fmt: skip
    assert len(names) == len(set(names)) == 12
    last = study.cells()[-1]
    assert last.params.data.folds == 3 and last.params.data.fold == 3
    assert last.params.augmentation.zoom == 0.3 and last.params.baseline_cnn.depth == 2


def test_names_that_come_to_one_folder_stay_apart(study_of):
    study = study_of("settings: {a b: {augmentation.zoom: 0}, a/b: {augmentation.zoom: 0.1}}")
    assert [cell.name for cell in study.cells()] == ["base-2026", "a-b-2026", "a-b-f46e0e-2026"]


def test_the_source_is_the_command_s(tmp_path):
    (tmp_path / "x.yaml").write_text("question: Where?\nprofile: smoke\n")
    assert read(tmp_path / "x.yaml", "medmnist").base.data.source == "medmnist"
