"""From logits to files: calibrated predictions, scores, and the model's card; no model is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import paths
from ..data.dataset import OVERVIEW_SIZE, Dataset, load_pixels
from ..data.decoding import Square
from ..files import read_json, within, write_atomically
from ..parameters import ModelSection, Params
from . import calibration, shortcuts
from .evaluate import (  # noqa: F401
    FEW,
    FEW_EITHER_WAY,
    best_interval,
    evaluate,
    labels_of,
    uncalibrated,
)

COLUMNS = ["split", "path", "patient", "label", "subtype", "score"]
SCHEMA = 1
MIRRORED = ", the mean over the image and its mirror image"
REFERENCES = ("always_pneumonia", "metadata")


def score_model(
    section: ModelSection,
    card: dict[str, Any],
    logits: dict[str, np.ndarray],
    stressed: np.ndarray,
    data: Dataset,
    params: Params,
    run: paths.RunFolder,
) -> pd.DataFrame:
    """Calibrate a model on the images that choices are made on, and write its predictions and its card.

    Parameters
    ----------
    section : ModelSection
        The model's section of the parameters.
    card : dict
        What training says of the model.
    logits : dict of ndarray
        Split -> logits before calibration.
    stressed : ndarray
        Logits of the stress validation, from ``stress.for_choices``: the temperature and the thresholds are
        fitted on them, as new films differ more than validation does from training.
    data : Dataset
        The data set.
    params : Params
        All parameters of the run.
    run : RunFolder
        Where ``predictions/<name>.csv`` and ``models/<name>.json`` go.

    Returns
    -------
    DataFrame
        split, path, patient, label, subtype, score (P(PNEUMONIA) after calibration).
    """
    name = section.name
    labels = data.splits[data.chosen_on].labels
    # Sixteen images may be told apart without error, and then any temperature would make a model surer of itself.
    temperature = (
        calibration.fit_temperature(stressed, labels) if data.chosen_on == "validation" else 1.0
    )
    scores = {fold: calibration.calibrated(logit, temperature) for fold, logit in logits.items()}
    points = calibration.thresholds(
        labels, calibration.calibrated(stressed, temperature), params.evaluation.target_sensitivity
    )
    frames = [data.splits[fold].files.assign(split=fold, score=scores[fold]) for fold in scores]
    predictions = pd.concat(frames, ignore_index=True)[COLUMNS]
    origin = {
        "source": data.source.kind,
        "synthetic": data.source.synthetic,
        "manifest": data.manifest.digest,
    }
    card = (
        card
        | _how_to_use(Square(section.image_size, params.data.fit), temperature, points, params)
        | origin
    )
    write_atomically(run.predictions(name), predictions.to_csv(index=False))
    write_atomically(run.model_card(name), json.dumps(card, indent=1))
    return predictions


def _how_to_use(
    square: Square, temperature: float, points: dict[str, float], params: Params
) -> dict[str, Any]:
    size, fit = square
    logit = f"logit of PNEUMONIA{MIRRORED if params.evaluation.test_time_flips else ''}"
    return {
        "image_size": size,
        "fit": fit,
        "preprocessing": f"upright, grey, made {size} x {size} px by {fit} (bilinear), divided by 255, shape (n, {size}, {size}, 1)",
        "test_time_flips": params.evaluation.test_time_flips,
        "output": f"{logit}; score = 1 / (1 + exp(-logit / temperature)); PNEUMONIA where score >= threshold",
        "temperature": temperature,
        "operating_point": params.evaluation.operating_point,
        "threshold": points[params.evaluation.operating_point],
        "thresholds": points,
    }


def update_metrics(
    name: str, data: Dataset, params: Params, run: paths.RunFolder
) -> dict[str, Any]:
    """Compute a model's scores from its saved predictions and put them into ``metrics.json``.

    The entry of the other model is kept where it comes from the same data and the same bootstrap.

    Returns
    -------
    dict
        Split -> scores, as in ``metrics.json``.
    """
    predictions, card, settings = (
        read_predictions(name, run),
        read_card(name, run),
        params.evaluation,
    )
    entry = {
        split: evaluate(
            part,
            card["thresholds"],
            settings.operating_point,
            settings.resamples,
            params.seed,
            card["temperature"],
        )
        for split, part in predictions.groupby("split", sort=False)
    }
    about = {
        "schema": SCHEMA,
        "run": run.name,
        "data": {
            "source": data.source.kind,
            "synthetic": data.source.synthetic,
            "manifest": data.manifest.digest,
            "counts": data.manifest.counts(),
            "median_size": [int(data.files[side].median()) for side in ("width", "height")],
        },
        "bootstrap": {"resamples": settings.resamples, "seed": params.seed, "unit": data.unit},
    }
    known = read_metrics(run)
    models = within(known, "models") if {key: known.get(key) for key in about} == about else {}
    models = dict(sorted((models | {name: entry}).items()))
    floors = within(known, "floors") if {key: known.get(key) for key in about} == about else {}
    if data.unit == "image":
        for scores in entry.values():
            scores["patients"] = None
    write_atomically(
        run.metrics, json.dumps({**about, "models": models, "floors": floors}, indent=1)
    )
    return entry


def score_references(data: Dataset, params: Params, run: paths.RunFolder) -> dict[str, Any]:
    """Score the reference classifiers and put them into ``metrics.json``."""
    score_floors(data, run)
    floors = evaluate_floors(data.chosen_on, params, run)
    if data.unit == "image":
        for splits in floors.values():
            for scores in splits.values():
                scores["patients"] = None
    write_atomically(run.metrics, json.dumps(read_metrics(run) | {"floors": floors}, indent=1))
    return floors


def score_floors(data: Dataset, run: paths.RunFolder) -> None:
    """Write what two answers that need no look at the lungs say of each image that is scored, as files of predictions.

    ``always_pneumonia``: the share of PNEUMONIA in training as the score of every image. ``metadata``: a
    classifier on metadata alone; there is none where patients are too few.
    """
    # At the size of the first notebook's audit, which reports the same floor.
    stored = load_pixels(data.manifest, Square(OVERVIEW_SIZE, data.fit))
    always = np.full(len(data.files), data.splits["train"].labels.mean())
    answers = {
        "always_pneumonia": always,
        "metadata": shortcuts.metadata_scores(
            shortcuts.traits(replace(data, stored=stored)), data.files
        ),
    }
    rows = (data.files["split"] != "train").to_numpy()
    for name, scores in answers.items():
        run.reference(name).unlink(missing_ok=True)
        if scores is not None:
            table = data.files[rows].assign(split=data.files["split"], score=scores[rows])[COLUMNS]
            write_atomically(run.reference(name), table.to_csv(index=False))


def evaluate_floors(chosen_on: str, params: Params, run: paths.RunFolder) -> dict[str, Any]:
    """Score the floors that `score_floors` wrote.

    Returns
    -------
    dict
        Name -> split -> scores. Always PNEUMONIA means a threshold of 0; that of metadata is the Youden point of
        the images that choices are made on.
    """
    found = {}
    for name in REFERENCES:
        if run.reference(name).is_file():
            answers = read_csv(run.reference(name))
            point = {"half": 0.0}
            if name == "metadata":
                chosen = answers[answers["split"] == chosen_on]
                cuts = calibration.thresholds(
                    labels_of(chosen),
                    chosen["score"].to_numpy(),
                    params.evaluation.target_sensitivity,
                )
                point = {"youden": cuts["youden"]}
            found[name] = {
                split: evaluate(
                    part, point, next(iter(point)), params.evaluation.resamples, params.seed
                )
                for split, part in answers.groupby("split", sort=False)
            }
    return found


def forget(name: str, run: paths.RunFolder) -> None:
    """Remove a model's predictions and scores, so that those of an earlier run cannot pass for its own."""
    run.predictions(name).unlink(missing_ok=True)
    known = read_metrics(run)
    if within(known, "models").pop(name, None):
        write_atomically(run.metrics, json.dumps(known, indent=1))


def read_card(name: str, run: paths.RunFolder) -> dict[str, Any]:
    """Return a model's card; an empty dict where there is none that can be read."""
    return read_json(run.model_card(name))


def read_metrics(run: paths.RunFolder) -> dict[str, Any]:
    """Return ``metrics.json``; an empty dict where there is none that can be read."""
    return read_json(run.metrics)


def read_predictions(name: str, run: paths.RunFolder) -> pd.DataFrame:
    """Return a model's predictions; raises FileNotFoundError where it has not been scored."""
    return read_csv(run.predictions(name))


def read_csv(file: Path) -> pd.DataFrame:
    """Return a file of predictions with its texts as they are and its scores to the last digit."""
    text = dict.fromkeys(["split", "path", "patient", "label", "subtype"], str)
    return pd.read_csv(file, dtype=text, keep_default_na=False, float_precision="round_trip")
