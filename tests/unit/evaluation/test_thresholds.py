"""The temperature makes no model surer of itself than it can be; thresholds do what they say."""

import numpy as np
import pytest

from cxr_utils.evaluation import metrics, thresholds


def test_a_separable_validation_gets_no_temperature():
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], 50)
    logits = rng.normal((2 * labels - 1) * 8, 1.0)
    assert thresholds.fit_temperature(logits, labels) == 1.0
    timid = np.where(labels == 1, 0.01, -0.01) * np.where(np.arange(100) == 3, -1, 1)
    assert thresholds.fit_temperature(timid, labels) == pytest.approx(0.25, abs=0.01)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    labels = (rng.uniform(size=logits.size) < 1 / (1 + np.exp(-logits))).astype(int)
    assert thresholds.fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)


def test_operating_points_do_what_they_say():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 2000)
    scores = 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.0)))
    points = thresholds.choose(labels, scores, 0.98)
    youden = max(
        np.mean(scores[labels == 1] >= cut) + np.mean(scores[labels == 0] < cut)
        for cut in np.unique(scores)
    )
    reached = metrics.rates(labels, scores, points["youden"])
    assert reached["sensitivity"] + reached["specificity"] == pytest.approx(youden)
    assert 0.98 <= metrics.rates(labels, scores, points["sensitivity"])["sensitivity"] < 0.982
    assert points["half"] == 0.5


def test_an_image_counts_as_often_as_it_weighs():
    rng = np.random.default_rng(2)
    labels, often = rng.integers(0, 2, 300), rng.integers(1, 6, 300)
    logits = rng.normal(2 * labels - 1, 2.0)
    logits[often > 3] -= 2 * labels[often > 3]  # what weighs more is missed more
    repeated = np.repeat(labels, often), np.repeat(logits, often)
    same = thresholds.fit_temperature(logits, labels, often)
    assert same == pytest.approx(thresholds.fit_temperature(*repeated[::-1]), rel=1e-4)
    assert same != pytest.approx(thresholds.fit_temperature(logits, labels), rel=0.05)
    points, plain = (thresholds.choose(labels, logits, 0.97, by) for by in (often, None))
    assert points == thresholds.choose(*repeated, 0.97)
    assert points["sensitivity"] < plain["sensitivity"]
