"""The threshold that a reader moves: a piece of HTML with both models' test scores in it."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import pandas as pd

from .. import paths
from ..evaluation import metrics
from ..evaluation.results import labels_of
from .findings import number
from .names import MODEL_NAMES


def slider(predictions: dict[str, pd.DataFrame], models: dict[str, Any], synthetic: bool) -> str:
    """Return HTML in which the reader moves threshold and prevalence and sees both models' matrices and rates.

    It starts with each model at its own threshold. Script and data are inline: it works from a file and asks the
    network for nothing. Counts are of ``score >= threshold``, in the same double precision as everywhere else.

    Parameters
    ----------
    predictions : dict of DataFrame
        Predictions of each model.
    models : dict
        Their scores, as in ``metrics.json``.
    synthetic : bool
        Whether the title must say SYNTHETIC.
    """
    data, rows = {}, []
    for model, frame in predictions.items():
        part = frame[frame["split"] == "test"]
        labels, scores, own = (
            labels_of(part),
            part["score"].to_numpy(),
            models[model]["test"]["threshold"],
        )
        data[model] = {
            "sick": scores[labels == 1].tolist(),
            "well": scores[labels == 0].tolist(),
            "own": own,
        }
        rows.append(
            {
                "model": model,
                "name": MODEL_NAMES[model],
                "own": own,
                "cells": _cells(metrics.rates(labels, scores, own)),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.TEMPLATES), autoescape=False, trim_blocks=True
    )
    return environment.get_template("slider.html.j2").render(
        data=json.dumps(data).replace("<", "\\u003c"),
        rows=rows,
        share=float(labels.mean()),
        images=len(labels),
        synthetic=synthetic,
    )


def _cells(found: dict[str, Any]) -> dict[str, str]:
    (tn, fp), (fn, tp) = found["confusion_matrix"]
    counts = {"tp": str(tp), "fn": str(fn), "tn": str(tn), "fp": str(fp)}
    return counts | {
        name: number(found, name) for name in ("sensitivity", "specificity", "ppv", "npv")
    }
