"""How sure scores and their differences are: resampled patients, Wilson, DeLong, McNemar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from . import metrics

QUANTILES = (0.025, 0.975)
REACH = float(norm.ppf(QUANTILES[1]))  # of a 95 % interval, in standard errors


def patient_weights(patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how often each image is in each resample of patients; (resamples, images).

    Patients are taken in sorted order and drawn with replacement by
    ``numpy.random.default_rng(seed)``, all images of a patient together, so that anyone can repeat
    it from the CSV (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).
    """
    names, groups = np.unique(patients.astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return counts[:, groups].astype(np.float64)


def interval(values: np.ndarray) -> list[float] | None:
    """Return the 95 % percentile interval of resampled values; None where all are undefined."""
    values = values[np.isfinite(values)]
    return np.quantile(values, QUANTILES).tolist() if len(values) else None


def weighted_scores(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score many resamples at once, given how often each image is in each, (resamples, n).

    An array, (resamples,), for each score; NaN where a resample leaves it undefined.
    """
    return {
        **weighted_rates(labels, scores, threshold, weights),
        **weighted_areas(labels == 1, scores, weights),
        **weighted_means(labels, scores, weights),
    }


def weighted_means(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return log loss and Brier score of many resamples at once; see `weighted_scores`."""
    whole = weights.sum(axis=1)
    return {
        "loss": weights @ metrics.cross_entropy(labels, scores) / whole,
        "brier": weights @ (scores - labels) ** 2 / whole,
    }


def weighted_rates(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the rates at a threshold of many resamples at once; see `weighted_scores`."""
    sick, called = labels == 1, scores >= threshold
    cells = ~(sick | called), ~sick & called, sick & ~called, sick & called
    tn, fp, fn, tp = (weights @ cell.astype(float) for cell in cells)
    with np.errstate(invalid="ignore"):
        parts = metrics.ratios([[tn, fp], [fn, tp]])
        return {name: part / whole for name, (part, whole) in parts.items()}


def weighted_areas(
    positive: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return AUROC (ties count half) and average precision of many resamples at once."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    hits = np.cumsum(weights * positive[order], axis=1)[:, last_of_tie]
    alarms = np.cumsum(weights * ~positive[order], axis=1)[:, last_of_tie]
    more_hits, more_alarms = (np.diff(counts, axis=1, prepend=0) for counts in (hits, alarms))
    with np.errstate(invalid="ignore", divide="ignore"):
        under = (more_alarms * (2 * hits - more_hits) / 2).sum(axis=1)
        area = under / (hits[:, -1] * alarms[:, -1])
        precision = np.where(hits + alarms > 0, hits / (hits + alarms), 0)
        average_precision = (more_hits * precision).sum(axis=1) / hits[:, -1]
    one_class = (hits[:, -1] == 0) | (alarms[:, -1] == 0)
    area[one_class] = average_precision[one_class] = np.nan
    return {"auroc": area, "auprc": average_precision}


def wilson(part: int, whole: int) -> list[float] | None:
    """Return Wilson's 95 % interval of a share (1927, doi:10.1080/01621459.1927.10502953).

    It takes images for independent, but unlike the bootstrap it holds for a dozen of them, and for
    none wrong. None of nothing.
    """
    if not whole:
        return None
    found = binomtest(part, whole).proportion_ci(method="wilson")
    return [float(found.low), float(found.high)]


@dataclass(frozen=True)
class Estimate:
    """A value that is taken to be normal around the truth, with its standard error."""

    value: float
    error: float

    @property
    def interval(self) -> list[float]:
        """The 95 % interval of a difference, within -1..1."""
        reach = REACH * self.error
        return [max(self.value - reach, -1.0), min(self.value + reach, 1.0)]

    @property
    def interval_of_share(self) -> list[float] | None:
        """The 95 % interval of a value within 0..1.

        Made on the logit scale, which covers better near 1 (Pepe 2003, ch. 5); None at 0 and 1,
        where the formula knows no error, and without an error.
        """
        if not 0 < self.value < 1 or not self.error:
            return None
        reach = REACH * self.error / (self.value * (1 - self.value))
        return [float(expit(logit(self.value) + side * reach)) for side in (-1, 1)]

    @property
    def p(self) -> float:
        """Two-sided p of a truth of 0."""
        if not self.error:
            return float(self.value == 0)
        return float(2 * norm.sf(abs(self.value) / self.error))


def delong(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, less: np.ndarray | None = None
) -> Estimate | None:
    """Return an AUROC, less that of other scores of the same images, and its error.

    DeLong et al. 1988 (doi:10.2307/2531595) as Obuchowski 1997 (doi:10.2307/2533958) made it hold
    for patients with several images; with one each it is DeLong's. None where a class has fewer
    than two patients.
    """
    groups = np.unique(patients.astype(str), return_inverse=True)[1]
    sick = labels == 1
    if min(len(set(groups[sick])), len(set(groups[~sick]))) < 2:
        return None
    shares = _beaten(sick, scores) - (_beaten(sick, less) if less is not None else 0.0)
    area = float(shares[sick].mean())
    variance, sums = 0.0, []
    for rows in (sick, ~sick):
        sums.append(np.bincount(groups[rows], shares[rows] - area, groups.max() + 1))
        count = len(set(groups[rows]))
        variance += count / (count - 1) * (sums[-1] @ sums[-1]) / rows.sum() ** 2
    count = len(set(groups))
    variance += 2 * (count / (count - 1)) * (sums[0] @ sums[1]) / (sick.sum() * (~sick).sum())
    return Estimate(area, float(np.sqrt(max(variance, 0.0))))


def _beaten(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of the other class on whose right side each image is, ties counting half."""
    gap = scores[positive][:, None] - scores[~positive][None, :]
    wins = (gap > 0) + 0.5 * (gap == 0)
    shares = np.empty(len(scores))
    shares[positive], shares[~positive] = wins.mean(axis=1), wins.mean(axis=0)
    return shares


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Return images that the first alone gets right, that the second alone does, two-sided p.

    McNemar 1947 (doi:10.1007/BF02295996), exact; images are taken for independent.
    """
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    return alone, other, float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0
