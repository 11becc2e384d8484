"""What the two models are to each other: tables and sentences from their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from ..data.splits import chosen_on
from ..evaluation import intervals, metrics
from ..evaluation.results import best_interval, labels_of
from ..parameters import MODELS
from . import published
from .findings import number, with_interval
from .names import MODEL_NAMES, SCORES, SHOWN, SPLIT_NAMES

COMPARED = (
    "accuracy",
    "auroc",
    "auprc",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "loss",
    "brier",
)


@dataclass(frozen=True)
class Pair:
    """Both models on the same test images.

    Parameters
    ----------
    labels, patients : ndarray, shape (n,)
        1 for PNEUMONIA, and whose image each is.
    scores : tuple of ndarray, shape (n,)
        Of the baseline and of ResNet50V2.
    thresholds : tuple of float
        In the same order.
    """

    labels: np.ndarray
    patients: np.ndarray
    scores: tuple[np.ndarray, np.ndarray]
    thresholds: tuple[float, float]

    @property
    def right(self) -> list[np.ndarray]:
        """Which images each model calls rightly; bool, shape (n,)."""
        return [
            (scores >= cut) == (self.labels == 1)
            for scores, cut in zip(self.scores, self.thresholds, strict=True)
        ]


def pair(predictions: dict[str, pd.DataFrame], models: dict[str, Any]) -> Pair:
    """Put both models' predictions of test side by side; raises ValueError where they are not of the same images."""
    frames = [predictions[model].query("split == 'test'") for model in MODELS]
    if list(frames[0]["path"]) != list(frames[1]["path"]):
        raise ValueError("the two models were not scored on the same images; run both again")
    first, second = (frame["score"].to_numpy() for frame in frames)
    cuts = models[MODELS[0]]["test"]["threshold"], models[MODELS[1]]["test"]["threshold"]
    return Pair(labels_of(frames[0]), frames[0]["patient"].to_numpy(), (first, second), cuts)


def differences(both: Pair, resamples: int, seed: int) -> pd.DataFrame:
    """Return ResNet50V2 minus baseline on test, with 95 % intervals from a paired bootstrap over patients.

    Both models are scored on the same resamples, so that what is hard for both cancels out.

    Returns
    -------
    DataFrame
        score, difference, low, high; NaN where undefined.
    """
    weights = intervals.patient_weights(both.patients, resamples, seed)
    sampled, found = [], []
    for scores, cut in zip(both.scores, both.thresholds, strict=True):
        sampled.append(intervals.weighted_scores(both.labels, scores, cut, weights))
        found.append(
            metrics.of_scores(both.labels, scores) | metrics.rates(both.labels, scores, cut)
        )
    rows = []
    for score in COMPARED:
        interval = intervals.interval(sampled[1][score] - sampled[0][score]) or [np.nan, np.nan]
        values = [np.nan if entry[score] is None else entry[score] for entry in found]
        rows.append([SCORES[score], values[1] - values[0], *interval])
    return pd.DataFrame(rows, columns=["score", "difference", "low", "high"])


def about_tests(both: Pair) -> list[str]:
    """Return what two tests that share nothing with the bootstrap say of the same differences."""
    alone, other, p = intervals.mcnemar(*both.right)
    names = [MODEL_NAMES[model] for model in MODELS]
    sentences = [
        f"McNemar's test: {alone} images only {names[0]} calls rightly and {other} only {names[1]}; for two equally good models "
        f"{_p(p)}. It takes images for independent, which several of one patient are not quite."
    ]
    gap = intervals.delong(both.labels, both.scores[1], both.patients, less=both.scores[0])
    if gap:
        low, high = gap.interval
        sentences.append(
            f"DeLong's test, made for patients with several images: AUROC differs by {gap.value:+.4f} (95 % interval {low:+.4f} to "
            f"{high:+.4f}, {_p(gap.p)})."
        )
    return sentences


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def agreement(both: Pair) -> pd.DataFrame:
    """Return on how many test images of each class both, one or none of the models is right."""
    first, second = both.right
    kinds = {
        "both right": first & second,
        f"only {MODEL_NAMES[MODELS[0]]} right": first & ~second,
        f"only {MODEL_NAMES[MODELS[1]]} right": second & ~first,
        "both wrong": ~first & ~second,
    }
    rows = [
        [
            name,
            int((rows & (both.labels == 0)).sum()),
            int((rows & (both.labels == 1)).sum()),
            int(rows.sum()),
        ]
        for name, rows in kinds.items()
    ]
    return pd.DataFrame(rows, columns=["images", "NORMAL", "PNEUMONIA", "all"])


def about_agreement(both: Pair) -> list[str]:
    """Return how alike the answers and the rankings of both models are, and what follows for their errors."""
    answers = [scores >= cut for scores, cut in zip(both.scores, both.thresholds, strict=True)]
    first, second = both.right
    wrong, shared = int((~first | ~second).sum()), int((~first & ~second).sum())
    kappa = cohen_kappa_score(*answers) if len(set(np.concatenate(answers))) > 1 else np.nan
    ranks = spearmanr(*both.scores).statistic
    alike = f"The models give the same answer to {np.mean(answers[0] == answers[1]):.1%} of the test images"
    if np.isfinite(kappa) and np.isfinite(ranks):
        alike += f" (Cohen's kappa {kappa:.2f}); their scores rank the images alike with a Spearman correlation of {ranks:.2f}"
    sentences = [f"{alike}."]
    if wrong:
        sentences.append(
            f"Of {wrong} images that at least one calls wrongly, both are wrong on {shared}: no vote between the two could mend those."
        )
    return sentences


def score_intervals(models: dict[str, Any]) -> pd.DataFrame:
    """Return test scores with their intervals; columns: model, score, value, low, high."""
    rows = []
    for model, splits in models.items():
        for score in SHOWN:
            rows.append(
                [
                    MODEL_NAMES[model],
                    SCORES[score],
                    splits["test"][score],
                    *(best_interval(splits["test"], score) or (np.nan, np.nan)),
                ]
            )
    return pd.DataFrame(rows, columns=["model", "score", "value", "low", "high"])


def conclusion(models: dict[str, Any], gaps: pd.DataFrame) -> list[str]:
    """Return which model is better, how sure that is, what each costs in errors, and how they went from validation to test."""
    compared = gaps.set_index("score")
    sentences = [_gap_sentence(score, compared.loc[score]) for score in ("accuracy", "AUROC")]
    errors = []
    for model, splits in models.items():
        (tn, fp), (fn, tp) = splits["test"]["confusion_matrix"]
        errors.append(
            f"{MODEL_NAMES[model]} raises {fp} false alarms on {tn + fp} NORMAL images and misses {fn} of {tp + fn} PNEUMONIA"
        )
    sentences.append(f"Each at its own threshold, {' and '.join(errors)}.")
    for model, entry in models.items():
        chosen, test = chosen_on(entry), entry["test"]
        floor, interval = (
            sum(test["confusion_matrix"][1]) / test["n"],
            best_interval(test, "accuracy"),
        )
        learned = interval and interval[0] > floor
        sentences.append(
            f"{MODEL_NAMES[model]}: accuracy {with_interval(test, 'accuracy')} where always answering PNEUMONIA gives "
            f"{floor:.3f}{'' if learned else ', which is not surely more'}. From {SPLIT_NAMES[chosen]} to test sensitivity goes from "
            f"{number(entry[chosen], 'sensitivity')} to {with_interval(test, 'sensitivity')}, specificity from "
            f"{number(entry[chosen], 'specificity')} to {with_interval(test, 'specificity')}, AUROC from "
            f"{number(entry[chosen], 'auroc')} to {with_interval(test, 'auroc')}."
        )
    return sentences


def _better(gap: pd.Series) -> str:
    return MODEL_NAMES["resnet50v2" if gap["difference"] > 0 else "baseline_cnn"]


def _gap_sentence(score: str, gap: pd.Series) -> str:
    if not np.isfinite(gap["difference"]):
        return f"In {score} the two cannot be compared: it is undefined on this test set."
    interval = f"{abs(gap['difference']):.3f} (95 % interval of ResNet50V2 minus baseline: {gap['low']:+.3f} to {gap['high']:+.3f})"
    if gap["low"] <= 0 <= gap["high"]:
        return (
            f"In {score} the two are {interval} apart: this test set cannot tell which is better."
        )
    return f"In {score} {_better(gap)}, as trained here, is better by {interval}. One seed each: another one may turn that."


def verdict(
    models: dict[str, Any], floors: dict[str, Any], gaps: pd.DataFrame | None, standing: str
) -> list[str]:
    """Return in plain words what the models do on test, which is better, what it is worth, and on what it stands."""
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    sentences = []
    for model, splits in models.items():
        (tn, fp), (fn, tp) = splits["test"]["confusion_matrix"]
        sentences.append(
            f"{MODEL_NAMES[model]} finds {tp} of {tp + fn} {drawn}PNEUMONIA and calls {fp} of {tn + fp} {drawn}NORMAL images "
            f"PNEUMONIA: accuracy {with_interval(splits['test'], 'accuracy')}, AUROC {with_interval(splits['test'], 'auroc')}."
        )
    if gaps is not None:
        compared = gaps.set_index("score")
        told = []
        for score in ("accuracy", "AUROC"):
            if compared.loc[score, "low"] > 0 or compared.loc[score, "high"] < 0:
                told.append(f"{_better(compared.loc[score])} is better in {score}")
        sentences.append(
            f"Between the two: {', '.join(told)}, by one training of each."
            if told
            else "This test set cannot tell which of the two is better."
        )
    if models:
        sentences.append(_worth(models, floors, standing))
    return sentences


def _worth(models: dict[str, Any], floors: dict[str, Any], standing: str) -> str:
    """What the scores stand above, and for whom they are."""
    test = next(iter(models.values()))["test"]
    share = sum(test["confusion_matrix"][1]) / test["n"]
    above = (
        f"Without looking at the lungs, always answering PNEUMONIA has an accuracy of {share:.3f}"
    )
    if "metadata" in floors and floors["metadata"]["test"]["auroc"] is not None:
        above += f", and the files' metadata alone give an AUROC of {with_interval(floors['metadata']['test'], 'auroc')}"
    whole = published.TEST_IMAGES
    part = (
        f" {test['n']} of the {whole} published test images were scored."
        if standing == "published" and test["n"] != whole
        else ""
    )
    return f"{above}.{part} {'These are drawings, not radiographs.' if standing == 'synthetic' else 'Not for clinical use.'}"


def about_decision_curve(predictions: dict[str, pd.DataFrame]) -> list[str]:
    """Return where acting on each model's scores beats calling all or none, and what it gains at a cut of 0.2."""
    sentences, cuts = [], metrics.CUTS
    for model, frame in predictions.items():
        part = frame[frame["split"] == "test"]
        labels, scores = labels_of(part), part["score"].to_numpy()
        own, all_called = (
            metrics.net_benefit(labels, scores, cuts),
            metrics.net_benefit(labels, np.ones(len(labels)), cuts),
        )
        useful = cuts[own > np.maximum(all_called, 0) + 1e-12]
        gain = 100 * (own - np.maximum(all_called, 0))[cuts == 0.2][0]
        reach = f"from {useful[0]:.0%} to {useful[-1]:.0%}" if len(useful) else "nowhere"
        gaps = (
            ", with gaps"
            if len(useful) and len(useful) <= round(100 * (useful[-1] - useful[0]))
            else ""
        )
        sentences.append(
            f"{MODEL_NAMES[model]} is above both {reach}{gaps}; at 20 % it is worth {gain:+.1f} true positives in 100 images over the "
            "better of both."
        )
    return sentences
