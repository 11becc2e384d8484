"""Tables of the data, of scores and of published work; a cell is a number or a formatted score."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from scipy.special import expit

from .. import paths
from ..data.dataset import Dataset
from ..data.manifest import LABELS, Manifest, labels_of
from ..data.sources import COUNTS, Kaggle
from ..evaluation import intervals, metrics, results
from ..evaluation.audit import Finding
from ..evaluation.comparison import Scored
from . import published

SPLITS = {"train": "training", "validation": "validation", "val": "val", "test": "test"}
KINDS = {"normal": "NORMAL", "bacteria": "PNEUMONIA, bacterial"}
KINDS |= {"virus": "PNEUMONIA, viral", "unknown": "PNEUMONIA"}
POINTS = {"half": "0.5", "youden": "Youden", "sensitivity": "target sensitivity"}
REFERENCES = {"always_pneumonia": "always PNEUMONIA", "metadata": "metadata alone"}
REFERENCES |= {"border": "border alone"}
SCORES = {"accuracy": "accuracy", "auroc": "AUROC", "auprc": "AUPRC"}
SCORES |= {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
SCORES |= {"f1": "F1", "loss": "log loss", "brier": "Brier score"}
SCORES |= {"ece": "expected calibration error"}
SHOWN = ("accuracy", "auroc", "sensitivity", "specificity")  # where there is room for four
BRIEF = [SCORES[score] for score in ("auroc", "sensitivity", "specificity", "accuracy", "loss")]
STARTS = {"random": "random weights", "imagenet": "ImageNet weights", "file": "weights from a file"}


def with_interval(entry: dict[str, Any], score: str) -> str:
    """Return a score of ``metrics.json`` as text, with its 95% interval where it has one."""
    said, interval = three(entry[score]), results.best_interval(entry, score)
    return f"{said} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else said


def three(value: float | None) -> str:
    """Return a number with three decimals; None and NaN are undefined."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.3f}"


def counts(manifest: Manifest, standing: str) -> pd.DataFrame:
    """Return images per folder and class, beside the published counts and the original's."""
    columns = {"here": manifest.counts()}
    if standing == "published":
        columns |= {"published": COUNTS, "original project": published.ORIGINAL_COUNTS}
    rows = [
        [folder, label, *(found.get(folder, {}).get(label, "") for found in columns.values())]
        for folder in columns["here"]
        for label in LABELS
    ]
    return pd.DataFrame(rows, columns=["folder", "class", *columns])


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
    terms = ("address", "version", "checks", "licence", "citation")
    known = {name: getattr(data.source, name) for name in terms}
    known |= {"source": data.source.kind, "manifest digest": data.manifest.digest}
    if standing == "published" and not data.source.counts:
        licence = f"{Kaggle.licence}, if this is a copy of it"
        known |= {"licence": licence, "citation": Kaggle.citation}
    names = ("source", "address", "version", "manifest digest", "checks", "licence", "citation")
    return pd.DataFrame([{"": name, "this data": known[name]} for name in names])


def says(finding: Finding) -> str:
    """Return what was found, in words and numbers."""
    return _filled(finding, "")


def remedy(finding: Finding) -> str:
    """Return what to do about a finding; empty where all is fine."""
    return "" if finding.verdict == "fine" else _filled(finding, "_remedy")


def _filled(finding: Finding, part: str) -> str:
    name = finding.check.replace(" ", "_").replace("-", "_") + part
    macro = getattr(_template("findings.md.j2").module, name)
    return " ".join(macro(finding.facts | {"verdict": finding.verdict}).split())


@functools.cache
def _template(name: str) -> jinja2.Template:
    """A template of plain text, which a table escapes where it is shown."""
    loader = jinja2.FileSystemLoader(paths.TEMPLATES)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined).get_template(name)


def audit(audited: list[Finding]) -> pd.DataFrame:
    """Return what the audit looked for, its verdict, what it found and the remedy."""
    rows = [[one.verdict, one.check, says(one), remedy(one)] for one in audited]
    return pd.DataFrame(rows, columns=["verdict", "looked for", "found", "remedy"])


def audit_files(audited: list[Finding]) -> pd.DataFrame:
    """Return the files that the audit names; those joined by = belong together."""
    rows = [[finding.check, finding.verdict, name] for finding in audited for name in finding.files]
    return pd.DataFrame(rows, columns=["looked for", "verdict", "files"])


def seeds(logits: Sequence[np.ndarray], model: Scored, seed: int) -> pd.DataFrame:
    """Return what each member of an ensemble scores on test by itself, and the ensemble.

    `logits` are those of the members, from `seed` on; temperature and threshold the ensemble's.
    """
    labels, cut, rows = labels_of(model.part()), model.test["threshold"], {}
    for number, logit in enumerate(logits):
        scores = expit(logit / model.test["temperature"])
        rows[f"seed {seed + number}"] = metrics.of_scores(labels, scores) | metrics.rates(
            labels, scores, cut
        )
    table = pd.DataFrame(rows | {"ensemble": model.test}).T[[*SHOWN]]
    return table.astype(float).rename(columns=SCORES)


def occlusion(views: dict[str, np.ndarray], part: pd.DataFrame) -> pd.DataFrame:
    """Return AUROCs with parts of the films hidden, and what that costs, by DeLong.

    `views` hold the logits of the images in `part`, the whole film's first. What is undefined is
    NaN: everything with fewer than two patients of a class, and intervals without any error.
    """
    known, rows = (labels_of(part), part["patient"].to_numpy()), {}
    for view, logit in views.items():
        area = intervals.delong(known[0], logit, known[1])
        cost = intervals.delong(known[0], next(iter(views.values())), known[1], less=logit)
        low, high = (area and area.interval_of_share) or (np.nan, np.nan)
        lost = cost.as_difference() if cost else dict.fromkeys(("value", "low", "high"), np.nan)
        of_area = [area.value if area else np.nan, low, high]
        rows[view] = [*of_area, lost["value"], lost["low"], lost["high"]]
    columns = ["AUROC", "low", "high", "AUROC lost", "lost, low", "lost, high"]
    return pd.DataFrame.from_dict(rows, "index", columns=columns)


def scores(
    models: list[Scored], references: dict[str, Any] | None = None, splits: Iterable[str] = SPLITS
) -> pd.DataFrame:
    """Return all scores of models and reference classifiers, a column for each and split.

    `references` are as under ``floors`` in ``metrics.json``; `splits` not there are left out.
    """
    known = {model.title: model.scores for model in models}
    known |= {f"reference: {REFERENCES[name]}": one for name, one in (references or {}).items()}
    columns = {
        (title, SPLITS[split]): _scores(entries[split])
        for split in splits
        for title, entries in known.items()
        if split in entries
    }
    table = pd.DataFrame(columns)
    one_split = table.columns.get_level_values(1).nunique() == 1
    return table.droplevel(1, axis=1) if one_split else table


def _scores(entry: dict[str, Any]) -> dict[str, str]:
    area = entry["delong95"]["auroc"]
    return {
        "images": str(entry["n"]),
        "patients": str(entry["patients"] or "unknown"),
        **{title: with_interval(entry, score) for score, title in SCORES.items()},
        "AUROC, DeLong's 95% CI": f"[{area[0]:.3f}, {area[1]:.3f}]" if area else "undefined",
        "threshold": f"{entry['threshold']:.3f}",
    }


def operating_points(model: Scored, every: bool = False) -> pd.DataFrame:
    """Return the rates on test at each operating point: two of them, or `every` one."""
    rows, shown = [], ("sensitivity", "specificity")
    for name, point in model.test["operating_points"].items():
        in_use = " (in use)" if name == model.test["operating_point"] else ""
        row = {"operating point": POINTS[name] + in_use, "threshold": three(point["threshold"])}
        rates = (*shown, "accuracy", "ppv", "npv", "f1") if every else shown
        rows.append(row | {SCORES[score]: with_interval(point, score) for score in rates})
    return pd.DataFrame(rows)


def calibration(model: Scored) -> pd.DataFrame:
    """Return log loss, Brier score and calibration error of each split, before and after."""
    entries, columns = model.scores.values(), {}
    for score in ("loss", "brier", "ece"):
        columns[SCORES[score], "before"] = [entry["uncalibrated"][score] for entry in entries]
        columns[SCORES[score], "after"] = [entry[score] for entry in entries]
    return pd.DataFrame(columns, index=[SPLITS[split] for split in model.scores])


def subtypes(models: Sequence[Scored]) -> pd.DataFrame:
    """Return hits and misses on test by subtype, and how well each is told from NORMAL."""
    rows = []
    for model in models:
        for kind in (kind for kind in KINDS if kind in model.test["subtypes"]):
            entry = model.test["subtypes"][kind]
            counts = [entry["n"], entry["right"], entry["n"] - entry["right"]]
            area = with_interval(entry, "auroc") if "auroc" in entry else ""
            rows.append([model.title, KINDS[kind], *counts, with_interval(entry, "rate"), area])
    rate = "sensitivity (NORMAL: specificity)"
    columns = ["model", "class", "images", "right", "wrong", rate, "AUROC against NORMAL"]
    return pd.DataFrame(rows, columns=columns)


def specificities(table: pd.DataFrame) -> pd.DataFrame:
    """Return specificity at fixed sensitivities, as `comparison.at_sensitivities` gives it."""
    told = [
        three(row.specificity)
        + ("" if math.isnan(row.low) else f" [{three(row.low)}, {three(row.high)}]")
        for row in table.itertuples()
    ]
    wide = table.assign(told=told).pivot(index="model", columns="sensitivity", values="told")
    wide.columns = [f"at {sensitivity:.0%} sensitivity" for sensitivity in wide.columns]
    return wide.loc[table["model"].unique()].rename_axis("").reset_index()


def selective(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scores at each share of films answered, as `comparison.selective` gives them."""
    told = {"answered": table["answered"].map("{:.0%}".format), "films": table["films"]}
    for name in ("accuracy", "AUROC", "gain"):
        ends = zip(table[name], table[f"{name}, low"], table[f"{name}, high"], strict=True)
        told[name] = [f"{three(value)} [{three(low)}, {three(high)}]" for value, low, high in ends]
    return pd.DataFrame(told).rename(columns={"gain": "accuracy gain"})


def differences(pair: dict[str, Any]) -> pd.DataFrame:
    """Return the differences of two models, as `comparison.compare` gives them."""
    found, (first, second) = pair["differences"], pair["titles"]
    equal = {
        name: f"specificity at {float(name.removeprefix('specificity_at_')):.0%} sensitivity"
        for name in found
        if name.startswith("specificity_at")
    }
    names = {"auroc": SCORES["auroc"]} | equal | SCORES
    rows = [[title, *found[score].values()] for score, title in names.items() if score in found]
    columns = ["score", f"{second} minus {first}", "95% CI, low", "95% CI, high"]
    return pd.DataFrame(rows, columns=columns).astype(object).fillna("undefined")


def agreement(pair: dict[str, Any]) -> pd.DataFrame:
    """Return on how many test images of each class both, one or none of two models is right."""
    first, second = pair["titles"]
    named = {"first alone": f"only {first} right", "second alone": f"only {second} right"}
    table = pd.DataFrame(pair["agreement"]).rename(columns=named).T.rename_axis("images")
    return table.assign(all=table.sum(axis=1)).reset_index()


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
    theirs = ("original's accuracy", "original's log loss")
    columns = ["model", "split", "accuracy", "log loss", *theirs]
    return pd.DataFrame(rows, columns=columns).astype(object).fillna("–")


def beside_published(models: Sequence[Scored], data: dict[str, Any]) -> pd.DataFrame:
    """Return the original project's scores, a run's own and those of others, with their protocols.

    `models` is empty where the run is not comparable; `data` is that of ``metrics.json``.
    """
    rows = [_published(score) for score in published.ORIGINAL.values()]
    for model in models:
        row = {"model": f"this run, {model.title}", "test images": str(model.test["n"])}
        row |= {SCORES[score]: with_interval(model.test, score) for score in SHOWN}
        rows.append(row | {"protocol and caveat": _own_protocol(model, data)})
    return pd.DataFrame(rows + [_published(score) for score in published.OTHERS])


def _published(score: published.Score) -> dict[str, str]:
    row = {"model": score.who, "test images": str(published.TEST_IMAGES)}
    for name in SHOWN:
        value = getattr(score, name)
        row[SCORES[name]] = "–" if value is None else f"{value:.3f}"
    return row | {"protocol and caveat": "; ".join(filter(None, (score.note, score.source)))}


def _own_protocol(model: Scored, data: dict[str, Any]) -> str:
    told = {"whole": published.TEST_IMAGES, "start": STARTS[model.card["start"]["kind"]]}
    return _template("protocol.md.j2").render(told, model=model, data=data)
