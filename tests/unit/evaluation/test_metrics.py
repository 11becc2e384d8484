import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from cxr_utils.evaluation import metrics
from cxr_utils.evaluation.results import evaluate


def _sample(seed=0, n=300, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = 1 / (1 + np.exp(-rng.normal(labels * 2 - 1, 1.5)))
    return labels, np.round(scores, 1) if ties else scores


def test_evaluate_agrees_with_scikit_learn():
    labels, scores = _sample()
    frame = pd.DataFrame(
        {
            "patient": np.arange(len(labels)),
            "label": np.where(labels, "PNEUMONIA", "NORMAL"),
            "subtype": "unknown",
            "score": scores,
        }
    )
    entry = evaluate(frame, {"half": 0.5, "youden": 0.7}, "youden", 200, 0)
    assert entry["threshold"] == 0.7
    assert entry["auroc"] == pytest.approx(sk.roc_auc_score(labels, scores))
    assert entry["confusion_matrix"] == sk.confusion_matrix(labels, scores >= 0.7).tolist()
    assert entry["operating_points"]["half"]["accuracy"] == pytest.approx(
        sk.accuracy_score(labels, scores >= 0.5)
    )
    for name, (low, high) in entry["ci95"].items():
        assert low < entry[name] < high


def test_one_class_is_undefined_not_zero():
    frame = pd.DataFrame(
        {
            "patient": ["a", "b"],
            "label": ["NORMAL", "NORMAL"],
            "subtype": ["normal", "normal"],
            "score": [0.1, 0.2],
        }
    )
    entry = evaluate(frame, {"half": 0.5}, "half", 100, 0)
    assert (
        entry["auroc"] is None and entry["sensitivity"] is None and entry["ci95"]["auroc"] is None
    )
    assert entry["specificity"] == 1.0


def test_calibration_error_by_hand():
    labels, scores = np.array([1, 0, 1, 1]), np.array([0.71, 0.72, 0.05, 1.0])
    assert metrics.expected_calibration_error(labels, scores) == pytest.approx(
        (abs(1.43 - 1) + abs(0.05 - 1) + 0) / 4
    )
