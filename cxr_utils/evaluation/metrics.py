"""Scores of predictions: every function here maps labels and scores to numbers."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

CLIP = 1e-7  # scores are kept this far from 0 and 1 under the logarithm
BINS = 15  # equal-width bins of the calibration error


def cross_entropy(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the natural-log cross-entropy of each score, clipped to 1e-7."""
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def of_scores(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """Return what needs no threshold; an area is None where a class is missing."""
    both = 0 < labels.sum() < len(labels)
    return {
        "loss": float(np.mean(cross_entropy(labels, scores))),
        "auroc": float(sk.roc_auc_score(labels, scores)) if both else None,
        "auprc": float(sk.average_precision_score(labels, scores)) if both else None,
        "brier": float(np.mean((scores - labels) ** 2)),
        "ece": expected_calibration_error(labels, scores),
    }


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean gap between score and frequency over the bins (arXiv:1706.04599)."""
    index = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    gaps = np.bincount(index, scores - labels, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def reliability(labels: np.ndarray, scores: np.ndarray, bins: int = 6) -> pd.DataFrame:
    """Return mean ``score``, ``images`` and those with ``pneumonia`` of bins of like many images.

    Images of one score stay in one bin, so that there may be fewer.
    """
    index = pd.qcut(scores, bins, labels=False, duplicates="drop")
    frame = pd.DataFrame({"score": scores, "label": labels}).groupby(index)
    return frame.agg(score=("score", "mean"), images=("label", "size"), pneumonia=("label", "sum"))


def rates(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return the rates of PNEUMONIA from a threshold on (None: undefined), [[tn, fp], [fn, tp]]."""
    matrix = sk.confusion_matrix(labels, scores >= threshold, labels=[0, 1]).tolist()
    parts = ratios(matrix)
    found = {name: part / whole if whole else None for name, (part, whole) in parts.items()}
    return {"threshold": float(threshold), **found, "confusion_matrix": matrix}


def ratios(matrix: list[list[Any]]) -> dict[str, tuple[Any, Any]]:
    """Return what is divided by what in every rate, from a confusion matrix."""
    (_, fp), (fn, tp) = matrix
    return shares(matrix) | {"f1": (2 * tp, 2 * tp + fp + fn)}


def shares(matrix: list[list[Any]]) -> dict[str, tuple[Any, Any]]:
    """Return the rates that are shares of images, from a confusion matrix: how many of how many."""
    (tn, fp), (fn, tp) = matrix
    return {
        "accuracy": (tn + tp, tn + fp + fn + tp),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
    }
