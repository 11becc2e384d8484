"""What the cells of a study say together, against what is known of cells that were made up."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from cxr_utils.evaluation import metrics, studies
from cxr_utils.parameters import Params


@pytest.fixture
def study_in(tmp_path):
    """Write a study whose cells have the logit that a function gives each film."""

    def make(cells, logit_of, patients=200, films=2, about=()):
        rng, told, root = np.random.default_rng(0), {}, tmp_path / "studies" / "x"
        names = np.repeat([f"p{n:03}" for n in range(patients)], films)
        sick = np.repeat(rng.random(patients) < 0.6, films)
        own = rng.normal(0, 1, len(names)) + 2 * np.where(sick, 1, -1)
        for name, setting, changes, seed, fold, share in cells:
            scores = expit(logit_of(changes, seed, own, sick, rng))
            loss = float(metrics.cross_entropy(sick.astype(int), scores).mean())
            entry = {"loss": loss, "auroc": 0.9 + seed / 1000, "sensitivity": 0.97,
                     "specificity": 0.8, "accuracy": 0.9, "n": len(names)}  # fmt: skip
            folder = root / "cells" / name
            (folder / "predictions").mkdir(parents=True)
            (folder / "models").mkdir()
            found = {"models": {"baseline_cnn": {"validation": entry, "test": entry}}}
            (folder / "run.json").write_text(json.dumps({"parameters": Params().model_dump()}))
            (folder / "metrics.json").write_text(json.dumps(found))
            card = {
                "title": "M",
                "seconds": 60.0,
                "precision": {"used": "float32"},
                "trained_on": {"patients": round(1000 * share)},
            }
            (folder / "models" / "baseline_cnn.json").write_text(json.dumps(card))
            table = {"split": "validation", "path": [f"f{n}" for n in range(len(names))]}
            table |= {"patient": names, "label": np.where(sick, "PNEUMONIA", "NORMAL")}
            frame = pd.DataFrame(table).assign(subtype="x", score=scores)
            frame.to_csv(folder / "predictions" / "baseline_cnn.csv", index=False)
            told[name] = {"setting": setting, "changes": changes, "seed": seed, "fold": fold}
            told[name] |= {"state": "done", "seconds": 60.0}
        tree = {
            "cells": told,
            "models": ["baseline_cnn"],
            "folds": 0,
            "parameters": Params().model_dump(),
        }
        (root / "study.json").write_text(json.dumps(tree | dict(about)))
        return studies.read(root)

    return make


def _cells(settings, seeds=3):
    return [(f"{name}-{seed}", name, changes, seed, None, 1.0)
            for name, changes in settings.items() for seed in range(seeds)]  # fmt: skip


SETTINGS = {"base": {}, "zoom": {"augmentation.zoom": 0.0}, "noise": {"augmentation.noise": 0.0}}


def _shifted(by):
    """Logits of films, that of a setting off by so much; each seed's with an error of its own."""

    def logit_of(changes, seed, own, sick, rng):
        off = sum(by.get(name, 0) for name in changes) * np.where(sick, 1, -1)
        return own + off + 0.05 * rng.normal(size=len(own))

    return logit_of


def test_a_setting_that_is_better_is_found_and_one_that_is_not_is_not(study_in):
    study = study_in(_cells(SETTINGS), _shifted({"augmentation.zoom": 0.5}))
    table = studies.differences(study, "baseline_cnn").set_index("setting")
    assert list(table.index) == ["zoom", "noise"] and list(table["cells"]) == [3, 3]
    means = study.rows.groupby("setting")["loss"].mean()
    assert table.loc["zoom", "value"] == pytest.approx(means["zoom"] - means["base"], abs=1e-9)
    assert (
        table.loc["zoom", "high"] < 0 and table.loc["noise", "low"] < 0 < table.loc["noise", "high"]
    )
    assert table.loc["zoom", "holm"] == 2 * table.loc["zoom", "p"] < 0.05
    assert studies.take(table.reset_index(), "base") == "zoom"
    assert studies.take(table.loc[["noise"]].reset_index(), "base") == "base"


def test_the_interval_holds_for_other_patients_and_other_seeds():
    """Of 400 studies whose true difference is known, 95% of the intervals hold it."""
    rng, held, patients, seeds = np.random.default_rng(1), 0, 60, 4
    for _ in range(400):
        patient, seed = rng.normal(0, 0.3, patients), rng.normal(0, 0.05, seeds)
        gaps = []
        for number in range(seeds):
            gap = 0.1 + np.repeat(patient, 3) + seed[number] + rng.normal(0, 0.2, 3 * patients)
            names = np.repeat(np.arange(patients), 3)
            gaps.append(pd.DataFrame({"patient": names, "gap": gap}))
        found = studies.paired(gaps)
        held += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= held / 400 <= 0.985


def test_equal_runs_do_not_differ():
    gaps = [pd.DataFrame({"patient": ["a", "b"], "gap": [0.0, 0.0]})] * 2
    assert studies.paired(gaps)["p"] == 1 and studies.paired(gaps)["low"] == 0


def test_holm():
    assert studies.holm(np.array([0.01, 0.04, 0.03]), 3).tolist() == pytest.approx(
        [0.03, 0.06, 0.06]
    )
    assert studies.holm(np.array([0.01]), 5).tolist() == [0.05]  # four did not end
    assert studies.holm(np.array([0.9, 0.9]), 2).tolist() == [1, 1]


def test_spread():
    values = pd.Series([0.9, 0.94, 0.95])
    found = studies.spread(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["least"] == 0.9 and found["most"] == 0.95 and found["cells"] == 3
    assert np.isnan(studies.spread(values[:1])["low"])
    few = pd.Series([0.97, 0.995])
    assert studies.spread(few)["high"] > 1
    assert studies.spread_of_shares(few) == studies.spread(few) | {"high": 1.0}
    assert np.isnan(studies.spread_of_shares(few[:1])["low"])


def test_effects_of_factors_that_vary_together(study_in):
    settings = SETTINGS | {"both": {"augmentation.zoom": 0.0, "augmentation.noise": 0.0}}
    by = {"augmentation.zoom": 0.4, "augmentation.noise": -0.4}
    study = study_in(_cells(settings, seeds=2), _shifted(by))
    table = studies.effects(study, "baseline_cnn").set_index("factor")
    assert table.loc["augmentation.zoom", "effect"] < -0.01
    assert table.loc["augmentation.noise", "effect"] > 0.01
    assert (
        table.loc["augmentation.zoom", "base"] == 0.15
        and table.loc["augmentation.zoom", "value"] == 0
    )
    assert list(table["cells"]) == [4, 4]


def test_a_scale_is_one_effect(study_in):
    settings = {f"s{n}": {"augmentation.zoom": n / 20} for n in range(10)}

    def logit_of(changes, seed, own, sick, rng):
        return own + changes["augmentation.zoom"] * np.where(sick, 1, -1)

    study = study_in(_cells(settings, seeds=1), logit_of)
    (row,) = studies.effects(study, "baseline_cnn").to_dict("records")
    assert row["value"] == "0 to 0.45" and row["effect"] < -0.01


def test_many_values_that_are_no_numbers_are_no_scale(study_in):
    settings = {f"s{n}": {"baseline_cnn.precision": f"kind {n}"} for n in range(10)}
    study = study_in(_cells(settings, seeds=1), lambda changes, seed, own, sick, rng: own)
    values = study.factors["baseline_cnn.precision"]
    assert list(studies.effects(study, "baseline_cnn")["value"]) == values[1:]


def test_a_learning_curve(study_in):
    cells = [(f"s{share}-{seed}", f"s{share}", {"data.training_share": share}, seed, None, share)
             for share in (0.25, 0.5, 1.0) for seed in range(3)]  # fmt: skip

    def logit_of(changes, seed, own, sick, rng):
        off = np.log2(changes["data.training_share"]) * np.where(sick, 1, -1)
        return own + 0.2 * off + 0.05 * rng.normal(size=len(own))

    study = study_in(cells, logit_of)
    found = studies.doubling(study, "baseline_cnn")
    assert found["low"] < found["value"] < found["high"] < 0
    assert (found["least"], found["most"]) == (250, 1000)
    assert study.base == "s1.0"


def test_without_a_base_nothing_is_compared(study_in):
    study = study_in(_cells({"zoom": {"augmentation.zoom": 0.0}}), _shifted({}))
    assert study.base == "" and not len(studies.differences(study, "baseline_cnn"))
    assert studies.doubling(study, "baseline_cnn") is None


def test_a_run_is_found_among_the_seeds_of_its_own_parameters_and_data(study_in, tmp_path):
    data = {"manifest": "m", "synthetic": True, "kind": "phantom"}
    study_in(_cells({"base": {}}), _shifted({}), about={"data": data})
    record = {"parameters": Params(seed=7).model_dump(), "data": {"manifest": "m"}}
    found = studies.of_seeds("baseline_cnn", tmp_path / "studies", record)
    assert list(found["seed"]) == [0, 1, 2] and list(found["test_auroc"]) == [0.9, 0.901, 0.902]
    other = Params.model_validate({"baseline_cnn": {"depth": 2}}).model_dump()
    for wrong in (record | {"data": {"manifest": "n"}}, record | {"parameters": other}):
        assert not len(studies.of_seeds("baseline_cnn", tmp_path / "studies", wrong))
    assert not len(studies.of_seeds("resnet50v2", tmp_path / "studies", record))


def test_a_study_that_tries_settings_is_none_of_seeds(study_in, tmp_path):
    data = {"manifest": "m", "synthetic": True, "kind": "phantom"}
    study_in(_cells(SETTINGS), _shifted({}), about={"data": data})
    record = {"parameters": Params().model_dump(), "data": {"manifest": "m"}}
    assert not len(studies.of_seeds("baseline_cnn", tmp_path / "studies", record))


def test_factors_that_always_change_together_have_no_effect_of_their_own(study_in):
    both = {"augmentation.zoom": 0.0, "augmentation.noise": 0.0}
    study = study_in(
        _cells({"base": {}, "both": both}, seeds=2), _shifted({"augmentation.zoom": 1})
    )
    assert studies.effects(study, "baseline_cnn")["effect"].isna().all()


def test_one_run_a_setting_is_no_reason_to_take_it(study_in):
    study = study_in(_cells(SETTINGS, seeds=1), _shifted({"augmentation.zoom": 0.5}))
    table = studies.differences(study, "baseline_cnn")
    assert table["holm"].min() < 0.05 and studies.take(table, "base") == "base"


def test_pairs_of_runs_are_as_far_apart_as_is_said():
    rng, within = np.random.default_rng(2), []
    for _ in range(2000):
        *known, one, other = rng.normal(size=6)
        within.append(abs(one - other) <= studies.apart(pd.Series(known)))
    assert 0.93 <= np.mean(within) <= 0.97 and np.isnan(studies.apart(pd.Series([1.0])))
