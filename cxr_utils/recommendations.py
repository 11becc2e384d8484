"""What follows from a run: what more validation data, other networks and augmentation bought here, and what to try next."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.metrics import roc_curve

from . import published
from .evaluation import best_interval, labels_of
from .folds import chosen_on
from .params import MODELS
from .plots import MODEL_NAMES

KINDS = {
    "validation": "More validation data",
    "network": "Other parameters and layers",
    "augmentation": "Augmentation",
    "threshold": "The threshold",
    "next": "What to try next",
}


def recommend(
    models: dict[str, Any], cards: dict[str, Any], gaps: pd.DataFrame, predictions: dict[str, pd.DataFrame], standing: str
) -> dict[str, list[str]]:
    """Return what each of the original project's recommendations bought in this run, and what to try next.

    Parameters
    ----------
    models, cards, predictions : dict
        Both models' scores, cards and predictions.
    gaps : DataFrame
        As `comparison.differences` returns it.
    standing : str
        As `published.standing` returns it.

    Returns
    -------
    dict of list of str
        Title -> sentences.
    """
    found = {
        "validation": _validation(models),
        "network": _network(cards, gaps),
        "augmentation": _augmentation(cards),
        "threshold": [_threshold(model, models[model]["test"], predictions[model]) for model in MODELS],
        "next": _next(models, standing),
    }
    return {KINDS[kind]: sentences for kind, sentences in found.items() if sentences}


def _validation(models: dict[str, Any]) -> list[str]:
    """How much better a choice is founded on our validation than on the sixteen images of ``val``."""
    splits = models[MODELS[0]]
    if not {"val", "validation"} <= set(splits):
        return []
    widths = {}
    for split in ("val", "validation"):
        low, high = best_interval(splits[split], "accuracy")
        widths[split] = high - low
    return [
        f"{MODEL_NAMES[MODELS[0]]}'s accuracy on the {splits['val']['n']} images of val has a 95 % interval {widths['val']:.3f} wide; "
        f"on the {splits['validation']['n']} that were set aside from training by patient it is {widths['validation']:.3f}. Epochs, "
        "temperature and thresholds chosen on val would be chosen on noise.",
        f"Each step of one image on val is {1 / splits['val']['n']:.1%}: nothing should be decided there, and nothing here was.",
    ]


def _network(cards: dict[str, Any], gaps: pd.DataFrame) -> list[str]:
    """What the larger network cost and bought."""
    size = {model: cards[model]["parameters"] for model in MODELS}
    minutes = {model: sum(row["seconds"] for row in cards[model]["history"]) / 60 for model in MODELS}
    gap = gaps.set_index("score").loc["AUROC"]
    sure = "which this test set can tell from nothing" if gap.low > 0 or gap.high < 0 else "which this test set cannot tell from nothing"
    return [
        f"{cards[MODELS[1]]['network']} has {size[MODELS[1]] / size[MODELS[0]]:.0f} times the parameters of the baseline "
        f"({size[MODELS[1]] / 1e6:.1f} against {size[MODELS[0]] / 1e6:.1f} million) and trained for {minutes[MODELS[1]]:.0f} minutes "
        f"against {minutes[MODELS[0]]:.0f}. It changed the test AUROC by {gap.difference:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}), "
        f"{sure}."
    ]


def _augmentation(cards: dict[str, Any]) -> list[str]:
    """How far the gap between plain and shifted validation images was closed."""
    sentences = []
    for model in MODELS:
        history = cards[model]["history"]
        best = history[cards[model]["best_epoch"] - 1]
        if "stress_loss" in best:
            sentences.append(
                f"{MODEL_NAMES[model]}, trained with random changes to the images, has a log loss of {best['validation_loss']:.3f} on "
                f"validation as it is and of {best['stress_loss']:.3f} on copies that were made sharper, darker, wider and so on: the "
                "price of films that look different."
            )
    return [*sentences, "What each kind of augmentation buys is measured by benchmarks/ablation.py, on validation."] if sentences else []


def _threshold(model: str, test: dict[str, Any], frame: pd.DataFrame) -> str:
    """How much of what is lost on test is the threshold's fault, in hindsight."""
    part = frame[frame["split"] == "test"]
    alarms, hits, _ = roc_curve(labels_of(part), part["score"], drop_intermediate=False)
    well, sick = (sum(row) for row in test["confusion_matrix"])
    best = float(((1 - alarms) * well + hits * sick).max() / (well + sick))
    return (
        f"{MODEL_NAMES[model]}: the threshold from validation, {test['threshold']:.3f}, gives an accuracy of {test['accuracy']:.3f} on "
        f"test. In hindsight the best one would have given {best:.3f}; it can be known only afterwards and was not used. What is "
        "missing above that is the ranking's, not the threshold's."
    )


def _next(models: dict[str, Any], standing: str) -> list[str]:
    """Which way the numbers point."""
    drops = []
    for splits in models.values():
        chosen = chosen_on(splits)
        drops.append({name: splits[chosen][name] - splits["test"][name] for name in ("sensitivity", "specificity")})
    worst = max(("sensitivity", "specificity"), key=lambda name: sum(drop[name] for drop in drops))
    size = sum(drop[worst] for drop in drops) / len(drops)
    chosen = chosen_on(models[MODELS[0]])
    sentences = []
    if size > 0:
        label = {"specificity": "NORMAL", "sensitivity": "PNEUMONIA"}[worst]
        sentences.append(
            f"From {chosen} to test both models lose most in {worst}, {size:.3f} on average: {label} films of test look different from "
            f"those of training. More {label} films of other patients, days and machines would be worth more than another network."
        )
    if standing == "published":
        sentences.append(
            "Starting from ImageNet weights (weights: imagenet) at 224 px (params/paper.yaml, on a GPU) is the next thing to try."
        )
        whole = sum(published.COUNTS["test"].values())
        if models[MODELS[0]]["test"]["n"] < whole:
            sentences.append(
                f"For a row that can be compared with others, score all {whole} published test images: python run_all.py --data "
                f"kaggle --run real."
            )
    return sentences
