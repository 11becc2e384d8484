"""Tables and sentences of the reports, computed from the scores so that none can disagree with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from . import metrics, published
from .audit import Finding
from .images import XRays
from .manifest import LABELS, SCORED_FOLDS, Manifest
from .params import STEPS, model_of
from .paths import RunFolder
from .plots import MODEL_NAMES, SPLIT_NAMES
from .scoring import labels_of
from .sources import Source

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
STANDINGS = {
    "synthetic": "SYNTHETIC data: every image was drawn by this project's phantom; no score of this run says anything about real X-rays.",
    "published": "The published set: its train folder holds as many images of each class as were published.",
    "medmnist": "PneumoniaMNIST: the published images, cropped to the centre and scaled by MedMNIST, with its own train and validation; "
    "patients are not known, so the split and every interval are by image.",
    "own": "These are not the images of the published set; what others reported on that set is not comparable.",
}
NOT_COMPARABLE = {
    "synthetic": "Reported on real X-rays, not comparable: the scores of this run are on SYNTHETIC images.",
    "medmnist": "Only the rows of MedMNIST are on these images; the others are on the published ones, uncropped and larger.",
    "own": "Reported on the published set, not comparable: the scores of this run are on other images.",
}


def standing(kind: str, counts: dict[str, dict[str, int]]) -> str:
    """Return how a data set of a kind of source stands to the published one: ``synthetic``, ``published``, ``medmnist`` or ``own``.

    It is the published one where as many training images of each class are there; a part of the test
    images may be missing, which the sentences then say.
    """
    if kind in ("phantom", "medmnist"):
        return {"phantom": "synthetic", "medmnist": "medmnist"}[kind]
    return "published" if counts.get("train") == published.COUNTS["train"] else "own"


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


def count_table(manifest: Manifest, standing: str) -> pd.DataFrame:
    """Return images per folder and class beside the published counts and the original project's."""
    rows = []
    for split, counts in manifest.counts().items():
        for label in LABELS:
            row = {"folder": split, "class": label, "here": counts[label]}
            if standing == "published":
                row["published"] = published.COUNTS.get(split, {}).get(label, "")
                row["original project"] = published.ORIGINAL_COUNTS.get(split, {}).get(label, "")
            rows.append(row)
    return pd.DataFrame(rows)


def origin_table(source: Source) -> pd.DataFrame:
    """Return where the data comes from and under which terms, in the words of the table of sources."""
    named = vars(source.origin) | {"source": source.kind}
    return pd.DataFrame([{"": key, "this data": named[key]} for key in ("source", "address", "version", "checks", "licence", "citation")])


def about_data(data: XRays, standing: str, audited: list[Finding]) -> list[str]:
    """Return what the counts, the split and the audit say."""
    counts, files = data.manifest.counts(), data.files
    shares = {split: count["PNEUMONIA"] / sum(count.values()) for split, count in counts.items()}
    sentences = [
        f"{len(files)} images are usable and {len(data.manifest.left_out)} files were left out.",
        f"PNEUMONIA makes up {shares['train']:.1%} of train and {shares['test']:.1%} "
        f"of test: a model that always answers PNEUMONIA is right that often.",
    ]
    if standing == "published":
        sentences += [_against_published(split, counts[split]) for split in published.COUNTS if split in counts]
        sentences.append("Where the original project counted one image more in a folder, it had counted the hidden file .DS_Store.")
    if "val" in counts:
        images = sum(counts["val"].values())
        sentences.append(
            f"One image of the published val changes accuracy on it by {100 / images:.1f} points: too coarse to choose anything on."
        )
    train, validation = (files[files["fold"] == fold] for fold in ("train", "validation"))
    shared = len(set(train["patient"]) & set(validation["patient"]))
    sentences.append(
        f"Validation holds {len(validation)} images of {validation['patient'].nunique()} patients, {shared} of whom are also in the "
        f"{len(train)} images that remain for training, as far as file names tell."
    )
    warned = [f"{finding.check} ({finding.says} Remedy: {finding.remedy}.)" for finding in audited if finding.verdict == "warning"]
    return [*sentences, f"The audit warns of {len(warned)} of {len(audited)} things it looked for{':' if warned else '.'}", *warned]


def about_sizes(files: pd.DataFrame) -> list[str]:
    """Return what the sizes of the files say, by split and by class."""
    if len(files[["width", "height"]].drop_duplicates()) == 1:
        width, height = files[["width", "height"]].iloc[0]
        return [f"Every file is {width} x {height} px: whoever passed them on made them so, and their own sizes and aspects are lost."]
    means = files.groupby("split", sort=False)[["width", "height"]].mean()
    sizes = ", ".join(f"{row.width:.0f} x {row.height:.0f} px in {row.Index}" for row in means.itertuples())
    aspect = (files["width"] / files["height"]).groupby(files["label"]).mean()
    return [
        f"The mean size is {sizes}.",
        f"A NORMAL film is {aspect['NORMAL']:.2f} times as wide as high on average, one with PNEUMONIA {aspect['PNEUMONIA']:.2f} times.",
    ]


def about_fits(leaks: pd.DataFrame, fit: str) -> list[str]:
    """Return how much of a film's aspect each way of making it a square lets through."""
    if leaks.empty:
        return [f"All films here have one aspect, so {fit} has none to give away; what each way lets through cannot be measured on them."]
    areas = ", ".join(f"{row.AUROC:.3f} after {row.fit}" for row in leaks.itertuples())
    return [
        f"How well a linear model tells a wide film from a narrow one by 16 x 16 of its pixels, as AUROC: {areas} (0.5 is not at all).",
        f"This run uses {fit}. Squash distorts the chest by the aspect, pad shows it as black bars, and crop cuts the sides of wide films.",
    ]


def audit_table(audited: list[Finding]) -> pd.DataFrame:
    """Return what the audit looked for, its verdict, what it found and the remedy."""
    rows = [[finding.verdict, finding.check, finding.says, finding.remedy] for finding in audited]
    return pd.DataFrame(rows, columns=["verdict", "looked for", "found", "remedy"])


def audit_files(audited: list[Finding]) -> pd.DataFrame:
    """Return the files that the audit names; those joined by = belong together."""
    rows = [[finding.check, finding.verdict, name] for finding in audited for name in finding.files]
    return pd.DataFrame(rows, columns=["looked for", "verdict", "files"])


def _against_published(split: str, counts: dict[str, int]) -> str:
    expected = published.COUNTS[split]
    if counts == expected:
        return f"{split} is complete: {counts['NORMAL']} NORMAL and {counts['PNEUMONIA']} PNEUMONIA, as published."
    return (
        f"{split} is not the published one: {counts['NORMAL']} NORMAL and {counts['PNEUMONIA']} "
        f"PNEUMONIA here, {expected['NORMAL']} and {expected['PNEUMONIA']} published."
    )


def about_model(model: str, entry: dict[str, Any], card: dict[str, Any], standing: str) -> list[str]:
    """Return what a model's scores say, each sentence from the numbers."""
    name, test, validation = MODEL_NAMES[model], entry["test"], entry["validation"]
    (tn, fp), (fn, tp) = test["confusion_matrix"]
    floor = (tp + fn) / test["n"]
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    sentences = [
        f"On the {test['n']} {drawn}test images, {name} reaches an accuracy of "
        f"{with_interval(test, 'accuracy')} and an AUROC of {with_interval(test, 'auroc')}.",
        f"Always answering PNEUMONIA would be right in {floor:.1%} of them: the model is {_points(test['accuracy'] - floor)}.",
        f"At the threshold of {test['threshold']:.3f} ({test['operating_point']}) it calls "
        f"{tp} of {tp + fn} PNEUMONIA and {tn} of {tn + fp} NORMAL {drawn}images correctly.",
        f"From validation to test its accuracy goes from {validation['accuracy']:.3f} to "
        f"{test['accuracy']:.3f} and its AUROC from {validation['auroc']:.3f} to {test['auroc']:.3f}.",
        f"Network: {card['network']}. Weights at the start: {card['weights']}. Trained in {card['precision']}; the best "
        f"epoch of {len(card['history'])} by validation loss was {card['best_epoch']}.",
    ]
    if model == "baseline_cnn" and standing == "published":
        original = published.ORIGINAL[model]
        sentences.insert(
            2, f"The original project's baseline stood on the floor of its test images: {original.accuracy:.1%}, {original.note}."
        )
    half = test["operating_points"]["half"]
    sentences.insert(
        -2,
        f"At a threshold of 0.5 the same scores would give an accuracy of "
        f"{half['accuracy']:.3f} at a specificity of {half['specificity']:.3f}.",
    )
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
            sentences.append(f"In {gap.score} {better} is better by {interval}.")
    for model, entry in models.items():
        before = entry["validation"]["specificity"]
        after = with_interval(entry["test"], "specificity")
        sentences.append(f"{MODEL_NAMES[model]}: specificity goes from {before:.3f} on validation to {after} on test.")
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
