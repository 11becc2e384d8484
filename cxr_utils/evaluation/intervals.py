"""How sure scores and their differences are: resampled patients, Wilson, DeLong, McNemar."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata

from . import metrics

QUANTILES = (0.025, 0.975)
REACH = float(norm.ppf(QUANTILES[1]))  # of a 95% interval, in standard errors


def patient_weights(patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how often each image is in each resample of patients; (resamples, images).

    Patients are drawn with replacement from their sorted names by ``default_rng(seed)``, so that
    anyone can repeat it (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).
    """
    names, groups = np.unique(patients.astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return counts[:, groups].astype(np.float64)


def interval(values: np.ndarray) -> list[float] | None:
    """Return the 95% percentile interval of resampled values; None where all are undefined."""
    values = values[np.isfinite(values)]
    return np.quantile(values, QUANTILES).tolist() if len(values) else None


def weighted_scores(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each score on many resamples, (resamples,), by their weights; NaN where undefined."""
    rates = weighted_rates(labels, scores, threshold, weights)
    losses = {"loss": metrics.cross_entropy(labels, scores), "brier": (scores - labels) ** 2}
    means = {name: weights @ loss / weights.sum(axis=1) for name, loss in losses.items()}
    return rates | weighted_areas(labels == 1, scores, weights) | means


def weighted_rates(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the rates at a threshold of many resamples; see `weighted_scores`."""
    sick, called = labels == 1, scores >= threshold
    cells = ~(sick | called), ~sick & called, sick & ~called, sick & called
    tn, fp, fn, tp = (weights @ cell.astype(float) for cell in cells)
    ratios = metrics.ratios([[tn, fp], [fn, tp]])
    with np.errstate(invalid="ignore"):
        return {name: part / whole for name, (part, whole) in ratios.items()}


def weighted_areas(
    positive: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return AUROC (ties count half) and average precision of many resamples."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    of_class = positive[order], ~positive[order]
    hits, alarms = (np.cumsum(weights * rows, axis=1)[:, last_of_tie] for rows in of_class)
    more_hits, more_alarms = (np.diff(counts, axis=1, prepend=0) for counts in (hits, alarms))
    with np.errstate(invalid="ignore", divide="ignore"):
        under = (more_alarms * (2 * hits - more_hits) / 2).sum(axis=1)
        area = under / (hits[:, -1] * alarms[:, -1])
        precision = np.where(hits + alarms > 0, hits / (hits + alarms), 0)
        average_precision = (more_hits * precision).sum(axis=1) / hits[:, -1]
    average_precision[np.isnan(area)] = np.nan  # of one class alone neither is defined
    return {"auroc": area, "auprc": average_precision}


def weighted_specificities(
    positive: np.ndarray, scores: np.ndarray, weights: np.ndarray, sensitivities: Sequence[float]
) -> np.ndarray:
    """Return the most specificity that leaves each sensitivity, of many resamples.

    Shape (resamples, sensitivities), at a threshold of each resample's own; NaN where a class is
    missing.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    of_class = positive[order], ~positive[order]
    counts = (np.cumsum(weights[:, order] * rows, axis=1)[:, last_of_tie] for rows in of_class)
    with np.errstate(invalid="ignore"):
        hits, alarms = (count / count[:, -1:] for count in counts)
    first = [np.argmax(hits >= sensitivity - 1e-9, axis=1) for sensitivity in sensitivities]
    found = 1 - np.take_along_axis(alarms, np.transpose(first), axis=1)
    found[np.isnan(hits[:, -1])] = np.nan
    return found


def wilson(part: int, whole: int) -> list[float] | None:
    """Return Wilson's 95% interval of a share (1927, doi:10.1080/01621459.1927.10502953), or None.

    It takes images for independent; unlike the bootstrap it holds for a dozen and for none wrong.
    """
    if not whole:
        return None
    return [float(end) for end in binomtest(part, whole).proportion_ci(method="wilson")]


@dataclass(frozen=True)
class Estimate:
    """A value that is taken to be normal around the truth, with its standard error."""

    value: float
    error: float

    @property
    def interval_of_share(self) -> list[float] | None:
        """The interval of a share, on the logit scale (Pepe 2003, ch. 5); None without an error."""
        if not 0 < self.value < 1 or not self.error:
            return None
        reach = REACH * self.error / (self.value * (1 - self.value))
        return [float(expit(logit(self.value) + side * reach)) for side in (-1, 1)]

    def as_difference(self) -> dict[str, float]:
        """Return value, low and high of its 95% interval within -1..1, and two-sided p of 0."""
        p = float(2 * norm.sf(abs(self.value) / self.error) if self.error else self.value == 0)
        low, high = (self.value + side * REACH * self.error for side in (-1, 1))
        return {"value": self.value, "low": max(low, -1.0), "high": min(high, 1.0), "p": p}


def delong(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, less: np.ndarray | None = None
) -> Estimate | None:
    """Return an AUROC, less that of other scores of the same images, and its error.

    DeLong et al. 1988 (doi:10.2307/2531595) as Obuchowski 1997 (doi:10.2307/2533958) made it hold
    for several images a patient. None where a class has fewer than two patients.
    """
    groups, sick = np.unique(patients.astype(str), return_inverse=True)[1], labels == 1
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
    shares = np.empty(len(scores))
    for rows, ranked in ((positive, scores), (~positive, -scores)):
        shares[rows] = (rankdata(ranked)[rows] - rankdata(ranked[rows])) / (~rows).sum()
    return shares


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Return images that each alone gets right, and p (McNemar 1947, doi:10.1007/BF02295996).

    The test is exact and two-sided, and takes images for independent.
    """
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    return alone, other, float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0
