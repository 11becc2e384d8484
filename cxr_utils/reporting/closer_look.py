"""What a closer look at one model's test predictions says: errors, calibration, floors, doubtful patients, Grad-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ..data.splits import chosen_on, reused_numbers
from ..evaluation import intervals, metrics
from ..evaluation.results import labels_of
from ..models.gradcam import Checked
from .findings import with_interval
from .names import KIND_NAMES, POINT_NAMES, SCORES, SPLIT_NAMES

SURE = (
    0.05  # probability of the true class under which an error counts as one the model was sure of
)
NO_MASKS = (
    "No outlines of what is ill come with these films, so where Grad-CAM points cannot be held against the truth here. In a run on the "
    "phantom, which draws its own outlines, this section does that."
)


def about_errors(part: pd.DataFrame, entry: dict[str, Any]) -> list[str]:
    """Return which test images are called wrongly, and how many of them a model was sure of.

    Parameters
    ----------
    part : DataFrame
        Predictions of test.
    entry : dict
        Its scores.
    """
    (_, fp), (fn, _) = entry["confusion_matrix"]
    called = part["score"] >= entry["threshold"]
    wrong = part[called != (part["label"] == "PNEUMONIA")]
    of_the_truth = np.where(labels_of(wrong) == 1, wrong["score"], 1 - wrong["score"])
    sure = int((of_the_truth < SURE).sum())
    return [
        f"{fp + fn} of {entry['n']} test images are called wrongly: {fp} NORMAL ones are called PNEUMONIA and {fn} with PNEUMONIA are "
        f"missed.",
        f"In {sure} of them the model was more than {1 - SURE:.0%} sure, and wrong: no score warns of those.",
    ]


def about_evidence(checked: Checked | None, name: str, synthetic: bool) -> list[str]:
    """Return how often Grad-CAM points at what was drawn: SYNTHETIC images come with the truth."""
    if not synthetic:
        return [NO_MASKS]
    if not checked:
        return [
            f"{name} calls no outlined bacterial SYNTHETIC image PNEUMONIA, so there is nothing to point at."
        ]
    return [
        f"SYNTHETIC images come with the truth. Of {checked.cases} bacterial ones that {name} calls PNEUMONIA, Grad-CAM peaks in the "
        f"consolidation, grown by one cell of the map, in {checked.inside} ({checked.inside / checked.cases:.0%}). A peak at random "
        f"would in {checked.random:.0%}, the map of another case in {checked.swapped:.0%} ({checked.swapped_most:.0%} at most in a "
        f"hundred deals), and the best single place, chosen with the truth in hand and the same for all, in {checked.fixed:.0%}: masks "
        "grown by a cell are large, so this shows that maps follow their images, not that they outline anything."
    ]


def telling_cases(part: pd.DataFrame, threshold: float, most: int) -> dict[str, np.ndarray]:
    """Return the rows of the surest false alarms, misses and hits among a split's predictions; int, shape (<= most,) each."""
    sick, scores = labels_of(part) == 1, part["score"].to_numpy()
    called = scores >= threshold
    kinds = {
        "NORMAL called PNEUMONIA": (~sick & called, -scores),
        "PNEUMONIA missed": (sick & ~called, scores),
        "PNEUMONIA found": (sick & called, -scores),
    }
    found = {}
    for kind, (among, order) in kinds.items():
        rows = np.flatnonzero(among)
        found[kind] = rows[np.argsort(order[rows], kind="stable")][:most]
    return found


def case_titles(cases: pd.DataFrame) -> list[str]:
    """Return a short title of each test image: its true class and its score."""
    return [
        f"{KIND_NAMES[row.subtype].replace('PNEUMONIA, ', '')}\nscore {row.score:.3f}"
        for row in cases.itertuples()
    ]


def about_places(shares: np.ndarray, images: int) -> list[str]:
    """Return where Grad-CAM peaks over all test images called PNEUMONIA; see `gradcam.places`."""
    (middle, outer), (middle_chance, outer_chance) = shares
    return [
        f"Over all {images} test images called PNEUMONIA, Grad-CAM peaks in the middle third of the width, where spine, heart and "
        f"large vessels are, in {middle:.0%} (by chance {middle_chance:.0%}), and in the outer eighth on any side, where there is "
        f"hardly any lung, in {outer:.0%} (by chance {outer_chance:.0%}). A peak away from the lungs is a reason to doubt that the "
        "call rests on what a radiologist would call pneumonia."
    ]


def about_operating_points(splits: dict[str, Any], target: float) -> list[str]:
    """Return what the operating points are, and what each costs on test."""
    test = splits["test"]
    fixed_on = (
        "shifted copies of the validation images"
        if chosen_on(splits) == "validation"
        else SPLIT_NAMES["val"]
    )
    sentences = [
        f"Target sensitivity is {target:.0%}, fixed like Youden on {fixed_on}, not on test. Youden weighs a missed PNEUMONIA and a "
        "false alarm alike; a clinic would not."
    ]
    for name, point in test["operating_points"].items():
        (tn, fp), (fn, tp) = point["confusion_matrix"]
        sentences.append(
            f"{POINT_NAMES[name]}: {tp} of {tp + fn} PNEUMONIA found, {fp} of {tn + fp} NORMAL called PNEUMONIA."
        )
    return sentences


def about_calibration(part: pd.DataFrame, entry: dict[str, Any]) -> list[str]:
    """Return whether test scores can be read as probabilities, and what the temperature did.

    The slope is that of a logistic regression of the label on the score's logit (Cox 1958): under 1 the scores
    are too extreme.
    """
    labels, scores = (
        labels_of(part),
        np.clip(part["score"].to_numpy(), metrics.CLIP, 1 - metrics.CLIP),
    )
    gap = scores.mean() - labels.mean()
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(logit(scores)[:, None], labels)
    slope, before, after = float(fit.coef_[0, 0]), entry["uncalibrated"]["loss"], entry["loss"]
    did = "lowered" if after < before else "raised" if after > before else "left"
    return [
        f"On test the mean score is {scores.mean():.3f} where {labels.mean():.3f} of the images are PNEUMONIA: {_direction(gap)}. The "
        f"calibration slope is {slope:.2f} ({'scores are too extreme' if slope < 1 else 'scores are not extreme enough'}; 1 is right).",
        f"The temperature of {entry['temperature']:.3f}, fitted on other images, {did} the log loss on test: {before:.3f} before, "
        f"{after:.3f} after.",
    ]


def _direction(gap: float) -> str:
    size = f"{abs(gap) * 100:.1f} percentage points too {'high' if gap > 0 else 'low'}"
    return "nearly right on average" if abs(gap) < 0.02 else f"on average scores are {size}"


def beyond_metadata(
    part: pd.DataFrame, floor: pd.DataFrame, resamples: int, seed: int
) -> list[str]:
    """Return how far a model exceeds what metadata alone tells, on the same test patients.

    Parameters
    ----------
    part, floor : DataFrame
        Predictions of test by the model and by the metadata classifier.
    resamples, seed : int
        Of the paired bootstrap over patients.
    """
    floor = floor.set_index("path").loc[part["path"]]
    labels, own, other = labels_of(part), part["score"].to_numpy(), floor["score"].to_numpy()
    weights = intervals.patient_weights(part["patient"].to_numpy(), resamples, seed)
    areas = [
        intervals.weighted_areas(labels == 1, scores, weights)["auroc"] for scores in (own, other)
    ]
    low, high = intervals.interval(areas[0] - areas[1]) or (np.nan, np.nan)
    found = [float(roc_auc_score(labels, scores)) for scores in (own, other)]
    clear = (
        "clearly more than the files tell"
        if low > 0
        else "not surely more than the files tell: it has shown nothing"
    )
    return [
        f"AUROC is {found[0]:.3f}, that of the files' metadata alone {found[1]:.3f}: {found[0] - found[1]:+.3f} (95 % interval, "
        f"paired, {low:+.3f} to {high:+.3f}), {clear}."
    ]


def without_doubtful(part: pd.DataFrame, files: pd.DataFrame, entry: dict[str, Any]) -> list[str]:
    """Return the scores on test without the images whose patient number also stands in another split under another kind.

    Parameters
    ----------
    part : DataFrame
        Predictions of test.
    files : DataFrame
        All files with their splits, as `Dataset.files`; those of test in the order of `part`.
    entry : dict
        The scores of test.
    """
    doubtful = reused_numbers(files)[files["split"] == "test"].notna().to_numpy()
    if not doubtful.any():
        return [
            "No patient number of a test image stands in another split under another kind of pneumonia."
        ]
    rest = part[~doubtful]
    labels, scores = labels_of(rest), rest["score"].to_numpy()
    of, rates = metrics.of_scores(labels, scores), metrics.rates(labels, scores, entry["threshold"])
    if of["auroc"] is None:
        return ["All test images of a class have such numbers: without them nothing can be scored."]
    return [
        f"{int(doubtful.sum())} test images have a patient number that also stands in another split under another kind of pneumonia "
        f"(person1_bacteria, person1_virus). If those are one child, test scores are too good. Without them {int(labels.sum())} "
        f"PNEUMONIA and {int((labels == 0).sum())} NORMAL images remain: AUROC {of['auroc']:.3f} (with them "
        f"{with_interval(entry, 'auroc')}), {SCORES['sensitivity']} {rates['sensitivity']:.3f} (with them "
        f"{with_interval(entry, 'sensitivity')})."
    ]
