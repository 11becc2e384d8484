"""The entry of one split in ``metrics.json``: every score of a file of predictions, with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from . import intervals, metrics

# Where the bootstrap covers too little and Wilson's intervals are shown: a share of fewer than so many images, or with fewer than so many
# that are right, or wrong. (At .975 of 195 images of 100 patients it covers 90 %, Wilson's 94 %.)
FEW, FEW_EITHER_WAY = 50, 10
SHOWN_AS = (
    f"95 % intervals in brackets: from resampling patients (images, where patients are not known), and Wilson's by image for a share of "
    f"fewer than {FEW} images, or with fewer than {FEW_EITHER_WAY} right or wrong ones."
)


def evaluate(
    frame: pd.DataFrame,
    thresholds: dict[str, float],
    operating_point: str,
    resamples: int,
    seed: int,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Score the predictions of one split.

    Parameters
    ----------
    frame : DataFrame
        patient, label (NORMAL or PNEUMONIA), subtype and score of each image, in the order of the CSV.
    thresholds : dict
        Threshold of every operating point.
    operating_point : str
        The one whose rates stand at the top.
    resamples : int
        Bootstrap resamples.
    seed : int
        Seed of the bootstrap.
    temperature : float
        By which logits were divided; what the scores were before stands under ``uncalibrated``.

    Returns
    -------
    dict
        The entry of one split in ``metrics.json``; what is undefined is None.
    """
    labels, scores = labels_of(frame), frame["score"].to_numpy(np.float64)
    patients = frame["patient"].to_numpy()
    weights = intervals.patient_weights(patients, resamples, seed)
    chosen = metrics.rates(labels, scores, thresholds[operating_point])
    found = metrics.of_scores(labels, scores) | chosen
    sampled = intervals.weighted_scores(labels, scores, chosen["threshold"], weights)
    area = intervals.delong(labels, scores, patients)
    before = metrics.of_scores(labels, uncalibrated(scores, temperature))
    return {
        "n": len(labels),
        "patients": len(set(patients)),
        **found,
        "operating_point": operating_point,
        "operating_points": {
            name: _operating_point(labels, scores, cut, weights) for name, cut in thresholds.items()
        },
        "ci95": {name: _interval(found[name], sampled[name]) for name in intervals.INTERVALS},
        "wilson95": intervals.wilson_rates(chosen["confusion_matrix"]),
        "delong95": {"auroc": area.interval_of_share if area else None},
        "temperature": temperature,
        "uncalibrated": {name: before[name] for name in ("loss", "brier", "ece")},
        "subtypes": _by_subtype(
            frame["subtype"].to_numpy(), labels, scores, chosen["threshold"], weights
        ),
    }


def labels_of(predictions: pd.DataFrame) -> np.ndarray:
    """Return labels as 1 for PNEUMONIA and 0 for NORMAL."""
    return (predictions["label"] == "PNEUMONIA").to_numpy(np.int64)


def uncalibrated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return the scores as they were before their logits were divided by a temperature."""
    with np.errstate(divide="ignore"):
        return expit(logit(scores) * temperature)


def best_interval(entry: dict[str, Any], score: str) -> list[float] | None:
    """Return the interval to show beside a score of a split, an operating point or a subtype; None where there is none to trust.

    The bootstrap's; Wilson's for shares of few images; none for what is no share where there are fewer than 50
    images or no resample differs from another.
    """
    found, other = entry["ci95"].get(score), entry.get("wilson95", {}).get(score)
    if other:
        right, whole = (
            (entry["right"], entry["n"])
            if score == "rate"
            else metrics.shares(entry["confusion_matrix"])[score]
        )
        return other if whole < FEW or min(right, whole - right) < FEW_EITHER_WAY else found
    return found if found and entry["n"] >= FEW and found[0] < found[1] else None


def _interval(value: float | None, sampled: np.ndarray) -> list[float] | None:
    """The interval of what is defined; a resample may define what the sample itself leaves open."""
    return None if value is None else intervals.interval(sampled)


def _operating_point(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, Any]:
    sampled = intervals.weighted_rates(labels, scores, threshold, weights)
    found = metrics.rates(labels, scores, threshold)
    bounds = {name: _interval(found[name], values) for name, values in sampled.items()}
    return {
        "n": len(labels),
        **found,
        "ci95": bounds,
        "wilson95": intervals.wilson_rates(found["confusion_matrix"]),
    }


def _by_subtype(
    subtypes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    weights: np.ndarray,
) -> dict[str, Any]:
    """For each subtype the images that were called rightly and, for those of PNEUMONIA, the AUROC against all NORMAL."""
    right = (scores >= threshold) == (labels == 1)
    entries = {}
    for subtype in sorted(set(subtypes)):
        rows = subtypes == subtype
        sick = bool(labels[rows].any())
        against = rows | (labels == 0)
        with np.errstate(invalid="ignore"):
            shares = weights[:, rows] @ right[rows].astype(float) / weights[:, rows].sum(axis=1)
        entry: dict[str, Any] = {
            "n": int(rows.sum()),
            "right": int(right[rows].sum()),
            "rate": float(right[rows].mean()),
        }
        entry |= {
            "ci95": {"rate": intervals.interval(shares)},
            "wilson95": {"rate": intervals.wilson(entry["right"], entry["n"])},
        }
        if sick and (labels == 0).any():
            areas = intervals.weighted_areas(
                labels[against] == 1, scores[against], weights[:, against]
            )
            entry["auroc"] = metrics.of_scores(labels[against], scores[against])["auroc"]
            entry["ci95"]["auroc"] = intervals.interval(areas["auroc"])
        entries[subtype] = entry
    return entries
