"""Settings that are drawn as a study goes on: kept, resumed, pruned."""

import json

import pytest
from work import work

from cxr_utils.studies.engine import Engine
from cxr_utils.studies.search import Search
from cxr_utils.study_plan import read

OVER = "{settings: 6, over: {augmentation.zoom: {low: 0.0, high: 0.4}, baseline_cnn.depth: [1, 2]}}"


def _run(study, folder, client):
    engine = Engine(study, folder, client, work)
    engine.about["data"] = {"manifest": "m", "synthetic": True, "kind": "phantom"}
    engine.room = 2
    engine.run()
    return engine


@pytest.mark.parametrize("kind", ["search", "random"])
def test_settings_are_drawn_once_and_kept(kind, study_of, client, tmp_path):
    study = study_of(f"{kind}: {OVER}\nseeds: 2")
    engine = _run(study, tmp_path, client)
    assert len(engine.cells) == 12 and {cell["state"] for cell in engine.cells.values()} == {"done"}
    first = engine.cells["trial-0000-2026"]["changes"]
    assert first == {"augmentation.zoom": 0.15, "baseline_cnn.depth": 1}  # the base
    values = [trial.value for trial in engine.search.trials.trials]
    assert values == [len("trial-0000-2026")] * 6
    before = (tmp_path / "log").read_text()
    again = _run(study, tmp_path, client)
    assert (tmp_path / "log").read_text() == before and again.cells == engine.cells
    more = _run(study_of(f"{kind}: {OVER.replace('6', '7')}\nseeds: 2"), tmp_path, client)
    assert len(more.cells) == 14 and engine.cells.items() <= more.cells.items()


def test_a_trial_that_was_begun_goes_on(study_of, client, tmp_path):
    study = study_of(f"search: {OVER}")
    sample = study.asked.sample
    begun = [next(Search(study, sample, tmp_path).cells()) for _ in range(1)]
    stopped = Search(study, sample, tmp_path)
    cells = stopped.cells()
    begun += [next(cells), next(cells)]
    engine = _run(study, tmp_path, client)
    assert len(engine.cells) == 6
    for cell in begun:
        assert engine.cells[cell.name]["changes"] == cell.changes


def test_a_run_worse_than_the_median_is_hopeless(study_of, tmp_path):
    search = Search(study := study_of(f"search: {OVER}"), study.asked.sample, tmp_path)
    assert search.prunes
    cells = search.cells()
    for number, losses in enumerate([(0.5, 0.3), (0.6, 0.4), (0.7, 0.5), (0.5, 0.2), (0.6, 0.3)]):
        cell = next(cells)
        assert not any(search.is_hopeless(cell.name, n, loss) for n, loss in enumerate(losses, 1))
        (tmp_path / str(number)).mkdir()
        metrics = {"models": {"m": {"validation": {"loss": losses[-1]}, "test": {"loss": 9}}}}
        (tmp_path / str(number) / "metrics.json").write_text(json.dumps(metrics))
        search.end(cell, "done", tmp_path / str(number))
    assert search.trials.best_value == 0.2
    last = next(cells)
    assert not search.is_hopeless(last.name, 1, 0.4) and search.is_hopeless(last.name, 2, 0.9)
    search.end(last, "pruned", tmp_path)
    assert search.trials.trials[-1].state.name == "PRUNED"
    assert not search.is_hopeless("trial-of-another-day", 1, 9.0)


def test_epochs_are_judged_only_where_a_setting_is_one_run(study_of, tmp_path):
    asked = f"search: {OVER}\nseeds: 2", f"search: {OVER}\nfolds: 2", f"random: {OVER}"
    for number, text in enumerate(asked):
        study = study_of(text)
        (folder := tmp_path / str(number)).mkdir()
        assert not Search(study, study.asked.sample, folder).prunes


def test_a_base_outside_what_is_asked_for_is_not_drawn(study_of, tmp_path):
    study = study_of("search: {settings: 2, over: {augmentation.zoom: {low: 0.3, high: 0.4}}}")
    first = next(Search(study, study.asked.sample, tmp_path).cells())
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
    assert [cell.name for cell in study.cells()] == ["base-2026", "a-b-2026", "a-b-2-2026"]


def test_the_source_is_the_command_s(tmp_path):
    (tmp_path / "x.yaml").write_text("question: Where?\nprofile: smoke\n")
    assert read(tmp_path / "x.yaml", "medmnist").base.data.source == "medmnist"
