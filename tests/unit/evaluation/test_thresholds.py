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
