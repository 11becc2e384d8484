"""Whatever the data and the scores are, the reports can say it, and say no more than is known."""

import dataclasses
import json

import jinja2
import numpy as np
import pandas as pd
import pytest
from nbconvert.filters import markdown2html
from scipy.special import logit

from cxr_utils import paths
from cxr_utils.evaluation import comparison, results
from cxr_utils.evaluation.audit import Finding
from cxr_utils.models.explanation import Checked
from cxr_utils.parameters import Data
from cxr_utils.reporting import display, findings, published, study, tables, text

DATA = {"counts": {"test": {"NORMAL": 40, "PNEUMONIA": 80}}, "median_size": [224, 224]}


HIDDEN = pd.DataFrame(
    {"AUROC": [0.7, 0.8], "low": [0.6, 0.7], "AUROC lost": [0.3, 0.2]},
    index=["only the border", "without the outer thirds"],
)


def _lines(found):
    return [f"{one.verdict}: {tables.says(one)} {tables.remedy(one)}" for one in found]


def _files(part):
    """The test images, the first six of them under a number that training has as another kind."""
    test = part.assign(split="test", patient=[f"person{row}_virus" for row in range(len(part))])
    patients = [f"person{row}_bacteria" for row in range(6)]
    train = pd.DataFrame({"split": "train", "patient": patients})
    return pd.concat([train.assign(path=[f"train/{name}_1.jpeg" for name in patients]), test])


def _all_said(models, standing, pairs=None):
    """Every table and all prose of 02 to 04 and of the index about some models, as one text."""
    pairs = comparison.compare(models, 100, 0) if pairs is None else pairs
    synthetic, about = standing == "synthetic", {"models": models, "standing": standing}
    metadata = {
        model.name: comparison.beyond(model, model.part(), 50, 0) | {"name": "border alone"}
        for model in models
    }
    bootstrap = {"resamples": 100, "seed": 0, "unit": "patient"}
    known = {"models": {m.name: m.scores for m in models}, "data": DATA, "bootstrap": bootstrap}
    doubtful = [text.doubtful(model, _files(model.part())) for model in models]
    said = [
        text.render("standing", standing=standing),
        text.render("verdict", **about, pairs=pairs, references={}),
        *_lines(findings.of_comparison(models, pairs, metadata, standing)),
        text.render("model_card", **about, data=DATA),
        text.render("references", **about),
        text.render("published", **about),
        text.render("splits", known=known),
        text.render("doubtful", found=doubtful, synthetic=False),
        *(text.render("agreement", pair=pair) for pair in pairs),
        text.render("checks", pairs=pairs),
        tables.specificities(comparison.at_sensitivities(models, 50, 0)).to_string(),
    ]
    for model in models:
        said += [
            text.render("errors", **text.errors(model)),
            text.render("calibration", **text.calibration(model)),
            text.render("operating_points", model=model, target=0.98),
            *_lines(findings.of_model(model, HIDDEN, None, None, synthetic)),
        ]
        said += [tables.operating_points(model, every=True).to_string()]
        said += [tables.calibration(model).to_string(), text.telling_cases(model, 3).to_string()]
    said += [
        tables.scores(models).to_string(),
        text.wrong_by_all(models).to_string(),
        tables.subtypes(models).to_string(),
        tables.beside_published(models, DATA).to_string(),
        tables.beside_original(models).to_string(),
        *(
            made(pair).to_string()
            for pair in pairs
            for made in (tables.differences, tables.agreement)
        ),
        display.slider(models, synthetic),
    ]
    found = "\n".join(said)
    assert "6 test films have a patient number" in found
    assert "None" not in found.replace("display: none", "")
    return found


@pytest.mark.parametrize("standing", published.STANDINGS)
def test_everything_can_be_said_of_any_data(models, standing):
    said = _all_said(models, standing)
    assert ("children of one to five" in said) == (standing in ("published", "medmnist"))
    assert ("drew every image" in said) == (standing == "synthetic")
    assert ("ImageNet (weights: imagenet)" in said) == (standing == "published")
    assert ("390 of 624 right" in said) == (standing == "published")


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_models_can_be_told_of(models, scored, count):
    found = [*models, scored("xception", "Xception", seed=2, quality=1.0)][:count]
    said = _all_said(found, "published")
    assert ("Xception" in said) == (count == 3) == ("Baseline CNN and Xception" in said)


@pytest.mark.parametrize("cut", [0.0, 1.0])
def test_a_model_with_one_answer_only(models, scored, cut):
    same = [scored(m.name, m.title, cut=cut, frame=m.predictions) for m in models]
    said = _all_said(same, "own")
    assert "undefined" in said
    never, always = (
        "always answering NORMAL" in said,
        "better than always answering PNEUMONIA" in said,
    )
    assert (never, always) == (cut == 1.0, cut == 0.0)


def test_perfect_and_few(models, scored):
    frames = [
        m.predictions.assign(score=np.where(m.predictions["label"] == "PNEUMONIA", 0.99, 0.01))
        for m in models
    ]
    number = frames[0]["path"].str.extract(r"(\d+)", expand=False).astype(int)
    for few in (False, True):
        perfect = [
            scored(m.name, m.title, frame=frame[number < 20] if few else frame)
            for m, frame in zip(models, frames, strict=True)
        ]
        assert "[1.000, 1.000]" not in _all_said(perfect, "own")


def test_the_original_protocol_has_no_validation(models, scored):
    history = [{"epoch": 1, "validation_loss": 0.2, "seconds": 60.0}]
    original = [
        scored(
            m.name,
            m.title,
            frame=m.predictions[m.predictions["split"] != "validation"],
            chosen_by="validation_loss",
            history=history,
        )
        for m in models
    ]
    said = _all_said(original, "published")
    assert "More validation data" not in said and "stress" not in said and "shifted" not in said


def test_causes_are_named_only_beyond_chance(models, scored):
    def fallen(frame):
        normal = (frame["split"] == "test") & (frame["label"] == "NORMAL")
        return frame.assign(score=np.where(normal, 0.9, frame["score"]))

    worse = [scored(m.name, m.title, frame=fallen(m.predictions)) for m in models]
    assert "drop in specificity is beyond" in _all_said(worse, "own")
    assert "is beyond chance" not in _all_said(models, "own")


def test_how_a_model_was_trained_is_told_from_its_card(models, scored):
    reason = "ImageNet weights cannot be had here"
    card = {
        "start": {"kind": "random", "reason": reason, "sha256": ""},
        "precision": {
            "asked": "auto",
            "used": "float32",
            "fell_back_from": "bfloat16",
            "devices": 2,
        },
        "epochs": {"planned": 9, "done": 1, "best": 1},
        "head": {"epochs": 4, "validation_loss": 0.5},
    }
    model = scored("xception", "Xception", frame=models[0].predictions, **card)
    said = "\n".join(_lines(findings.of_model(model, HIDDEN, None, None, False)))
    for told in (reason, "not finite in bfloat16", "on 2 devices", "1 epoch of 9", "4 epochs"):
        assert told in said


def test_findings_are_judged_and_the_worst_come_first(models):
    surely = HIDDEN.assign(low=[0.85, 0.7])
    places = np.array([[0.9, 0.1], [1 / 3, 0.4]])
    found = findings.of_model(models[0], surely, places, None, False)
    assert [one.verdict for one in found[:2]] == ["fine", "fine"]  # what was asked comes first
    verdicts = {one.check: one.verdict for one in found[2:]}
    assert verdicts["grad-cam"] == verdicts["hidden"] == "warning"
    ranks = [findings.VERDICTS.index(one.verdict) for one in found[2:]]
    assert ranks == sorted(ranks)
    calm = findings.of_model(models[0], HIDDEN, places / [[3, 1], [1, 1]], None, False)
    assert {one.verdict for one in calm if one.check in ("hidden", "grad-cam")} == {"fine"}
    perfect = HIDDEN.assign(AUROC=[1.0, 1.0], low=np.nan)
    (one,) = (
        f for f in findings.of_model(models[0], perfect, None, None, True) if f.check == "hidden"
    )
    assert one.verdict == "warning"


@pytest.mark.parametrize(("inside", "verdict"), [(8, "fine"), (1, "warning")])
def test_maps_that_miss_the_outlines_are_a_warning(models, inside, verdict):
    checked = Checked(cases=10, inside=inside, random=0.2, swapped=0.3, fixed=0.4)
    places = np.array([[0.1, 0.1], [1 / 3, 0.4]])
    found = findings.of_model(models[0], HIDDEN, places, checked, True)
    assert {one.check: one.verdict for one in found}["grad-cam"] == verdict


def test_the_spread_of_seeds_is_told_from_their_logits(models):
    labels, scores = models[0].answers()
    worse = np.where(labels == 1, -1.0, 1.0) * np.linspace(0.1, 1, len(labels))
    found = tables.seeds([logit(scores), worse], models[0], 5)
    assert list(found.index) == ["seed 5", "seed 6", "ensemble"]
    assert found.loc["seed 5"].tolist() == pytest.approx(found.loc["ensemble"].tolist())
    said = text.render("seeds", spread=found)
    assert f"from 0.000 to {models[0].test['auroc']:.3f}" in said


def test_the_spread_of_seeds_stands_beside_the_comparison(models, scored, tmp_path):
    spread = pd.DataFrame({"AUROC": [0.91, 0.93, 0.95]}, index=["seed 5", "seed 6", "ensemble"])
    run = paths.RunFolder(tmp_path).make()
    run.model_card("x").write_text('{"model": "x"}')
    results.keep_seeds("x", spread, run)
    seeds = json.loads(run.model_card("x").read_text())["seeds"]
    several = [scored(m.name, m.title, frame=m.predictions, seeds=seeds) for m in models]
    pairs = comparison.compare(several, 50, 0)
    said = "\n".join(_lines(findings.of_comparison(several, pairs, {}, "own")))
    assert "2 seeds of Baseline CNN, AUROC ranges from 0.910 to 0.930" in said
    assert "one seed" not in said
    alone = findings.of_comparison(models, pairs, {}, "own")
    assert "one seed" in "\n".join(_lines(alone))


def test_a_study_of_seeds_stands_beside_the_scores(models):
    rows = pd.DataFrame({f"test_{score}": [0.8, 0.9] for score in ("auroc", "accuracy", "loss")})
    rows["test_specificity"] = [0.5, 0.7]
    table = study.beside(tables.scores(models, None, ["test"]), {"Baseline CNN": rows})
    column = table["Baseline CNN, 2 seeds: mean ± SD"]
    assert column["AUROC"] == "0.850 ± 0.071" and column["images"] == ""
    assert list(table.columns)[:2] == ["Baseline CNN", column.name]
    said = text.render("seed_study", seeds={"Baseline CNN": rows})
    assert "Baseline CNN over 2 seeds" in said and "0.500 to 0.700" in said
    assert text.render("seed_study", seeds={}) == ""


def _study_told(**more):
    known = {"mean": 0.9, "sd": 0.01, "least": 0.8, "most": 0.95, "low": 0.88, "high": 0.92}
    known |= {"cells": 3}
    told = {
        "scores": {"AUROC": known, "accuracy": known},
        "split": "test",
        "title": "M",
        "base": "base",
    }
    told |= {"chooses": True, "folds": 0, "gaps": [_gap()], "take": "a", "tried": 1}
    told |= {"best": _gap(), "worse": [], "better": ["a"], "apart": 0.05}
    return text.render("study", **(told | {"doubling": None} | more))


def test_the_answer_of_a_study_is_of_the_setting_it_takes():
    assert "take *a*" in _study_told() and "-0.0100 [-0.0200, -0.0010]" in _study_told()
    kept = _study_told(take="base")
    assert "keep the base. The other setting, *a*, changes" in kept
    once = _study_told(take="base", best=_gap(cells=1))
    assert "the best on these films, *a*," in once and "a candidate for a study" in once
    none = _study_told(take="base", best=_gap(cells=1), better=[])
    assert "No setting is significantly better" in none and "candidate" not in none
    assert "the base is not done" in _study_told(best=None, gaps=[])
    alone = _study_told(chooses=False, best=None, gaps=[])
    assert "3 seeds, on test: AUROC 0.900" in alone and "less than about 0.050 in 95%" in alone
    folds = _study_told(chooses=False, best=None, gaps=[], folds=3, split="validation")
    assert "3 folds, on" in folds and "95% of pairs" not in folds
    told = {"value": -0.01, "low": -0.02, "high": 0.0, "seeds": 3, "least": 10, "most": 99}
    assert "between 10 and 99 patients" in _study_told(doubling=told)


def _gap(**more):
    gap = {"setting": "a", "value": -0.01, "low": -0.02, "high": -0.001, "p": 0.01, "holm": 0.02}
    return gap | {"cells": 3} | more


def test_what_looks_like_markup_is_text():
    name = "<img src=x>*a* [b](c) $d$"
    said = text.render("missing", run=name, steps=["02_x"], models=[])
    assert "<img" not in said and "\\*a\\*" in said and "\\[b\\]" in said and "\\$d\\$" in said
    assert "<em>" not in markdown2html(said)
    assert name in text.render_lines("missing", run=name, steps=["02_x"], models=[])[0]


def test_a_number_that_is_not_handed_over_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        text.render("standing")
    with pytest.raises(jinja2.UndefinedError):
        text.render("verdict", models=[], pairs=[], standing="own")


def test_data_is_told_from_the_files(smoke):
    from cxr_utils.data import dataset

    data = dataset.open_data(smoke, dataset.OVERVIEW_SIZE)
    damaged = Finding("usable files", "warning", {"files": 3, "damaged": 1})
    fine = Finding("exact duplicates", "fine", {"groups": 0, "across": 0, "tested": 0})
    said = "\n".join(_lines(findings.of_data(data, "published", [fine, damaged])))
    assert f"{len(data.files)} films are usable" in said and "duplicates" not in said
    assert "3 files left out" in said and "fetch the damaged ones again" in said
    assert "does not hold what was published" in said and ".DS" in said
    assert "published" not in "\n".join(_lines(findings.of_data(data, "own", [])))
    named = dataclasses.replace(data, asked=Data(validation="patients"))
    for opened, fallen_back in ((data, True), (named, False)):
        line = _lines(findings.of_data(opened, "own", []))[0]
        assert ("drawn at random, as too few patients are known" in line) == fallen_back
    adverse = data.files.assign(adverse=data.files["split"] == "validation")
    told = findings.of_data(dataclasses.replace(data, files=adverse), "own", [])
    known = f"{adverse['adverse'].sum()} of the films were chosen because they look like the other"
    assert known in _lines(told)[0] and "at random" not in _lines(told)[0]
    assert "patients" in text.render("children", **text.children(data.files))
    sizes = text.sizes(data.files)
    assert not sizes["one"] and "px in train" in text.render("sizes", **sizes)
    same = text.sizes(data.files.assign(width=64, height=48))
    assert "64 x 48 px" in text.render("sizes", **same)


def test_telling_cases_are_the_surest(models):
    part, cases = models[0].part(), text.telling_cases(models[0], 4)
    for kind, rows in cases.groupby("kind")["row"]:
        labels = set(part["label"].iloc[rows])
        assert len(rows) <= 4 and labels == {"NORMAL" if kind == "false alarm" else "PNEUMONIA"}
    normal = part[part["label"] == "NORMAL"]["score"]
    first = cases[cases["kind"] == "false alarm"]["row"].iloc[0]
    assert part["score"].iloc[first] == normal.max()


def test_films_that_all_models_get_wrong(models):
    found = text.wrong_by_all(models)
    expected = np.flatnonzero(~models[0].right() & ~models[1].right())
    assert sorted(found["row"]) == expected.tolist() and len(expected) > 0
