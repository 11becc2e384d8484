"""What a report found, judged: what was asked first, then what is a reason to doubt it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data.dataset import Dataset
from ..data.sources import REAL_RUN
from ..data.splits import goes_by_looks
from ..evaluation import intervals, results
from ..evaluation.audit import NOTED, WARNED, Finding
from ..evaluation.comparison import Scored
from . import published, tables, text
from .text import Numbers

VERDICTS = ("warning", "note", "fine")
FAR = 1.3  # a warning where Grad-CAM peaks between the lungs so many times as often as by chance


def of_data(data: Dataset, standing: str, audited: list[Finding]) -> list[Finding]:
    """Return what report 1 found: what there is, then what the audit has against it."""
    train, chosen = (set(data.splits[n].files["patient"]) for n in ("train", data.chosen_on))
    facts: Numbers = {"films": len(data.files), "chosen": len(data.splits[data.chosen_on])}
    facts |= {"split": tables.SPLITS[data.chosen_on], "adverse": int(data.files["adverse"].sum())}
    facts |= {"known": data.unit == "patient", "patients": len(chosen)}
    facts |= {"shared": len(train & chosen), "drawn": _drawn(data.source.synthetic)}
    facts["original"] = standing == "published"
    facts["at_random"] = goes_by_looks(data.files, data.asked) and not facts["adverse"]
    found = [Finding("films", "fine", facts)]
    for folder, here, there in text.counts(data.manifest, standing)["folders"]:
        if here != there:
            gap = {"folder": folder, "here": here, "published": there}
            found.append(Finding("published counts", "note", gap))
    return found + worst_first([one for one in audited if one.verdict != "fine"])


def of_model(
    model: Scored, hidden: pd.DataFrame, places: np.ndarray | None, checked: Any, synthetic: bool
) -> list[Finding]:
    """Return what the report of a model found; see `tables.occlusion` and `explanation.places`."""
    (tn, fp), (fn, tp) = model.test["confusion_matrix"]
    facts = {"title": model.title, "missed": fn, "sick": fn + tp, "alarms": fp, "well": tn + fp}
    low, high = results.best_interval(model.test, "auroc") or (None, None)
    constant = "PNEUMONIA" if not tn + fn else "NORMAL" if not tp + fp else ""
    facts |= {"auroc": model.test["auroc"], "low": low, "high": high, "constant": constant}
    facts["drawn"] = _drawn(synthetic)
    found = [Finding("answers", "warning" if constant else "fine", facts)]
    found.append(Finding("network", "fine", _network(model.card)))
    looks = [_hidden(model, hidden)]
    if places is not None:
        looks.append(_grad_cam(model, places, fp + tp, checked))
    return found + worst_first([_shift(model), *looks])


def _drawn(synthetic: bool) -> str:
    return "SYNTHETIC " if synthetic else ""


def _network(card: Numbers) -> Numbers:
    return {"card": card, "start": tables.STARTS[card["start"]["kind"]]}


def _shift(model: Scored) -> Finding:
    """How scores changed from what choices were made on to test."""
    before, names = model.scores[model.chosen_on], ("auroc", "specificity", "sensitivity")
    scores = [(tables.SCORES[name], before[name], model.test[name]) for name in names]
    lost = [name for name in names[1:] if _fell(model, name)]
    facts = {"title": model.title, "chosen_on": tables.SPLITS[model.chosen_on]}
    verdict = "warning" if lost else "fine"
    return Finding("shift", verdict, facts | {"scores": scores, "lost": lost})


def _grad_cam(model: Scored, places: np.ndarray, calls: int, checked: Any) -> Finding:
    """Where its maps peak over its positive calls; `checked` against outlines, where there are."""
    middle, chance = places[0][0], places[1][0]
    facts = {"title": model.title, "peaks": round(middle * calls), "calls": calls, "chance": chance}
    if checked:
        far = checked.inside / checked.cases <= max(checked.random, checked.swapped)
    else:
        far = (intervals.wilson(facts["peaks"], calls) or [0])[0] > FAR * chance
    return Finding("grad-cam", "warning" if far else "fine", facts | {"checked": checked})


def _hidden(model: Scored, hidden: pd.DataFrame) -> Finding:
    """What it knows without the lungs; surely so, where there is an interval."""
    border, low = hidden.loc["only the border", ["AUROC", "low"]]
    sure = border if np.isnan(low) and border == 1 else low
    verdict = "warning" if sure >= WARNED else "note" if sure >= NOTED else "fine"
    lungs = hidden.at["without the outer thirds", "AUROC lost"]
    return Finding("hidden", verdict, {"title": model.title, "border": border, "lungs": lungs})


def of_comparison(
    models: Sequence[Scored], pairs: list[Numbers], beyond: dict[str, Numbers], standing: str
) -> list[Finding]:
    """Return what report 4 found: which model is better, and what limits that."""
    found, whole = [], published.TEST_IMAGES
    for pair in pairs:
        compared = {"AUROC": pair["differences"]["auroc"]}
        compared["specificity at 95% sensitivity"] = pair["differences"]["specificity_at_0.95"]
        for score, gap in compared.items():
            found.append(
                Finding("better", "fine", gap | {"score": score, "titles": pair["titles"]})
            )
    limits = []
    for model in models:
        gap = beyond.get(model.name, {})
        if gap.get("value") is not None:
            verdict = "fine" if gap["low"] > 0 else "warning"
            limits.append(Finding("beyond shortcuts", verdict, gap | {"title": model.title}))
    for model in models:
        if seeds := model.card.get("seeds"):
            areas = [scores["AUROC"] for name, scores in seeds.items() if name != "ensemble"]
            told = {"title": model.title, "count": len(areas), "low": min(areas)}
            found.append(Finding("seeds", "fine", told | {"high": max(areas)}))
    if pairs and not all(model.card.get("seeds") for model in models):
        limits.append(Finding("one seed", "note", {}))
    cold = [m.title for m in models if m.card["builder"] == "pretrained"
            and m.card["start"]["kind"] == "random"]  # fmt: skip
    if standing == "published" and cold:
        limits.append(Finding("random start", "note", {"titles": cold}))
    if standing == "published" and models[0].test["n"] < whole:
        facts = {"here": models[0].test["n"], "whole": whole, "command": REAL_RUN}
        limits.append(Finding("part of test", "note", facts))
    return found + worst_first(limits)


def worst_first(found: Sequence[Finding]) -> list[Finding]:
    """Return findings by their verdict, warnings first."""
    return sorted(found, key=lambda finding: VERDICTS.index(finding.verdict))


def _fell(model: Scored, score: str) -> bool:
    """Whether a rate on test is lower than on validation, with the intervals apart."""
    before = results.best_interval(model.scores[model.chosen_on], score)
    after = results.best_interval(model.test, score)
    return bool(before and after and after[1] < before[0])
