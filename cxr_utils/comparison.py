"""What the two models are to each other and to published work: tables and sentences from their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from . import metrics, published, uncertainty
from .evaluation import best_interval, labels_of
from .findings import SCORES, in_place_of, with_interval
from .folds import chosen_on
from .params import MODELS
from .plots import MODEL_NAMES, SPLIT_NAMES

COMPARED = ("accuracy", "auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "f1", "loss", "brier")
LESS_IS_BETTER = ("loss", "brier")
SHOWN = ("accuracy", "auroc", "sensitivity", "specificity")


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
        return [(scores >= cut) == (self.labels == 1) for scores, cut in zip(self.scores, self.thresholds, strict=True)]


def pair(predictions: dict[str, pd.DataFrame], models: dict[str, Any]) -> Pair:
    """Put both models' predictions of test side by side; raises ValueError where they are not of the same images."""
    frames = [predictions[model].query("split == 'test'") for model in MODELS]
    if list(frames[0]["path"]) != list(frames[1]["path"]):
        raise ValueError("the two models were not scored on the same images; run both again")
    scores, cuts = zip(
        *((frame["score"].to_numpy(), models[model]["test"]["threshold"]) for model, frame in zip(MODELS, frames, strict=True)), strict=True
    )
    return Pair(labels_of(frames[0]), frames[0]["patient"].to_numpy(), scores, cuts)


def differences(both: Pair, resamples: int, seed: int) -> pd.DataFrame:
    """Return ResNet50V2 minus baseline on test, with 95 % intervals from a paired bootstrap over patients.

    Both models are scored on the same resamples, so that what is hard for both cancels out.

    Returns
    -------
    DataFrame
        score, difference, low, high; NaN where undefined.
    """
    weights = uncertainty.patient_weights(both.patients, resamples, seed)
    sampled, found = [], []
    for scores, cut in zip(both.scores, both.thresholds, strict=True):
        sampled.append(uncertainty.weighted_scores(both.labels, scores, cut, weights))
        found.append(metrics.of_scores(both.labels, scores) | metrics.rates(both.labels, scores, cut))
    rows = []
    for score in COMPARED:
        interval = uncertainty.interval(sampled[1][score] - sampled[0][score]) or [np.nan, np.nan]
        values = [np.nan if entry[score] is None else entry[score] for entry in found]
        rows.append([SCORES[score], values[1] - values[0], *interval])
    return pd.DataFrame(rows, columns=["score", "difference", "low", "high"])


def about_tests(both: Pair) -> list[str]:
    """Return what two tests that share nothing with the bootstrap say of the same differences."""
    alone, other, p = uncertainty.mcnemar(*both.right)
    names = [MODEL_NAMES[model] for model in MODELS]
    sentences = [
        f"McNemar's test: {alone} images only {names[0]} calls rightly and {other} only {names[1]}; were neither better, a split as "
        f"uneven would come up with p = {p:.3f}. It takes images for independent, which several of one patient are not quite."
    ]
    gap = uncertainty.delong(both.labels, both.scores[1], both.patients, less=both.scores[0])
    if gap:
        low, high = gap.interval
        sentences.append(
            f"DeLong's test, made for patients with several images: AUROC differs by {gap.value:+.4f} (95 % interval {low:+.4f} to "
            f"{high:+.4f}, p = {gap.p:.3f})."
        )
    return sentences


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
        [name, int((rows & (both.labels == 0)).sum()), int((rows & (both.labels == 1)).sum()), int(rows.sum())]
        for name, rows in kinds.items()
    ]
    return pd.DataFrame(rows, columns=["images", "NORMAL", "PNEUMONIA", "all"])


def about_agreement(both: Pair) -> list[str]:
    """Return how alike the answers and the rankings of both models are, and what follows for their errors."""
    answers = [scores >= cut for scores, cut in zip(both.scores, both.thresholds, strict=True)]
    first, second = both.right
    wrong, shared = int((~first | ~second).sum()), int((~first & ~second).sum())
    kappa = cohen_kappa_score(*answers)
    ranks = spearmanr(*both.scores).statistic
    sentences = [f"The models give the same answer to {np.mean(answers[0] == answers[1]):.1%} of the test images."]
    if np.isfinite(kappa) and np.isfinite(ranks):
        sentences[0] = (
            sentences[0][:-1]
            + f" (Cohen's kappa {kappa:.2f}); their scores rank the images alike with a Spearman correlation of {ranks:.2f}."
        )
    if wrong:
        sentences.append(
            f"Of {wrong} images that at least one calls wrongly, both are wrong on {shared}: no vote between the two could mend those."
        )
    return sentences


def published_table(models: dict[str, Any], cards: dict[str, Any], data: dict[str, Any]) -> pd.DataFrame:
    """Return the original project's scores, this run's with intervals, and those of others, each with protocol and caveat.

    Parameters
    ----------
    models : dict
        Model -> split -> scores; empty where this run is not comparable, and then its rows are left out.
    cards : dict
        Model -> its card.
    data : dict
        ``data`` of ``metrics.json``.
    """
    rows = [_published_row(score) for score in published.ORIGINAL.values()]
    for model, splits in models.items():
        test, card = splits["test"], cards[model]
        row = {"who": f"this run, {MODEL_NAMES[model]}{in_place_of(model, card['network'])}", "test images": str(test["n"])}
        row |= {SCORES[score]: with_interval(test, score) for score in SHOWN}
        rows.append(row | {"protocol and caveat": _own_caveat(test, card, data)})
    return pd.DataFrame(rows + [_published_row(score) for score in published.OTHERS])


def _published_row(score: published.Score) -> dict[str, str]:
    row = {"who": score.who, "test images": str(score.images)}
    values = {SCORES[name]: getattr(score, name) for name in SHOWN}
    return (
        row
        | {name: "not given here" if value is None else f"{value:.3f}" for name, value in values.items()}
        | {"protocol and caveat": score.note}
    )


def _own_caveat(test: dict[str, Any], card: dict[str, Any], data: dict[str, Any]) -> str:
    whole = sum(published.COUNTS["test"].values())
    width, height = data["median_size"]
    part = "" if test["n"] == whole else f"only {test['n']} of the {whole} published test images, so not row for row comparable; "
    return (
        f"{part}files of {width} x {height} px (median), seen at {card['image_size']} x {card['image_size']}; weights at the start: "
        f"{card['weights'].split(',')[0]}; threshold from "
        f"{'validation, split by patient' if card['chosen_by'] == 'stress_loss' else 'val'}"
    )


def beside_original(models: dict[str, Any]) -> pd.DataFrame:
    """Return loss and accuracy of each model and split beside what the original project reported for it."""
    rows = []
    for model, splits in models.items():
        original = published.ORIGINAL[model]
        reported = {"val": original.val_accuracy, "test": original.accuracy}
        for split, entry in splits.items():
            found = {"accuracy": with_interval(entry, "accuracy"), "log loss": with_interval(entry, "loss")}
            theirs = {"original's accuracy": reported.get(split), "original's log loss": original.loss if split in reported else None}
            rows.append({"model": MODEL_NAMES[model], "split": SPLIT_NAMES[split], **found, **theirs})
    return pd.DataFrame(rows).astype(object).fillna("not given here")


def conclusion(models: dict[str, Any], gaps: pd.DataFrame, standing: str) -> list[str]:
    """Return which model is better, by how much and how sure that is, and how each stands to its floor and to the original."""
    sentences = [_gap_sentence(gap) for gap in gaps.itertuples() if gap.score in ("accuracy", "AUROC", "specificity")]
    for model, entry in models.items():
        chosen, test = chosen_on(entry), entry["test"]
        floor = sum(test["confusion_matrix"][1]) / test["n"]
        low = best_interval(test, "accuracy")[0]
        sentences.append(
            f"{MODEL_NAMES[model]} is right on {with_interval(test, 'accuracy')} of test, where always answering PNEUMONIA is on "
            f"{floor:.3f}: {'it has learned more than that' if low > floor else 'that is not surely more'}."
        )
        sentences.append(
            f"{MODEL_NAMES[model]}: sensitivity goes from {entry[chosen]['sensitivity']:.3f} on {SPLIT_NAMES[chosen]} to "
            f"{with_interval(test, 'sensitivity')} on test, specificity from {entry[chosen]['specificity']:.3f} to "
            f"{with_interval(test, 'specificity')}."
        )
        if standing == "published":
            sentences.append(_against_original(model, test))
    return sentences


def _gap_sentence(gap: Any) -> str:
    better = MODEL_NAMES["resnet50v2" if gap.difference > 0 else "baseline_cnn"]
    interval = f"{abs(gap.difference):.3f} (95 % interval of ResNet50V2 minus baseline: {gap.low:+.3f} to {gap.high:+.3f})"
    if gap.low <= 0 <= gap.high or not np.isfinite(gap.difference):
        return f"In {gap.score} the two are {interval} apart: this test set cannot tell which is better."
    return f"In {gap.score} {better}, as trained here, is better by {interval}."


def _against_original(model: str, test: dict[str, Any]) -> str:
    original = published.ORIGINAL[model]
    images = sum(published.COUNTS["test"].values())
    gap = test["accuracy"] - original.accuracy
    word = "above" if gap > 0 else "below" if gap < 0 else "at"
    caveat = "" if test["n"] == images else f", though on {test['n']} of its {images} test images, so not row for row"
    return (
        f"{MODEL_NAMES[model]}: test accuracy is {test['accuracy']:.3f}, {abs(gap) * 100:.1f} "
        f"percentage points {word} the original project's {original.accuracy:.3f}{caveat}."
    )


def score_intervals(models: dict[str, Any]) -> pd.DataFrame:
    """Return test scores with their intervals; columns: model, score, value, low, high."""
    rows = []
    for model, splits in models.items():
        for score in SHOWN:
            rows.append([MODEL_NAMES[model], SCORES[score], splits["test"][score], *best_interval(splits["test"], score)])
    return pd.DataFrame(rows, columns=["model", "score", "value", "low", "high"])
