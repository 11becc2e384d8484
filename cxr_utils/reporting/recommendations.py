"""What a run can say of the usual recommendations (more validation data, other networks, augmentation), and what to try next."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.metrics import roc_curve

from ..data.sources import REAL_RUN
from ..data.splits import chosen_on
from ..evaluation.results import best_interval, labels_of
from ..parameters import MODELS
from . import published
from .names import MODEL_NAMES

KINDS = {
    "validation": "More validation data",
    "network": "Other parameters and layers",
    "augmentation": "Augmentation",
    "threshold": "The threshold",
    "next": "What to try next",
}


def recommend(
    models: dict[str, Any],
    cards: dict[str, Any],
    gaps: pd.DataFrame,
    predictions: dict[str, pd.DataFrame],
    standing: str,
    augmented: bool,
) -> dict[str, list[str]]:
    """Return what a run can say of each of the usual recommendations, and what to try next.

    Parameters
    ----------
    models, cards, predictions : dict
        Both models' scores, cards and predictions.
    gaps : DataFrame
        As `comparison.differences` returns it.
    standing : str
        As `published.standing` returns it.
    augmented : bool
        Whether training images were changed at random.

    Returns
    -------
    dict of list of str
        Title -> sentences.
    """
    found = {
        "validation": _validation(models),
        "network": _network(cards, gaps),
        "augmentation": _augmentation(models, cards, augmented),
        "threshold": [
            _threshold(model, models[model]["test"], predictions[model]) for model in MODELS
        ],
        "next": _next(models, cards, standing),
    }
    return {KINDS[kind]: sentences for kind, sentences in found.items() if sentences}


def _validation(models: dict[str, Any]) -> list[str]:
    """How much better a choice is founded on our validation than on the sixteen images of ``val``."""
    splits = models[MODELS[0]]
    if (
        not {"val", "validation"} <= set(splits)
        or splits["val"]["n"] >= splits["validation"]["n"] / 4
    ):
        return []
    widths = {}
    for split in ("val", "validation"):
        low, high = best_interval(splits[split], "accuracy") or (0.0, 1.0)
        widths[split] = high - low
    return [
        f"{MODEL_NAMES[MODELS[0]]}'s accuracy on the {splits['val']['n']} images of val has a 95 % interval {widths['val']:.3f} wide, "
        f"and one image is {1 / splits['val']['n']:.1%}; on the {splits['validation']['n']} images that were set aside from training "
        f"by patient it is {widths['validation']:.3f}. Epochs, temperature and thresholds chosen on val would be chosen on noise; "
        "nothing here was."
    ]


def _network(cards: dict[str, Any], gaps: pd.DataFrame) -> list[str]:
    """What the larger network cost and bought, and why that is no test of the architecture."""
    small, large = (cards[model] for model in MODELS)
    minutes = [sum(row["seconds"] for row in card["history"]) / 60 for card in (small, large)]
    gap = gaps.set_index("score").loc["AUROC"]
    sure = "more" if gap["low"] > 0 or gap["high"] < 0 else "no more"
    sentences = [
        f"{large['network']} has {large['parameters'] / small['parameters']:.0f} times the parameters of the baseline "
        f"({large['parameters'] / 1e6:.1f} against {small['parameters'] / 1e6:.1f} million) and trained for {minutes[1]:.0f} minutes "
        f"against {minutes[0]:.0f}. It changed the test AUROC by {gap['difference']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}), "
        f"{sure} than this test set can tell from nothing."
    ]
    reasons = []
    if large["best_epoch"] == len(large["history"]):
        reasons.append(
            f"it was still getting better in the last of its {len(large['history'])} epochs (the baseline had {len(small['history'])})"
        )
    if large["weights"].startswith("random"):
        reasons.append("it started from random weights")
    if reasons:
        sentences.append(
            f"That is no test of the architecture: {' and '.join(reasons)}, at {large['image_size']} px."
        )
    return sentences


def _augmentation(models: dict[str, Any], cards: dict[str, Any], augmented: bool) -> list[str]:
    """How far shifted copies stand in for other films."""
    sentences = []
    for model in MODELS:
        history = cards[model]["history"]
        best = history[cards[model]["best_epoch"] - 1]
        if "stress_loss" in best:
            sentences.append(
                f"{MODEL_NAMES[model]}, trained {'with' if augmented else 'without'} random changes to the images, had a log loss of "
                f"{best['validation_loss']:.3f} on validation as it is, {best['stress_loss']:.3f} on shifted copies (both before "
                f"temperature and flips), and has {models[model]['test']['loss']:.3f} on test."
            )
    if sentences:
        sentences.append(
            "Where test is far above the copies, it differs in ways that they do not stand in for. What each kind of augmentation buys "
            "on validation is measured by benchmarks/ablation.py."
        )
    return sentences


def _threshold(model: str, test: dict[str, Any], frame: pd.DataFrame) -> str:
    """How much of what is lost on test is the threshold's fault, in hindsight."""
    part = frame[frame["split"] == "test"]
    alarms, hits, _ = roc_curve(labels_of(part), part["score"], drop_intermediate=False)
    well, sick = (sum(row) for row in test["confusion_matrix"])
    best = float(((1 - alarms) * well + hits * sick).max() / (well + sick))
    return (
        f"{MODEL_NAMES[model]}: the threshold of {test['threshold']:.3f}, fixed before, gives an accuracy of {test['accuracy']:.3f} on "
        f"test. In hindsight no threshold would exceed {best:.3f}; that one can be known only afterwards and was not used."
    )


def _next(models: dict[str, Any], cards: dict[str, Any], standing: str) -> list[str]:
    """Which way the numbers point; nothing where they were drawn."""
    if standing == "synthetic":
        return ["These images were drawn: what to try next follows from a run on real X-rays only."]
    sentences = []
    for name, label in (("specificity", "NORMAL"), ("sensitivity", "PNEUMONIA")):
        fallen = [MODEL_NAMES[model] for model, splits in models.items() if _fell(splits, name)]
        if fallen:
            sentences.append(
                f"{' and '.join(fallen)} lost {name} from validation to test by more than their intervals allow for chance: {label} "
                f"images of test may differ from those of training. More {label} images of other patients and machines may help more "
                "than another network."
            )
    if standing == "published" and cards[MODELS[1]]["weights"].startswith("random"):
        sentences.append(
            "Start from ImageNet weights (weights: imagenet), at 224 px where there is a GPU (params/paper.yaml)."
        )
    whole = published.TEST_IMAGES
    if standing == "published" and models[MODELS[0]]["test"]["n"] < whole:
        sentences.append(
            f"For a row that can be compared with others, score all {whole} published test images: {REAL_RUN}."
        )
    return sentences


def _fell(splits: dict[str, Any], name: str) -> bool:
    """Whether a rate on test lies below the one on the images that choices were made on, with intervals apart."""
    before, after = (
        best_interval(splits[chosen_on(splits)], name),
        best_interval(splits["test"], name),
    )
    return bool(before and after and after[1] < before[0])
