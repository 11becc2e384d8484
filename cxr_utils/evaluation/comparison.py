"""Scored models side by side, any number of them: paired differences and agreement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

from ..data.manifest import LABELS, labels_of
from ..data.splits import chosen_on
from ..files import read_json, sha256_of, within, write_atomically
from ..paths import RunFolder
from . import intervals, metrics, results

SCHEMA = 2  # of comparison.json
SENSITIVITIES = (0.9, 0.95, 0.98)  # at which specificities are compared
ANSWERED = (1.0, 0.95, 0.9, 0.8, 0.7)  # shares of the films that a model answers for
AGREEMENT = ("both right", "first alone", "second alone", "both wrong")


@dataclass(frozen=True)
class Scored:
    """A model with its card, its scores (split -> entry of ``metrics.json``) and predictions."""

    name: str
    card: dict[str, Any]
    scores: dict[str, Any]
    predictions: pd.DataFrame

    @property
    def title(self) -> str:
        """What readers know the model by."""
        return self.card["title"]

    @property
    def test(self) -> dict[str, Any]:
        """Its scores on test."""
        return self.scores["test"]

    @property
    def chosen_on(self) -> str:
        """The split on which epochs and thresholds were chosen."""
        return chosen_on(self.scores)

    def part(self, split: str = "test") -> pd.DataFrame:
        """Return the predictions of one split, numbered from 0."""
        return self.predictions[self.predictions["split"] == split].reset_index(drop=True)

    def answers(self, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return labels (1 for PNEUMONIA) and scores of the images of a split."""
        part = self.part(split)
        return labels_of(part), part["score"].to_numpy()

    def right(self) -> np.ndarray:
        """Tell which test images the model calls rightly at its threshold; bool, shape (n,)."""
        labels, scores = self.answers()
        return (scores >= self.test["threshold"]) == (labels == 1)


def read_models(run: RunFolder) -> list[Scored]:
    """Return every model of a run that has been scored, in the order of ``metrics.json``."""
    models = within(results.read_metrics(run), "models")
    return [read_model(name, run) for name in models if run.predictions(name).is_file()]


def read_model(name: str, run: RunFolder) -> Scored:
    """Return one scored model of a run; raises FileNotFoundError where it has not been scored."""
    scores = within(results.read_metrics(run), "models", name)
    card, predictions = read_json(run.model_card(name)), results.read_csv(run.predictions(name))
    return Scored(name, card, scores, predictions)


def compare(models: Sequence[Scored], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Compare each two models on test, the second minus the first, on the same resamples.

    Returns the pairs of ``comparison.json`` as docs/outputs.md describes them; what is undefined is
    None. Raises ValueError where the models were scored on other images.
    """
    if not models:
        return []
    test = models[0].part()
    if any(list(model.part()["path"]) != list(test["path"]) for model in models):
        raise ValueError("the models were not scored on the same images; run all of them again")
    patients = test["patient"].to_numpy()
    weights = intervals.patient_weights(patients, resamples, seed)
    scored, pairs = [(model, *_scores(model, weights)) for model in models], []
    for (one, before, first), (two, after, second) in combinations(scored, 2):
        differences = {
            name: _difference(before[name], after[name], second[name] - first[name])
            for name in first
        }
        named = {"names": [one.name, two.name], "titles": [one.title, two.title]}
        pairs.append({**named, "differences": differences, **_agreement(one, two, patients)})
    return pairs


def _scores(model: Scored, weights: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Each score of a model on test, and its values on resamples, (resamples,)."""
    drawn = intervals.weighted_scores(*model.answers(), model.test["threshold"], weights)
    known = {name: model.test[name] for name in drawn}
    for sensitivity, values in zip(SENSITIVITIES, _specificities(model, weights).T, strict=True):
        name = f"specificity_at_{sensitivity}"
        known[name] = None if np.isnan(values[0]) else float(values[0])
        drawn[name] = values[1:]
    return known, drawn


def _specificities(model: Scored, weights: np.ndarray) -> np.ndarray:
    """Specificity on test at each of `SENSITIVITIES`: as it is, then on each resample."""
    labels, scores = model.answers()
    every = np.vstack([np.ones(len(labels)), weights])
    return intervals.weighted_specificities(labels == 1, scores, every, SENSITIVITIES)


def at_sensitivities(models: Sequence[Scored], resamples: int, seed: int) -> pd.DataFrame:
    """Return each model's specificity on test at `SENSITIVITIES`, with its 95% interval.

    The thresholds are test's own: this compares models, and chooses nothing. Where no resample has
    an error the interval is NaN.
    """
    rows = []
    for model in models:
        patients = model.part()["patient"].to_numpy()
        found = _specificities(model, intervals.patient_weights(patients, resamples, seed))
        for sensitivity, values in zip(SENSITIVITIES, found.T, strict=True):
            low, high = intervals.interval(values[1:]) or (np.nan, np.nan)
            low, high = (low, high) if low < high else (np.nan, np.nan)
            rows.append([model.title, sensitivity, values[0], low, high])
    return pd.DataFrame(rows, columns=["model", "sensitivity", "specificity", "low", "high"])


def _difference(one: float | None, two: float | None, sampled: np.ndarray) -> dict[str, Any]:
    if one is None or two is None:
        return {"value": None, "low": None, "high": None}
    low, high = intervals.interval(sampled) or (None, None)
    return {"value": two - one, "low": low, "high": high}


def _agreement(one: Scored, two: Scored, patients: np.ndarray) -> dict[str, Any]:
    """The two tests, and what both, one or none calls rightly."""
    (labels, scores), others = one.answers(), two.answers()[1]
    first, second = one.right(), two.right()
    *alone, p = intervals.mcnemar(first, second)
    gap = intervals.delong(labels, others, patients, less=scores)
    kinds = np.select([first & second, first, second], AGREEMENT[:3], AGREEMENT[3])
    return {
        "mcnemar": {"alone": alone, "p": p},
        "delong": gap.as_difference() if gap else None,
        "agreement": {
            kind: {name: int(sum(labels[kinds == kind] == n)) for n, name in enumerate(LABELS)}
            for kind in AGREEMENT
        },
        "same_answer": float(np.mean(first == second)),
    }


def write(pairs: list[dict[str, Any]], models: Sequence[Scored], run: RunFolder) -> None:
    """Write ``comparison.json``, tied to the predictions that it was computed from."""
    digests = {model.name: sha256_of(run.predictions(model.name)) for model in models}
    content = {"schema": SCHEMA, "predictions": digests, "pairs": pairs}
    write_atomically(run.comparison, json.dumps(content, indent=1, allow_nan=False))


def read(run: RunFolder) -> list[dict[str, Any]]:
    """Return the pairs of ``comparison.json``; none where the predictions are no longer those."""
    known = read_json(run.comparison)
    models = within(results.read_metrics(run), "models")
    current = {name: sha256_of(run.predictions(name)) for name in models}
    same = known.get("schema") == SCHEMA and known.get("predictions") == current
    return known["pairs"] if same else []


def beyond(model: Scored, reference: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """Return the AUROC on test, ``own`` and a ``reference``'s, and value, low, high of the gap."""
    part = model.part()
    labels, own = model.answers()
    other = reference.set_index("path").loc[part["path"], "score"].to_numpy()
    weights = intervals.patient_weights(part["patient"].to_numpy(), resamples, seed)
    theirs, ours = (metrics.of_scores(labels, scores)["auroc"] for scores in (other, own))
    drawn = [intervals.weighted_areas(labels == 1, s, weights)["auroc"] for s in (other, own)]
    return {"own": ours, "reference": theirs} | _difference(theirs, ours, drawn[1] - drawn[0])


def selective(model: Scored, resamples: int, seed: int) -> pd.DataFrame:
    """Return what a model scores on test where it answers for the films it is surest of alone.

    Selective classification (Geifman and El-Yaniv 2017, arXiv:1705.08500), the surest being those
    whose logit is farthest from the threshold's. A row for each of `ANSWERED`, with accuracy and
    AUROC among the answered films, and by how much the accuracy is over that of all films; each
    with the 95% interval of a patient bootstrap (NaN where it is undefined).
    """
    labels, scores = model.answers()
    patients, right = model.part()["patient"].to_numpy(), model.right()
    weights = intervals.patient_weights(patients, resamples, seed)
    clipped = np.clip([*scores, model.test["threshold"]], metrics.CLIP, 1 - metrics.CLIP)
    *logits, cut = logit(clipped)
    order, rows = np.argsort(-np.abs(np.array(logits) - cut), kind="stable"), []
    whole = weights @ right / weights.sum(axis=1)
    for share in ANSWERED:
        kept = order[: round(share * len(labels))]
        drawn, ours = weights[:, kept], right[kept]
        area = metrics.of_scores(labels[kept], scores[kept])["auroc"]
        found = {"accuracy": (ours.mean(), drawn @ ours / drawn.sum(axis=1))}
        areas = intervals.weighted_areas(labels[kept] == 1, scores[kept], drawn)["auroc"]
        found["AUROC"] = (np.nan if area is None else area, areas)
        found["gain"] = (ours.mean() - right.mean(), found["accuracy"][1] - whole)
        row: dict[str, Any] = {"model": model.title, "answered": share, "films": len(kept)}
        for name, (value, sampled) in found.items():
            low, high = intervals.interval(sampled) or (np.nan, np.nan)
            row |= {name: value, f"{name}, low": low, f"{name}, high": high}
        rows.append(row)
    return pd.DataFrame(rows)
