"""From logits to files: calibrated predictions, scores with intervals, and the model's card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from ..data import looks
from ..data.dataset import Dataset
from ..data.manifest import labels_of
from ..files import read_json, within, write_atomically
from ..parameters import ModelSection, Params
from ..paths import RunFolder
from . import intervals, metrics, shortcuts, thresholds

COLUMNS = ["split", "path", "patient", "label", "subtype", "score"]
ANSWERS = ["path", "probability", "interval", "decision", "unsure", "distance", "error"]  # to films
# Where the bootstrap covers too little and Wilson's intervals are shown: a share of fewer than so
# many images, or with fewer than so many that are right, or wrong. (At .975 of 195 images of 100
# patients it covers 90%, Wilson's 94%.)
FEW, FEW_EITHER_WAY = 50, 10

Entry = dict[str, Any]  # the scores of one split
Entries = dict[str, Entry]  # split -> scores


def score_model(
    section: ModelSection,
    card: dict[str, Any],
    logits: dict[str, np.ndarray],
    stressed: np.ndarray,
    data: Dataset,
    settings: Params,
    run: RunFolder,
) -> pd.DataFrame:
    """Calibrate a model; write ``predictions/<name>.csv``, which is returned, and its card.

    `logits` are those of each split. Temperature and thresholds are fitted on `stressed`, those of
    ``robustness.for_choices``, as new films differ more than validation does from training. There
    each film counts by its weight, as validation holds too many films of unlike looks.
    """
    asked, chosen = settings.evaluation, data.splits[data.chosen_on]
    labels, weights = chosen.labels, chosen.files["weight"]
    # Sixteen images may be told apart without error; any temperature would make it surer of itself.
    ours = data.chosen_on == "validation"
    temperature = thresholds.fit_temperature(stressed, labels, weights) if ours else 1.0
    scores = expit(stressed / temperature)
    points = thresholds.choose(labels, scores, asked.target_sensitivity, weights)
    train = data.splits["train"].files
    card = card | {
        "image_size": section.image_size,
        "fit": data.asked.fit,
        "preprocessing": {"mode": "grey", "interpolation": "bilinear", "divided_by": 255},
        "test_time_flips": asked.test_time_flips,
        "temperature": temperature,
        "operating_point": asked.operating_point,
        "threshold": points[asked.operating_point],
        "thresholds": points,
        "trained_on": {"films": len(train), "patients": train["patient"].nunique()},
        **_about(data),
    }
    frames = [data.splits[split].files.assign(score=expit(found / temperature))
              for split, found in logits.items()]  # fmt: skip
    predictions = pd.concat(frames, ignore_index=True)[COLUMNS]
    write_atomically(run.predictions(section.name), predictions.to_csv(index=False))
    write_atomically(run.model_card(section.name), json.dumps(card, indent=1))
    return predictions


def update_metrics(name: str, data: Dataset, settings: Params, run: RunFolder) -> Entries:
    """Score a model's saved predictions into ``metrics.json``; other models' scores stay there."""
    card, answers = read_json(run.model_card(name)), read_csv(run.predictions(name))
    entries = _entries(answers, card, data, settings)
    _put("models", {name: entries}, data, settings, run)
    return entries


def keep_seeds(name: str, spread: pd.DataFrame, run: RunFolder) -> None:
    """Put what each seed of a model scores on test into its card; `spread` has a row a seed."""
    card = read_json(run.model_card(name)) | {"seeds": spread.to_dict("index")}
    write_atomically(run.model_card(name), json.dumps(card, indent=1))


def score_references(data: Dataset, settings: Params, run: RunFolder) -> dict[str, Entries]:
    """Score what needs no look at the lungs, into ``floors/*.csv`` and ``metrics.json``.

    ``always_pneumonia``: the share of PNEUMONIA in training as the score of every image, at a
    threshold of 0. ``metadata`` and ``border``: classifiers on these alone, at the target
    sensitivity on the images that choices are made on; none where patients are too few. `data` is
    opened at ``OVERVIEW_SIZE`` px.
    """
    always, found = data.splits["train"].labels.mean(), {}
    traits = looks.traits(data.files, data.stored)
    answers = {
        "always_pneumonia": always,
        "metadata": shortcuts.metadata_scores(traits, data.files),
        "border": shortcuts.border_scores(data),
    }
    for name, scores in answers.items():
        run.reference(name).unlink(missing_ok=True)
        if scores is not None:
            others = data.files["split"].isin(set(data.splits) - {"train"})
            table = data.files.assign(score=scores)[others]
            write_atomically(run.reference(name), table[COLUMNS].to_csv(index=False))
            point, cut = "half", 0.0
            if name != "always_pneumonia":
                chosen = table[table["split"] == data.chosen_on]
                known = labels_of(chosen), chosen["score"].to_numpy()
                point = "sensitivity"
                target = settings.evaluation.target_sensitivity
                cut = thresholds.choose(*known, target, chosen["weight"])[point]
            card = {"thresholds": {point: cut}, "operating_point": point, "temperature": 1.0}
            found[name] = _entries(table, card, data, settings)
    _put("floors", found, data, settings, run)
    return found


def _about(data: Dataset) -> dict[str, Any]:
    source, digest = data.source, data.manifest.digest
    return {"source": source.kind, "synthetic": source.synthetic, "manifest": digest}


def _entries(answers: pd.DataFrame, card: Entry, data: Dataset, settings: Params) -> Entries:
    """Scores of each split; the number of patients is None where they are not known."""
    more = {} if data.unit == "patient" else {"patients": None}
    how = settings.evaluation.resamples, settings.seed, card["temperature"]
    return {
        split: evaluate(part, card["thresholds"], card["operating_point"], *how) | more
        for split, part in answers.groupby("split", sort=False)
    }


def _put(key: str, scored: dict[str, Any], data: Dataset, settings: Params, run: RunFolder) -> None:
    asked = {"resamples": settings.evaluation.resamples, "seed": settings.seed, "unit": data.unit}
    size = [int(data.files[side].median()) for side in ("width", "height")]
    described = _about(data) | {"counts": data.manifest.counts(), "median_size": size}
    about = {"schema": 1, "run": run.name, "data": described, "bootstrap": asked}
    known = read_metrics(run)
    same = known | about == known  # else what is there comes from other data or resamples
    kept = {name: within(known, name) if same else {} for name in ("models", "floors")}
    kept[key] = dict(sorted((kept[key] | scored).items()))
    write_atomically(run.metrics, json.dumps({**about, **kept}, indent=1))


def evaluate(
    frame: pd.DataFrame,
    cuts: dict[str, float],
    operating_point: str,
    resamples: int,
    seed: int,
    temperature: float = 1.0,
) -> Entry:
    """Return the entry of one split in ``metrics.json``; what is undefined is None.

    `frame` holds patient, label (NORMAL or PNEUMONIA), subtype and score of each image. The rates
    at `operating_point` stand on top; ``uncalibrated`` is from before division by `temperature`.
    """
    labels, scores = labels_of(frame), frame["score"].to_numpy(np.float64)
    patients, subtypes = frame["patient"].to_numpy(), frame["subtype"].to_numpy()
    weights = intervals.patient_weights(patients, resamples, seed)
    points = {}
    for name, cut in cuts.items():
        at = metrics.rates(labels, scores, cut)
        sampled = intervals.weighted_rates(labels, scores, cut, weights)
        shares = metrics.shares(at["confusion_matrix"])
        wilson = {rate: intervals.wilson(*share) for rate, share in shares.items()}
        points[name] = {"n": len(labels), **at, "ci95": _intervals(at, sampled), "wilson95": wilson}
    chosen, found = points[operating_point], metrics.of_scores(labels, scores)
    sampled = intervals.weighted_scores(labels, scores, chosen["threshold"], weights)
    area = intervals.delong(labels, scores, patients)
    before = metrics.of_scores(labels, uncalibrated(scores, temperature))
    return {
        **chosen,
        **found,
        "patients": len(set(patients)),
        "operating_point": operating_point,
        "operating_points": points,
        "ci95": _intervals(chosen | found, sampled),
        "delong95": {"auroc": area.interval_of_share if area else None},
        "temperature": temperature,
        "uncalibrated": {name: before[name] for name in ("loss", "brier", "ece")},
        "subtypes": {
            name: _subtype(subtypes == name, labels, scores, chosen["threshold"], weights)
            for name in sorted(set(subtypes))
        },
    }


def _intervals(found: Entry, sampled: dict[str, np.ndarray]) -> Entry:
    """Intervals of what is defined; a resample may define what the sample leaves open."""
    return {
        name: None if found[name] is None else intervals.interval(values)
        for name, values in sampled.items()
    }


def _subtype(
    rows: np.ndarray, labels: np.ndarray, scores: np.ndarray, cut: float, weights: np.ndarray
) -> Entry:
    """The share of images that were called rightly; of PNEUMONIA, the AUROC against all NORMAL."""
    right, own = (scores[rows] >= cut) == (labels[rows] == 1), weights[:, rows]
    with np.errstate(invalid="ignore"):
        found = {"rate": intervals.interval(own @ right.astype(float) / own.sum(axis=1))}
    n, correct = len(right), int(right.sum())
    entry = {"n": n, "right": correct, "rate": float(right.mean()), "ci95": found}
    if labels[rows].any() and (labels == 0).any():
        against = rows | (labels == 0)
        labels, scores = labels[against], scores[against]
        sampled = intervals.weighted_areas(labels == 1, scores, weights[:, against])
        entry["auroc"] = metrics.of_scores(labels, scores)["auroc"]
        found["auroc"] = intervals.interval(sampled["auroc"])
    return entry | {"wilson95": {"rate": intervals.wilson(correct, n)}}


def uncalibrated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return the scores as they were before their logits were divided by a temperature."""
    with np.errstate(divide="ignore"):
        return expit(logit(scores) * temperature)


def best_interval(entry: Entry, score: str) -> list[float] | None:
    """Return the interval to show beside a score of a split, operating point or subtype.

    The bootstrap's; Wilson's for shares of few images; None for what is no share where there are
    fewer than 50 images or no resample differs from another.
    """
    found, other = entry["ci95"].get(score), entry.get("wilson95", {}).get(score)
    if not other:
        return found if found and entry["n"] >= FEW and found[0] < found[1] else None
    right, whole = entry.get("right"), entry["n"]
    if score != "rate":
        right, whole = metrics.shares(entry["confusion_matrix"])[score]
    return other if whole < FEW or min(right, whole - right) < FEW_EITHER_WAY else found


def forget(name: str, run: RunFolder) -> None:
    """Remove a model's predictions and scores, for those of an earlier run not to pass for it."""
    run.predictions(name).unlink(missing_ok=True)
    known = read_metrics(run)
    if within(known, "models").pop(name, None):
        write_atomically(run.metrics, json.dumps(known, indent=1))


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """Return ``metrics.json``; an empty dict where there is none that can be read."""
    return read_json(run.metrics)


def read_csv(file: Path) -> pd.DataFrame:
    """Return predictions, scores to the last digit; raises FileNotFoundError where none are."""
    text = dict.fromkeys(COLUMNS[:-1], str)
    return pd.read_csv(file, dtype=text, keep_default_na=False, float_precision="round_trip")


def read_answers(file: Path) -> pd.DataFrame:
    """Return what ``predict`` wrote as JSON lines, a row a film; none where there is no file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return pd.DataFrame(map(json.loads, lines), columns=None if lines else ANSWERS)
