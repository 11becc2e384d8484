"""Tables of the data, of scores and of published work; a cell is a number or a formatted score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..data.dataset import Dataset
from ..data.manifest import LABELS, Manifest
from ..data.sources import COUNTS, Kaggle
from ..evaluation import results
from ..evaluation.audit import Finding
from ..evaluation.comparison import Scored
from . import published

SPLITS = {"train": "training", "validation": "validation", "val": "val", "test": "test"}
KINDS = {
    "normal": "NORMAL",
    "bacteria": "PNEUMONIA, bacterial",
    "virus": "PNEUMONIA, viral",
    "unknown": "PNEUMONIA",
}
POINTS = {"half": "0.5", "youden": "Youden", "sensitivity": "target sensitivity"}
REFERENCES = {
    "always_pneumonia": "reference: always PNEUMONIA",
    "metadata": "reference: metadata alone",
}
SCORES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
SHOWN = ("accuracy", "auroc", "sensitivity", "specificity")  # where there is room for four
STARTS = {"random": "random weights", "imagenet": "ImageNet weights", "file": "a file's weights"}


def with_interval(entry: dict[str, Any], score: str) -> str:
    """Return a score of ``metrics.json`` as text, with its 95 % interval where it has one."""
    interval = results.best_interval(entry, score)
    if entry[score] is None or not interval:
        return number(entry, score)
    return f"{entry[score]:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def number(entry: dict[str, Any], score: str) -> str:
    """Return a score of ``metrics.json`` as text, without its interval."""
    return "undefined" if entry[score] is None else f"{entry[score]:.3f}"


def counts(manifest: Manifest, standing: str) -> pd.DataFrame:
    """Return images per folder and class, beside the published counts and the original's."""
    rows = []
    for folder, by_class in manifest.counts().items():
        for label in LABELS:
            row = {"folder": folder, "class": label, "here": by_class[label]}
            if standing == "published":
                row["published"] = COUNTS.get(folder, {}).get(label, "")
                row["original project"] = published.ORIGINAL_COUNTS.get(folder, {}).get(label, "")
            rows.append(row)
    return pd.DataFrame(rows)


def sizes(files: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest, mean and largest width and height by folder and class."""
    grouped = files.groupby(["folder", "label"], sort=False)[["width", "height"]]
    return grouped.agg(["min", "mean", "max"])


def splits(data: Dataset) -> pd.DataFrame:
    """Return how many images each split holds, and the share of PNEUMONIA among them."""
    rows = [[SPLITS[name], len(s), f"{s.labels.mean():.1%}"] for name, s in data.splits.items()]
    return pd.DataFrame(rows, columns=["split", "images", "PNEUMONIA"])


def origin(data: Dataset, standing: str) -> pd.DataFrame:
    """Return where the data comes from and under which terms; columns: "" (what), "this data"."""
    known = data.source.origin() | {
        "source": data.source.kind,
        "manifest digest": data.manifest.digest,
    }
    if standing == "published" and not data.source.counts:
        licence = f"{Kaggle.licence}, if this is a copy of it"
        known |= {"licence": licence, "citation": Kaggle.citation}
    names = ("source", "address", "version", "manifest digest", "checks", "licence", "citation")
    return pd.DataFrame([{"": name, "this data": known[name]} for name in names])


def audit(audited: list[Finding]) -> pd.DataFrame:
    """Return what the audit looked for, its verdict, what it found and the remedy."""
    rows = [[finding.verdict, finding.check, finding.says, finding.remedy] for finding in audited]
    return pd.DataFrame(rows, columns=["verdict", "looked for", "found", "remedy"])


def audit_files(audited: list[Finding]) -> pd.DataFrame:
    """Return the files that the audit names; those joined by = belong together."""
    rows = [[finding.check, finding.verdict, name] for finding in audited for name in finding.files]
    return pd.DataFrame(rows, columns=["looked for", "verdict", "files"])


def scores(
    models: Sequence[Scored],
    references: dict[str, Any] | None = None,
    splits: Sequence[str] = ("validation", "val", "test"),
    brief: bool = False,
) -> pd.DataFrame:
    """Return all scores of models and reference classifiers, a column for each and split.

    `references` are as under ``floors`` in ``metrics.json``; `splits` that are not there are left
    out; `brief` leaves out what only a statistician misses.
    """
    entries = {model.title: model.scores for model in models}
    entries |= {REFERENCES[name]: entry for name, entry in (references or {}).items()}
    columns = {
        (title, SPLITS[split]): _scores(entry[split])
        for split in splits
        for title, entry in entries.items()
        if split in entry
    }
    table = pd.DataFrame(columns)
    if len(set(table.columns.get_level_values(1))) == 1:
        table = table.droplevel(1, axis=1)
    rows = ["images", "patients", *(SCORES[score] for score in (*SHOWN, "ppv", "npv"))]
    return table.loc[rows] if brief else table


def _scores(entry: dict[str, Any]) -> dict[str, str]:
    area = entry["delong95"]["auroc"]
    return {
        "images": str(entry["n"]),
        "patients": str(entry["patients"] or "unknown"),
        **{title: with_interval(entry, score) for score, title in SCORES.items()},
        "AUROC by DeLong": f"[{area[0]:.3f}, {area[1]:.3f}]" if area else "undefined",
        "threshold": f"{entry['threshold']:.3f}",
    }


def operating_points(model: Scored) -> pd.DataFrame:
    """Return the rates on test at each operating point."""
    rows = []
    for name, point in model.test["operating_points"].items():
        in_use = " (in use)" if name == model.test["operating_point"] else ""
        row = {"operating point": POINTS[name] + in_use, "threshold": f"{point['threshold']:.3f}"}
        for score in ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1"):
            row[SCORES[score]] = with_interval(point, score)
        rows.append(row)
    return pd.DataFrame(rows)


def calibration(model: Scored) -> pd.DataFrame:
    """Return log loss, Brier score and calibration error of each split, before and after."""
    rows = {
        SPLITS[split]: {
            (SCORES[score], when): found[score]
            for score in ("loss", "brier", "ece")
            for when, found in (("before", entry["uncalibrated"]), ("after", entry))
        }
        for split, entry in model.scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def subtypes(models: Sequence[Scored]) -> pd.DataFrame:
    """Return hits and misses on test by subtype, and how well each is told from NORMAL."""
    rows = []
    for model in models:
        found = model.test["subtypes"]
        for kind in (kind for kind in KINDS if kind in found):
            entry = found[kind]
            right, area = entry["right"], with_interval(entry, "auroc") if "auroc" in entry else ""
            counts = [entry["n"], right, entry["n"] - right]
            rows.append([model.title, KINDS[kind], *counts, with_interval(entry, "rate"), area])
    rate = "sensitivity, or specificity of NORMAL"
    columns = ["model", "images", "n", "right", "wrong", rate, "AUROC against NORMAL"]
    return pd.DataFrame(rows, columns=columns)


def differences(pair: dict[str, Any]) -> pd.DataFrame:
    """Return the differences of two models, as `comparison.compare` gives them."""
    rows = {SCORES[score]: found for score, found in pair["differences"].items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    table = table.rename_axis("score").reset_index()
    return (
        table.rename(columns={"value": "{1} minus {0}".format(*pair["titles"])})
        .astype(object)
        .fillna("undefined")
    )


def agreement(pair: dict[str, Any]) -> pd.DataFrame:
    """Return on how many test images of each class both, one or none of two models is right."""
    first, second = pair["titles"]
    named = {"first alone": f"only {first} right", "second alone": f"only {second} right"}
    rows = [
        [named.get(kind, kind), *by_class.values(), sum(by_class.values())]
        for kind, by_class in pair["agreement"].items()
    ]
    return pd.DataFrame(rows, columns=["images", *LABELS, "all"])


def beside_original(models: Sequence[Scored]) -> pd.DataFrame:
    """Return loss and accuracy by model and split, beside what the original project reported."""
    rows = []
    for model in models:
        original = published.ORIGINAL.get(model.name)
        reported = {"val": original.val_accuracy, "test": original.accuracy} if original else {}
        for split, entry in model.scores.items():
            ours = [with_interval(entry, score) for score in ("accuracy", "loss")]
            loss = original.loss if original and split in reported else None
            rows.append([model.title, SPLITS[split], *ours, reported.get(split), loss])
    columns = [
        "model",
        "split",
        "accuracy",
        "log loss",
        "original's accuracy",
        "original's log loss",
    ]
    return pd.DataFrame(rows, columns=columns).astype(object).fillna("–")


def beside_published(models: Sequence[Scored], data: dict[str, Any]) -> pd.DataFrame:
    """Return the original project's scores, a run's own and those of others, with their protocols.

    `models` is empty where the run is not comparable; `data` is that of ``metrics.json``.
    """
    rows = [_published(score) for score in published.ORIGINAL.values()]
    for model in models:
        row = {"who": f"this run, {model.title}", "test images": str(model.test["n"])}
        row |= {SCORES[score]: with_interval(model.test, score) for score in SHOWN}
        rows.append(row | {"protocol and caveat": _own_protocol(model, data)})
    return pd.DataFrame(rows + [_published(score) for score in published.OTHERS])


def _published(score: published.Score) -> dict[str, str]:
    row = {"who": score.who, "test images": str(published.TEST_IMAGES)}
    for name in SHOWN:
        value = getattr(score, name)
        row[SCORES[name]] = "–" if value is None else f"{value:.3f}"
    return row | {"protocol and caveat": "; ".join(filter(None, (score.note, score.source)))}


def _own_protocol(model: Scored, data: dict[str, Any]) -> str:
    whole, scored = published.TEST_IMAGES, model.test["n"]
    width, height = data["median_size"]
    size, ours = model.card["image_size"], "validation" in model.scores
    told = [
        f"only {scored} of the {whole} published test images, so not row for row comparable",
        f"files of {width} x {height} px (median), seen at {size} x {size}",
        f"from {STARTS[model.card['start']['kind']]}",
        f"threshold from {'validation, split by patient' if ours else 'val'}",
    ]
    return "; ".join(told[scored == whole :])
