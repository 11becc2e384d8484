"""Tables and sentences about the models, computed from the scores so that none can disagree with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..data.dataset import Split
from ..data.sources import COUNTS
from ..data.splits import chosen_on
from ..evaluation.results import FEW, FEW_EITHER_WAY, best_interval, read_card
from ..parameters import STEPS, model_of
from ..paths import RunFolder
from . import published
from .names import FLOOR_NAMES, KIND_NAMES, MODEL_NAMES, POINT_NAMES, SCORES, SHOWN, SPLIT_NAMES

BRIEF = (*SHOWN, "ppv", "npv")
CRITERIA = {
    "stress_loss": "log loss on the stress validation",
    "validation_loss": "log loss on val",
}


def with_interval(entry: dict[str, Any], score: str) -> str:
    """Return a score of ``metrics.json`` as text, with its 95 % interval where it has one."""
    value, interval = entry[score], best_interval(entry, score)
    if value is None:
        return "undefined"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{value:.3f}"


def number(entry: dict[str, Any], score: str) -> str:
    """Return a score of ``metrics.json`` as text, without its interval."""
    return "undefined" if entry[score] is None else f"{entry[score]:.3f}"


def score_table(
    models: dict[str, Any], floors: dict[str, Any], splits: Sequence[str], brief: bool = False
) -> pd.DataFrame:
    """Return all scores of all models and floors, a column for each and split.

    Parameters
    ----------
    models, floors : dict
        Name -> split -> scores, as in ``metrics.json``.
    splits : sequence of str
        Which splits, in this order; those that are not there are left out.
    brief : bool
        Leave out what only a statistician misses.
    """
    columns = {}
    for split in splits:
        for name, entries in {**models, **floors}.items():
            if split in entries:
                entry = entries[split]
                rows = {"images": str(entry["n"]), "patients": str(entry["patients"] or "unknown")}
                rows |= {title: with_interval(entry, score) for score, title in SCORES.items()}
                area = entry["delong95"]["auroc"]
                rows["AUROC by DeLong"] = f"[{area[0]:.3f}, {area[1]:.3f}]" if area else "undefined"
                rows["threshold"] = f"{entry['threshold']:.3f}"
                name = (MODEL_NAMES | FLOOR_NAMES)[name]
                columns[(name, SPLIT_NAMES[split]) if len(splits) > 1 else name] = rows
    table = pd.DataFrame(columns)
    return (
        table.loc[["images", "patients", *(SCORES[score] for score in BRIEF)]] if brief else table
    )


def matrix_title(model: str, split: str) -> str:
    """Return the title of a confusion matrix."""
    return f"{MODEL_NAMES[model]}, {SPLIT_NAMES[split]}: confusion matrix"


def matrix_in_words(entry: dict[str, Any]) -> str:
    """Return the counts of a confusion matrix, as alt text."""
    (tn, fp), (fn, tp) = entry["confusion_matrix"]
    return f"{tn} true negatives, {fp} false positives, {fn} false negatives, {tp} true positives."


def operating_point_table(entry: dict[str, Any]) -> pd.DataFrame:
    """Return the rates of one split at each operating point."""
    rows = []
    for name, point in entry["operating_points"].items():
        in_use = " (in use)" if name == entry["operating_point"] else ""
        row = {
            "operating point": POINT_NAMES[name] + in_use,
            "threshold": f"{point['threshold']:.3f}",
        }
        for score in ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1"):
            row[SCORES[score]] = with_interval(point, score)
        rows.append(row)
    return pd.DataFrame(rows)


def calibration_table(splits: dict[str, Any]) -> pd.DataFrame:
    """Return log loss, Brier score and calibration error of each split before and after calibration."""
    rows = []
    for split, entry in splits.items():
        row = {}
        for score in ("loss", "brier", "ece"):
            row[SCORES[score], "before"] = entry["uncalibrated"][score]
            row[SCORES[score], "after"] = entry[score]
        rows.append(pd.Series(row, name=SPLIT_NAMES[split]))
    return pd.DataFrame(rows)


def subtype_table(models: dict[str, Any]) -> pd.DataFrame:
    """Return hits and misses on test by subtype, and how well each subtype is told from NORMAL."""
    rows = []
    for model, splits in models.items():
        for subtype, entry in sorted(
            splits["test"]["subtypes"].items(), key=lambda item: list(KIND_NAMES).index(item[0])
        ):
            row = {
                "model": MODEL_NAMES[model],
                "images": KIND_NAMES[subtype],
                "n": entry["n"],
                "right": entry["right"],
            }
            row |= {
                "wrong": entry["n"] - entry["right"],
                "sensitivity, or specificity of NORMAL": with_interval(entry, "rate"),
            }
            rows.append(
                row
                | {
                    "AUROC against NORMAL": with_interval(entry, "auroc")
                    if "auroc" in entry
                    else ""
                }
            )
    return pd.DataFrame(rows)


def about_model(
    model: str, entry: dict[str, Any], card: dict[str, Any], standing: str
) -> list[str]:
    """Return what a model's scores say, each sentence from the numbers."""
    chosen = chosen_on(entry)
    name, test, validation = MODEL_NAMES[model], entry["test"], entry[chosen]
    (tn, fp), (fn, tp) = test["confusion_matrix"]
    floor = (tp + fn) / test["n"]
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    half = test["operating_points"]["half"]
    sentences = [
        f"On the {test['n']} {drawn}test images, {name} reaches an accuracy of "
        f"{with_interval(test, 'accuracy')} and an AUROC of {with_interval(test, 'auroc')}.",
        f"Always answering PNEUMONIA would be right in {floor:.1%} of them: the model is {_points(test['accuracy'] - floor)}.",
        f"At the threshold of {test['threshold']:.3f} ({POINT_NAMES[test['operating_point']]}) it calls "
        f"{tp} of {tp + fn} PNEUMONIA and {tn} of {tn + fp} NORMAL {drawn}images correctly.",
        f"At a threshold of 0.5 the same scores would give an accuracy of "
        f"{number(half, 'accuracy')} at a specificity of {number(half, 'specificity')}.",
        f"From {SPLIT_NAMES[chosen]} to test its accuracy goes from {number(validation, 'accuracy')} to "
        f"{number(test, 'accuracy')} and its AUROC from {number(validation, 'auroc')} to {number(test, 'auroc')}.",
        f"Network: {card['network']}{in_place_of(model, card['network'])}. Weights at the start: {card['weights'].split(' (')[0]}. Trained "
        f"in {card['precision']}; the best epoch of {len(card['history'])} by {CRITERIA[card['chosen_by']]} was {card['best_epoch']}.",
    ]
    head = card.get("head")
    if head:
        sentences.append(
            f"First the head alone was trained, for {head['epochs']} epochs on features computed once; that gave a log loss of "
            f"{head['validation_loss']:.3f} on {SPLIT_NAMES[chosen]}. Then all layers but batch norm were trained, the early ones least."
        )
    return sentences


def about_networks(models: dict[str, Any], run: RunFolder) -> list[str]:
    """Say where another backbone stands in the place that a model's name speaks of."""
    sentences = []
    for model in models:
        network = read_card(model, run)["network"] if run.model_card(model).is_file() else ""
        place = in_place_of(model, network) if network else ""
        if place:
            sentences.append(f"The network of this run is {network}{place}.")
    return sentences


def in_place_of(model: str, network: str) -> str:
    """Say so where the parameters put another backbone in the place that a model's name speaks of."""
    name = MODEL_NAMES[model]
    return (
        f", in the place of {name}: wherever this run says {name}, it means {network}"
        if model == "resnet50v2" and network != name
        else ""
    )


def about_folds(folds: Mapping[str, Split]) -> list[str]:
    """Return how many images each fold has, and how many of them are PNEUMONIA."""
    return [
        f"{SPLIT_NAMES[name]}: {len(fold)} images, {fold.labels.mean():.1%} PNEUMONIA"
        for name, fold in folds.items()
    ]


def about_floor(test: dict[str, Any], standing: str) -> list[str]:
    """Return what answering PNEUMONIA for every image gives, who stood on that floor, and whether this model does."""
    (tn, fp), (fn, tp) = test["confusion_matrix"]
    drawn = "SYNTHETIC " if standing == "synthetic" else ""
    sentences = []
    if standing == "published":
        sick, images = COUNTS["test"]["PNEUMONIA"], published.TEST_IMAGES
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
        sentences.append(
            "It stands on that floor: its accuracy is the share of PNEUMONIA, whatever its AUROC says."
        )
    return sentences


def _points(difference: float) -> str:
    word = "above" if difference > 0 else "below"
    return (
        f"{abs(difference) * 100:.1f} percentage points {word} that floor"
        if difference
        else "exactly at that floor"
    )


def about_splits(known: dict[str, Any]) -> str:
    """Return what the splits in the table are and where the intervals come from, from ``metrics.json``."""
    splits = next(iter(known["models"].values()))
    bootstrap, val = known["bootstrap"], sum(known["data"]["counts"].get("val", {}).values())
    sentences = [
        f"95 % intervals in brackets: from resampling patients (images, where patients are not known), and Wilson's by image "
        f"for a share of fewer than {FEW} images, or with fewer than {FEW_EITHER_WAY} right or wrong ones. There were {bootstrap['resamples']} resamples of {bootstrap['unit']}s. The positive class is PNEUMONIA.",
        f"Every choice about the models was made on {'shifted copies of ' if 'validation' in splits else ''}"
        f"“{SPLIT_NAMES[chosen_on(splits)]}”; test was scored only.",
    ]
    if "validation" in splits and val:
        sentences.append(
            f"“{SPLIT_NAMES['val']}” is the data set's own folder of {val} images, scored only as well."
        )
    return " ".join(sentences)


def about_missing(models: dict[str, Any], run: RunFolder) -> list[str]:
    """Return what to run first where a model has not been scored in this run folder."""
    steps = {model: step for step in STEPS if (model := model_of(step))}
    return [
        f"No predictions of {MODEL_NAMES[model]} in {run.root.name}. Run the notebook {step} first, or: python run_all.py --run "
        f"{run.root.name} --from {step}"
        for model, step in steps.items()
        if model not in models
    ]
