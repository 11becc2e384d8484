"""Tables and sentences about the models, computed from the scores so that none can disagree with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from . import metrics, published
from .folds import chosen_on
from .manifest import SCORED_FOLDS
from .params import STEPS, model_of
from .paths import RunFolder
from .plots import MODEL_NAMES, SPLIT_NAMES
from .scoring import labels_of, read_card

SCORES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
CRITERIA = {"stress_loss": "log loss on the stress validation", "validation_loss": "log loss on the published val"}


def with_interval(entry: dict[str, Any], score: str) -> str:
    """Return a score of ``metrics.json`` as text, with its 95 % interval where it has one."""
    value, interval = entry[score], entry["ci95"].get(score)
    if value is None:
        return "undefined"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{value:.3f}"


def score_table(models: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return all scores of all models, a column for each model and split.

    Parameters
    ----------
    models : dict
        Model -> split -> scores, as in ``metrics.json``.
    """
    columns = {}
    for model, splits in models.items():
        for split in [name for name in SCORED_FOLDS if name in splits]:
            entry = splits[split]
            rows = {"images": str(entry["n"]), **{title: with_interval(entry, score) for score, title in SCORES.items()}}
            rows["threshold"] = f"{entry['threshold']:.3f}"
            columns[(MODEL_NAMES[model], SPLIT_NAMES[split])] = rows
    return pd.DataFrame(columns)


def about_model(model: str, entry: dict[str, Any], card: dict[str, Any], standing: str) -> list[str]:
    """Return what a model's scores say, each sentence from the numbers."""
    chosen = chosen_on(entry)
    name, test, validation = MODEL_NAMES[model], entry["test"], entry[chosen]
    (tn, fp), (fn, tp) = test["confusion_matrix"]
    floor = (tp + fn) / test["n"]
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    sentences = [
        f"On the {test['n']} {drawn}test images, {name} reaches an accuracy of "
        f"{with_interval(test, 'accuracy')} and an AUROC of {with_interval(test, 'auroc')}.",
        f"Always answering PNEUMONIA would be right in {floor:.1%} of them: the model is {_points(test['accuracy'] - floor)}.",
        f"At the threshold of {test['threshold']:.3f} ({test['operating_point']}) it calls "
        f"{tp} of {tp + fn} PNEUMONIA and {tn} of {tn + fp} NORMAL {drawn}images correctly.",
        f"From {SPLIT_NAMES[chosen]} to test its accuracy goes from {validation['accuracy']:.3f} to "
        f"{test['accuracy']:.3f} and its AUROC from {validation['auroc']:.3f} to {test['auroc']:.3f}.",
        f"Network: {card['network']}{_in_place_of(model, card['network'])}. Weights at the start: {card['weights']}. "
        f"Trained in {card['precision']}; the best "
        f"epoch of {len(card['history'])} by {CRITERIA[card['chosen_by']]} was {card['best_epoch']}.",
    ]
    head = card.get("head")
    if head:
        sentences.append(
            f"First the head alone was trained, for {head['epochs']} epochs on features computed once; that gave a log loss of "
            f"{head['validation_loss']:.3f} on {SPLIT_NAMES[chosen]}. Then all layers but batch norm were trained, the early ones least."
        )
    half = test["operating_points"]["half"]
    sentences.insert(
        3,
        f"At a threshold of 0.5 the same scores would give an accuracy of "
        f"{half['accuracy']:.3f} at a specificity of {half['specificity']:.3f}.",
    )
    return sentences


def about_networks(models: dict[str, Any], run: RunFolder) -> list[str]:
    """Say where another backbone stands in the place that a model's name speaks of."""
    found = [(model, read_card(model, run)["network"]) for model in models if run.model_card(model).is_file()]
    return [
        f"The network of this run is {network}{_in_place_of(model, network)}." for model, network in found if _in_place_of(model, network)
    ]


def _in_place_of(model: str, network: str) -> str:
    """Say so where the parameters put another backbone in the place that a model's name speaks of."""
    name = MODEL_NAMES[model]
    return (
        f", in the place of {name}: wherever this run says {name}, it means {network}" if model == "resnet50v2" and network != name else ""
    )


def about_floor(test: dict[str, Any], standing: str) -> list[str]:
    """Return what answering PNEUMONIA for every image gives, who stood on that floor, and whether this model does."""
    (tn, fp), (fn, tp) = test["confusion_matrix"]
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    sentences = []
    if standing == "published":
        sick, images = published.COUNTS["test"]["PNEUMONIA"], sum(published.COUNTS["test"].values())
        original = published.ORIGINAL["baseline_cnn"]
        sentences.append(
            f"Of the {images} published test images {sick} are PNEUMONIA. Who answers PNEUMONIA for every image is right in "
            f"{sick}/{images} = {sick / images:.1%}, at a specificity of 0 and an AUROC of 0.5: nothing has been "
            f"learned. The original project's baseline reported just that, {original.accuracy:.1%}, with a log loss of {original.loss}."
        )
    sentences.append(
        f"On the {test['n']} {drawn}test images of this run the same answer would be right in {(tp + fn) / test['n']:.1%}. "
        f"This model answers PNEUMONIA for {fp + tp} of them and NORMAL for {tn + fn}."
    )
    if not tn + fn:
        sentences.append("It stands on that floor: its accuracy is the share of PNEUMONIA, whatever its AUROC says.")
    return sentences


def _points(difference: float) -> str:
    word = "above" if difference > 0 else "below"
    return f"{abs(difference) * 100:.1f} percentage points {word} that floor" if difference else "exactly at that floor"


def differences(predictions: dict[str, pd.DataFrame], models: dict[str, dict[str, Any]], resamples: int, seed: int) -> pd.DataFrame:
    """Return the differences on test between the two models, with 95 % intervals from a paired bootstrap over patients.

    Both models are scored on the same resamples, so that what is hard for both cancels out.

    Returns
    -------
    DataFrame
        score, difference, low, high; ResNet50V2 minus baseline. Empty unless both models are there.
    """
    columns = ["score", "difference", "low", "high"]
    if len(predictions) < 2:
        return pd.DataFrame(columns=columns)
    first, second = ("baseline_cnn", "resnet50v2")
    frames = {model: predictions[model].query("split == 'test'") for model in (first, second)}
    if list(frames[first]["path"]) != list(frames[second]["path"]):
        raise ValueError("the two models were not scored on the same images; run both again")
    weights = metrics.patient_weights(frames[first]["patient"].to_numpy(), resamples, seed)
    sampled = {
        model: metrics.weighted_scores(labels_of(frame), frame["score"].to_numpy(), models[model]["test"]["threshold"], weights)
        for model, frame in frames.items()
    }
    rows = []
    for score in ("accuracy", "auroc", "sensitivity", "specificity"):
        low, high = np.nanquantile(sampled[second][score] - sampled[first][score], (0.025, 0.975))
        rows.append([SCORES[score], models[second]["test"][score] - models[first]["test"][score], low, high])
    return pd.DataFrame(rows, columns=columns)


def about_both(models: dict[str, dict[str, Any]], gaps: pd.DataFrame, standing: str) -> list[str]:
    """Return the conclusion: which model is better, by how much, how sure that is, and what the threshold costs."""
    sentences = []
    for gap in gaps.itertuples():
        if gap.score not in ("accuracy", "AUROC"):
            continue
        better = MODEL_NAMES["resnet50v2" if gap.difference > 0 else "baseline_cnn"]
        interval = f"{abs(gap.difference):.3f} (95 % interval of ResNet50V2 minus baseline: {gap.low:+.3f} to {gap.high:+.3f})"
        if gap.low <= 0 <= gap.high:
            sentences.append(f"In {gap.score} the two are {interval} apart: this test set cannot tell which is better.")
        else:
            sentences.append(f"In {gap.score} {better}, as trained here, is better by {interval}.")
    for model, entry in models.items():
        chosen = chosen_on(entry)
        before = entry[chosen]["specificity"]
        after = with_interval(entry["test"], "specificity")
        sentences.append(f"{MODEL_NAMES[model]}: specificity goes from {before:.3f} on {SPLIT_NAMES[chosen]} to {after} on test.")
        if standing == "published":
            sentences.append(_against_original(model, entry["test"]))
    return sentences


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


def beside_original(models: dict[str, dict[str, Any]]) -> pd.DataFrame:
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


def published_table() -> pd.DataFrame:
    """Return the original project's scores and those of others, each with its protocol."""
    rows = [vars(score) for score in (*published.ORIGINAL.values(), *published.OTHERS)]
    return (
        pd.DataFrame(rows)
        .rename(columns={"auroc": "AUROC", "note": "protocol", "val_accuracy": "accuracy on val", "loss": "log loss"})
        .astype(object)
        .fillna("not given here")
    )


def verdict(models: dict[str, dict[str, Any]], standing: str) -> list[str]:
    """Return, for each model, its scores on test and whether it beats always answering PNEUMONIA."""
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    sentences = []
    for model, splits in models.items():
        test = splits["test"]
        floor = sum(test["confusion_matrix"][1]) / test["n"]
        scores = ", ".join(f"{SCORES[score]} {with_interval(test, score)}" for score in ("accuracy", "auroc", "sensitivity", "specificity"))
        sentences.append(
            f"{MODEL_NAMES[model]} on {test['n']} {drawn}test images: {scores}. "
            f"Always answering PNEUMONIA would be right in {floor:.1%}: the model is {_points(test['accuracy'] - floor)}."
        )
    return sentences


def about_splits(known: dict[str, Any]) -> str:
    """Return what the splits in the table are and where the intervals come from, from ``metrics.json``."""
    splits = next(iter(known["models"].values()))
    bootstrap, val = known["bootstrap"], sum(known["data"]["counts"].get("val", {}).values())
    sentences = [
        f"95 % intervals in brackets, from {bootstrap['resamples']} resamples of {bootstrap['unit']}s. The positive class is PNEUMONIA.",
        f"Every choice was made on {'shifted copies of ' if 'validation' in splits else ''}“{SPLIT_NAMES[chosen_on(splits)]}”; "
        "test was scored only.",
    ]
    if "validation" in splits and val:
        sentences.append(f"“{SPLIT_NAMES['val']}” is the published folder of {val} images, scored only as well.")
    return " ".join(sentences)


def about_missing(models: dict[str, Any], run: RunFolder) -> list[str]:
    """Return what to run first where a model has not been scored in this run folder."""
    return [
        f"No predictions of {MODEL_NAMES[model]} in {run.root.name}. Run the notebook "
        f"{step} first, or: python run_all.py --run {run.root.name} --from {step}"
        for model, step in ((model_of(step), step) for step in STEPS if model_of(step))
        if model not in models
    ]


def score_intervals(models: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return test scores with their intervals; columns: model, score, value, low, high."""
    rows = []
    for model, splits in models.items():
        for score in ("accuracy", "auroc", "sensitivity", "specificity"):
            rows.append([MODEL_NAMES[model], SCORES[score], splits["test"][score], *splits["test"]["ci95"][score]])
    return pd.DataFrame(rows, columns=["model", "score", "value", "low", "high"])
