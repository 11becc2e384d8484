"""What is fitted on validation data after training: the temperature of the scores and the decision thresholds."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.metrics import roc_curve

TEMPERATURES = (
    0.25,
    20.0,
)  # under the first, scores of usual logits run into 1.0 and lose their order


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the log loss (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    logits : ndarray, shape (n,)
        Logits of PNEUMONIA on validation data.
    labels : ndarray, shape (n,)
        1 for PNEUMONIA, 0 for NORMAL.

    Returns
    -------
    float
        In 0.25..20; over 1 where the model was too sure of itself. 1 where the classes are told apart without
        error, as then any temperature would make the model surer of itself, and scores would end up at 0 and 1 alone.
    """
    if logits[labels == 1].min() > logits[labels == 0].max():
        return 1.0
    signs = 2 * labels - 1

    def loss(log_temperature: float) -> float:
        return float(np.mean(np.logaddexp(0, -signs * logits / np.exp(log_temperature))))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return P(PNEUMONIA), in 0..1, of logits at a temperature."""
    return expit(logits / temperature)


def thresholds(
    labels: np.ndarray, scores: np.ndarray, target_sensitivity: float
) -> dict[str, float]:
    """Fix the operating points on validation scores.

    Parameters
    ----------
    labels, scores : ndarray, shape (n,)
        Labels and calibrated scores of the validation data, both classes present.
    target_sensitivity : float
        For the point ``sensitivity``, in (0, 1).

    Returns
    -------
    dict
        ``half``: 0.5. ``youden``: the largest sensitivity + specificity (Youden 1950). ``sensitivity``: the
        highest threshold that reaches the target. Thresholds lie midway between two scores, so that they
        do not hang on one image.
    """
    alarms, hits, cuts = roc_curve(labels, scores, drop_intermediate=False)
    youden = int(np.argmax(hits - alarms))
    target = int(np.argmax(hits >= target_sensitivity))
    return {"half": 0.5, "youden": _midway(cuts, youden), "sensitivity": _midway(cuts, target)}


def _midway(cuts: np.ndarray, index: int) -> float:
    """The middle between a cut and the next lower score; cuts fall, and the first is infinite."""
    upper = min(float(cuts[index]), 1.0)
    lower = float(cuts[index + 1]) if index + 1 < len(cuts) else 0.0
    return (upper + lower) / 2
