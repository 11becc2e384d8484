"""Differences and agreement of models against counts that a reader could make."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from cxr_utils import paths
from cxr_utils.evaluation import comparison


def test_differences_by_a_loop(models):
    (pair,) = comparison.compare(models, 50, 7)
    one, two = models
    test = one.part()
    labels, scores, others = (
        (test["label"] == "PNEUMONIA").to_numpy(),
        *(model.part()["score"].to_numpy() for model in models),
    )
    names, drawn = sorted(set(test["patient"])), []
    for draw in np.random.default_rng(7).integers(0, len(names), (50, len(names))):
        rows = np.concatenate([np.flatnonzero(test["patient"] == names[number]) for number in draw])
        y, s, o = labels[rows], scores[rows], others[rows]
        gap = sk.roc_auc_score(y, o) - sk.roc_auc_score(y, s)
        drawn.append([np.mean((o >= 0.6) == y) - np.mean((s >= 0.5) == y), gap])
    for column, score in enumerate(("accuracy", "auroc")):
        found = pair["differences"][score]
        assert [found["low"], found["high"]] == pytest.approx(
            np.quantile(np.array(drawn)[:, column], (0.025, 0.975))
        )
    gap = pair["differences"]["accuracy"]["value"]
    assert gap == pytest.approx(two.test["accuracy"] - one.test["accuracy"])


def test_agreement_and_mcnemar_count_the_same_images(models):
    (pair,) = comparison.compare(models, 50, 0)
    counts = {kind: sum(found.values()) for kind, found in pair["agreement"].items()}
    assert sum(counts.values()) == len(models[0].part())
    alone = counts["first alone"], counts["second alone"]
    assert pair["mcnemar"]["alone"] == list(alone)
    assert pair["mcnemar"]["p"] == pytest.approx(stats.binomtest(alone[0], sum(alone)).pvalue)
    assert counts["both right"] + alone[0] == round(
        models[0].test["accuracy"] * sum(counts.values())
    )


def test_each_two_of_three_models_are_compared(models, scored):
    third = scored("xception", "Xception", seed=2, quality=1.0, cut=0.4)
    pairs = comparison.compare([*models, third], 50, 0)
    assert [pair["names"] for pair in pairs] == [
        ["baseline_cnn", "resnet50v2"],
        ["baseline_cnn", "xception"],
        ["resnet50v2", "xception"],
    ]
    assert comparison.compare(models[:1], 50, 0) == [] == comparison.compare([], 50, 0)


def test_models_of_other_images_are_not_compared(models, scored):
    turned = scored("other", "Other", cut=0.5, frame=models[1].predictions.iloc[::-1])
    with pytest.raises(ValueError, match="same images"):
        comparison.compare([models[0], turned], 50, 0)


def test_a_comparison_of_earlier_predictions_is_not_read(models, tmp_path):
    run = paths.RunFolder(tmp_path).make()
    run.metrics.write_text(json.dumps({"models": {model.name: model.scores for model in models}}))
    for model in models:
        model.predictions.to_csv(run.predictions(model.name), index=False)
    pairs = comparison.compare(models, 50, 0)
    assert comparison.read(run) == []
    comparison.write(pairs, models, run)
    assert comparison.read(run) == pairs
    run.predictions(models[1].name).write_text("of another training")
    assert comparison.read(run) == []


def test_beyond_a_reference_by_its_own_scores(models):
    part = models[0].part()
    same = comparison.beyond(models[0], part.iloc[::-1], 50, 0)
    assert same["value"] == same["low"] == same["high"] == 0
    blind = comparison.beyond(models[0], part.assign(score=0.7), 50, 0)
    assert blind["reference"] == 0.5
    assert blind["value"] == pytest.approx(models[0].test["auroc"] - 0.5)


def test_one_class_alone_leaves_areas_undefined(models, scored):
    frame = models[0].predictions
    sick = pd.concat([frame[(frame["split"] == "test") & (frame["label"] == "PNEUMONIA")]])
    pair = [scored(name, name, cut=0.5, frame=sick) for name in ("a", "b")]
    (found,) = comparison.compare(pair, 50, 0)
    assert found["differences"]["auroc"]["value"] is None and found["delong"] is None
