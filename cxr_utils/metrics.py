"""Scores of predictions, and how sure they are: everything here is a function of labels, scores and patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

CLIP = 1e-7  # scores are kept this far from 0 and 1 under the logarithm
BINS = 15  # equal-width bins of the calibration error
INTERVALS = ("accuracy", "sensitivity", "specificity", "auroc", "auprc", "loss", "brier")


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Natural-log cross-entropy of scores clipped to 1e-7."""
    return float(np.mean(_cross_entropy(labels, scores)))


def _cross_entropy(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int = BINS) -> float:
    """Mean gap between score and frequency over equal-width bins (Guo et al. 2017, arXiv:1706.04599)."""
    index = np.clip((scores * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(index, scores - labels, bins)
    return float(np.abs(gaps).sum() / len(labels))


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> list[list[int]]:
    """Return [[tn, fp], [fn, tp]] with PNEUMONIA, score >= threshold, as the positive class."""
    return sk.confusion_matrix(labels, scores >= threshold, labels=[0, 1]).tolist()


def rates(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return accuracy, sensitivity, specificity and the confusion matrix at a threshold; None where undefined."""
    matrix = confusion(labels, scores, threshold)
    (tn, fp), (fn, tp) = matrix
    return {
        "threshold": float(threshold),
        "accuracy": _ratio(tn + tp, len(labels)),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "confusion_matrix": matrix,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def evaluate(frame: pd.DataFrame, thresholds: dict[str, float], operating_point: str, resamples: int, seed: int) -> dict[str, Any]:
    """Score the predictions of one split.

    Parameters
    ----------
    frame : DataFrame
        patient, label (NORMAL or PNEUMONIA) and score of each image, in the order of the CSV.
    thresholds : dict
        Threshold of every operating point.
    operating_point : str
        The one whose rates stand at the top.
    resamples : int
        Bootstrap resamples.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        The entry of one split in ``metrics.json``; what is undefined is None.
    """
    labels = (frame["label"] == "PNEUMONIA").to_numpy(np.int64)
    scores = frame["score"].to_numpy(np.float64)
    both = 0 < labels.sum() < len(labels)
    chosen = rates(labels, scores, thresholds[operating_point])
    intervals = bootstrap(labels, scores, frame["patient"].to_numpy(), chosen["threshold"], resamples, seed)
    return {
        "n": len(labels),
        "loss": log_loss(labels, scores),
        "auroc": float(sk.roc_auc_score(labels, scores)) if both else None,
        "auprc": float(sk.average_precision_score(labels, scores)) if both else None,
        "brier": float(np.mean((scores - labels) ** 2)),
        "ece": expected_calibration_error(labels, scores),
        **chosen,
        "operating_point": operating_point,
        "operating_points": {name: rates(labels, scores, threshold) for name, threshold in thresholds.items()},
        "ci95": intervals,
    }


def bootstrap(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, threshold: float, resamples: int, seed: int
) -> dict[str, list[float] | None]:
    """95 % percentile intervals from resampling patients with replacement, all images of a patient together.

    Patients are taken in sorted order and drawn by ``numpy.random.default_rng(seed)``, so that anyone
    can repeat it from the CSV (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).

    Returns
    -------
    dict
        [low, high] of each name in `INTERVALS`; None where a resample may leave it undefined throughout.
    """
    samples = weighted_scores(labels, scores, threshold, patient_weights(patients, resamples, seed))
    return {name: _interval(samples[name]) for name in INTERVALS}


def patient_weights(patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how often each image is in each resample of patients; float64, shape (resamples, images)."""
    names, groups = np.unique(patients.astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return counts[:, groups].astype(np.float64)


def _interval(values: np.ndarray) -> list[float] | None:
    values = values[np.isfinite(values)]
    return np.quantile(values, (0.025, 0.975)).tolist() if len(values) else None


def weighted_scores(labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of many resamples at once.

    Parameters
    ----------
    labels, scores : ndarray, shape (n,)
        Labels in 0..1 and scores.
    threshold : float
        Decision threshold.
    weights : ndarray, shape (resamples, n)
        How often each image is in each resample.

    Returns
    -------
    dict of ndarray, shape (resamples,)
        NaN where a resample lacks a class.
    """
    positive, called = labels == 1, scores >= threshold

    def mean(values: np.ndarray, among: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (weights[:, among] @ values[among]) / weights[:, among].sum(axis=1)

    everyone = np.ones_like(positive)
    return {
        "accuracy": mean((called == positive).astype(float), everyone),
        "sensitivity": mean(called.astype(float), positive),
        "specificity": mean((~called).astype(float), ~positive),
        "loss": mean(_cross_entropy(labels, scores), everyone),
        "brier": mean((scores - labels) ** 2, everyone),
        **_weighted_areas(positive, scores, weights),
    }


def _weighted_areas(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Area under the ROC curve (ties count half) and average precision, for each row of weights."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    hits = np.cumsum(weights * positive[order], axis=1)[:, last_of_tie]
    alarms = np.cumsum(weights * ~positive[order], axis=1)[:, last_of_tie]
    hits_before = np.pad(hits[:, :-1], ((0, 0), (1, 0)))
    alarms_before = np.pad(alarms[:, :-1], ((0, 0), (1, 0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((alarms - alarms_before) * (hits + hits_before) / 2).sum(axis=1) / (hits[:, -1] * alarms[:, -1])
        precision = np.where(hits + alarms > 0, hits / (hits + alarms), 0)
        average_precision = ((hits - hits_before) * precision).sum(axis=1) / hits[:, -1]
    one_class = (hits[:, -1] == 0) | (alarms[:, -1] == 0)
    area[one_class] = average_precision[one_class] = np.nan
    return {"auroc": area, "auprc": average_precision}
