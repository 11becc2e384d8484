"""From logits to files: calibrated predictions, scores, and the model's card; no model is needed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from . import calibration, metrics, paths
from .images import XRays
from .params import Params
from .pixels import Square

COLUMNS = ["split", "path", "patient", "label", "subtype", "score"]
SCHEMA = 1


def score_model(
    name: str,
    card: dict[str, Any],
    logits: dict[str, np.ndarray],
    stressed: np.ndarray,
    data: XRays,
    params: Params,
    run: paths.RunFolder,
) -> pd.DataFrame:
    """Calibrate a model on the images that choices are made on, and write its predictions and its card.

    Parameters
    ----------
    name : str
        ``baseline_cnn`` or ``resnet50v2``.
    card : dict
        What training says of the model.
    logits : dict of ndarray
        Fold -> logits before calibration.
    stressed : ndarray
        Logits of the stress validation, from ``stress.for_choices``: the temperature and the thresholds are
        fitted on them, as new films differ more than validation does from training.
    data : XRays
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
    labels = data.folds[data.chosen_on].labels
    # Sixteen images may be told apart without error, and then any temperature would make a model surer of itself.
    temperature = calibration.fit_temperature(stressed, labels) if data.chosen_on == "validation" else 1.0
    scores = {fold: calibration.calibrated(logit, temperature) for fold, logit in logits.items()}
    points = calibration.thresholds(labels, calibration.calibrated(stressed, temperature), params.evaluation.target_sensitivity)
    frames = [data.folds[fold].files.assign(split=fold, score=scores[fold]) for fold in scores]
    predictions = pd.concat(frames, ignore_index=True)[COLUMNS]
    origin = {"source": data.source.kind, "synthetic": data.source.synthetic, "manifest": data.manifest.digest}
    card = card | _how_to_use(Square(getattr(params, name).image_size, params.data.fit), temperature, points, params) | origin
    paths.write_atomically(run.predictions(name), predictions.to_csv(index=False))
    paths.write_atomically(run.model_card(name), json.dumps(card, indent=1))
    return predictions


def _how_to_use(square: Square, temperature: float, points: dict[str, float], params: Params) -> dict[str, Any]:
    size, fit = square
    return {
        "image_size": size,
        "fit": fit,
        "preprocessing": f"upright, grey, made {size} x {size} px by {fit} (bilinear), divided by 255, shape (n, {size}, {size}, 1)",
        "test_time_flips": params.evaluation.test_time_flips,
        "output": "logit of PNEUMONIA; score = 1 / (1 + exp(-logit / temperature)); PNEUMONIA where score >= threshold",
        "temperature": temperature,
        "operating_point": params.evaluation.operating_point,
        "threshold": points[params.evaluation.operating_point],
        "thresholds": points,
    }


def update_metrics(name: str, data: XRays, params: Params, run: paths.RunFolder) -> dict[str, Any]:
    """Compute a model's scores from its saved predictions and put them into ``metrics.json``.

    The entry of the other model is kept where it comes from the same data and the same bootstrap.

    Returns
    -------
    dict
        Split -> scores, as in ``metrics.json``.
    """
    predictions = read_predictions(name, run)
    points = read_card(name, run)["thresholds"]
    settings = params.evaluation
    entry = {
        split: metrics.evaluate(part, points, settings.operating_point, settings.resamples, params.seed)
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
        },
        "bootstrap": {"resamples": settings.resamples, "seed": params.seed, "unit": data.source.resampled},
    }
    known = read_metrics(run)
    models = known.pop("models", {}) if known else {}
    models = (models if known == about else {}) | {name: entry}
    paths.write_atomically(run.metrics, json.dumps({**about, "models": dict(sorted(models.items()))}, indent=1))
    return entry


def forget(name: str, run: paths.RunFolder) -> None:
    """Remove a model's predictions and scores, so that those of an earlier run cannot pass for its own."""
    run.predictions(name).unlink(missing_ok=True)
    known = read_metrics(run)
    if known.get("models", {}).pop(name, None):
        paths.write_atomically(run.metrics, json.dumps(known, indent=1))


def read_card(name: str, run: paths.RunFolder) -> dict[str, Any]:
    """Return a model's card."""
    return json.loads(run.model_card(name).read_text(encoding="utf-8"))


def read_metrics(run: paths.RunFolder) -> dict[str, Any]:
    """Return ``metrics.json``, or an empty dict where there is none."""
    return json.loads(run.metrics.read_text(encoding="utf-8")) if run.metrics.is_file() else {}


def read_predictions(name: str, run: paths.RunFolder) -> pd.DataFrame:
    """Return a model's predictions; raises FileNotFoundError where it has not been scored."""
    text = dict.fromkeys(["split", "path", "patient", "label", "subtype"], str)
    return pd.read_csv(run.predictions(name), dtype=text, keep_default_na=False, float_precision="round_trip")


def labels_of(predictions: pd.DataFrame) -> np.ndarray:
    """Return labels as 1 for PNEUMONIA and 0 for NORMAL."""
    return (predictions["label"] == "PNEUMONIA").to_numpy(np.int64)
