"""Fills the templates of the reports' prose with numbers, and computes those numbers."""

import functools
import html
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from .. import parameters, paths
from ..data.manifest import Manifest
from ..data.sources import COUNTS, REAL_RUN
from ..data.splits import patients_known, reused_numbers
from ..evaluation import metrics, results, studies
from ..evaluation.comparison import Scored
from . import published, tables

MARKUP = str.maketrans({character: "\\" + character for character in "\\`*_[]$"})
Numbers = dict[str, Any]  # what a template is filled with
SURE = 0.05  # P(true class) under which a model counts as sure of its error


def render(template: str, **numbers: Any) -> str:
    """Return ``templates/<template>.md.j2``, filled in, as Markdown; text put in is escaped."""
    return _environment().get_template(f"{template}.md.j2").render(numbers).strip()


def render_lines(template: str, **numbers: Any) -> list[str]:
    """Return the same as lines of plain text, for a terminal."""
    plain = html.unescape(re.sub(r"\\(.)", r"\1", render(template, **numbers)))
    return [line.removeprefix("- ") for line in plain.splitlines() if line]


@functools.cache
def _environment() -> jinja2.Environment:
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "autoescape": True}
    options |= {"undefined": jinja2.StrictUndefined, "finalize": _escaped}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(paths.TEMPLATES), **options)
    environment.filters.update(
        score=lambda entry, name: Markup(tables.with_interval(entry, name)),
        three=tables.three,
        says=tables.says,
        remedy=tables.remedy,
        signed=lambda value, digits=3: f"{value:+.{digits}f}",
        percent=lambda value, digits=0: f"{value:.{digits}%}",
        p=lambda value: Markup("p < 0.001") if value < 0.001 else f"p = {value:.3f}",
        markdown=_markdown,
    )
    for module in (tables, published, results):
        environment.globals |= {n: value for n, value in vars(module).items() if n.isupper()}
    environment.globals |= {"TEST_COUNTS": COUNTS["test"], "REAL_RUN": REAL_RUN}
    return environment


def _escaped(value: Any) -> Any:
    """Text with its Markdown escaped; HTML in it is escaped by Jinja."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return value.translate(MARKUP) if plain else value


def _markdown(table: pd.DataFrame, index: bool = False) -> Markup:
    """A table in Markdown; its cells may hold links."""
    table = table.rename_axis("").reset_index() if index else table
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return Markup("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))


def counts(manifest: Manifest, standing: str) -> Numbers:
    """Return the numbers of ``counts``: those of each published folder, here and published."""
    found = manifest.counts() if standing == "published" else {}
    return {"folders": [(name, found[name], COUNTS[name]) for name in COUNTS if name in found]}


def children(files: pd.DataFrame) -> Numbers:
    """Return the numbers of ``children``: how many patients stand behind the test images."""
    test = files[files["folder"] == "test"]
    kinds = test.groupby("subtype")["patient"].nunique().to_dict()
    told = {"images": len(test), "patients": test["patient"].nunique(), "kinds": kinds}
    return told | {"known": patients_known(files)}


def sizes(files: pd.DataFrame) -> Numbers:
    """Return the numbers of ``sizes``: the files' size by folder, and their aspect by class."""
    aspect = files["width"] / files["height"]
    return {
        "one": len(files[["width", "height"]].drop_duplicates()) == 1,
        "folders": files.groupby("folder", sort=False)[["width", "height"]].mean().to_dict("index"),
        "aspect": aspect.groupby(files["label"]).mean().to_dict(),
    }


def occlusion(table: pd.DataFrame, title: str) -> Numbers:
    """Return what hiding each part of the films costs; see `tables.occlusion`."""
    lost = table[table.index.str.startswith("without")].rename(lambda view: view.split(" the ")[1])
    others = lost.drop("outer thirds")["lost, high"].max()
    told = {"title": title, "whole": table["AUROC"].iloc[0], "border": table.loc["only the border"]}
    told |= {"lost": lost, "lungs_most": lost.at["outer thirds", "lost, low"] > others}
    return told | {"border_counts": lost.at["border", "lost, low"] > 0}


def errors(model: Scored) -> Numbers:
    """Return the numbers of ``errors``: what is called wrongly, and how surely."""
    labels, scores = model.answers()
    of_the_truth = np.where(labels == 1, scores, 1 - scores)[~model.right()]
    return {"test": model.test, "sure": int((of_the_truth < SURE).sum()), "limit": 1 - SURE}


def telling_cases(model: Scored, most: int) -> pd.DataFrame:
    """Return the surest false alarms, misses and hits on test, with their ``row`` there.

    At most so many of each; the columns are those that `display.films` shows.
    """
    sick, right, scores = model.answers()[0] == 1, model.right(), model.part()["score"]
    cases = {
        "false alarm": scores[~sick & ~right].nlargest(most),
        "missed": scores[sick & ~right].nsmallest(most),
        "found": scores[sick & right].nlargest(most // 2),
    }
    kinds = [kind for kind, found in cases.items() for _ in found]
    rows = np.concatenate([found.index.to_numpy(int) for found in cases.values()])
    told = model.part().iloc[rows]
    words = [f"score {score:.2f}" for score in told["score"]]
    return _cases(told, rows, kinds, words)


def wrong_by_all(models: Sequence[Scored]) -> pd.DataFrame:
    """Return test films that every model calls wrongly, the surest first, as `telling_cases`."""
    wrong = ~np.any([model.right() for model in models], axis=0)
    labels, truth = models[0].answers()[0], []
    for model in models:
        scores = model.answers()[1]
        truth.append(np.where(labels == 1, scores, 1 - scores))
    rows = np.flatnonzero(wrong)[np.argsort(np.mean(truth, axis=0)[wrong], kind="stable")]
    told = models[0].part().iloc[rows]
    kinds = ["missed" if labels[row] else "false alarm" for row in rows]
    words = [
        "scores " + ", ".join(f"{model.answers()[1][row]:.2f}" for model in models) for row in rows
    ]
    return _cases(told, rows, kinds, words)


def _cases(told: pd.DataFrame, rows: np.ndarray, kinds: list[str], words: list[str]) -> Any:
    shown = {"row": rows, "kind": kinds, "subtype": told["subtype"].map(tables.KINDS).to_numpy()}
    return pd.DataFrame(shown | {"scores": words, "name": told["path"].to_numpy()})


def calibration(model: Scored) -> Numbers:
    """Return the numbers of ``calibration``: whether test scores can be read as probabilities."""
    labels, scores = model.answers()
    return {"test": model.test, "mean": scores.mean(), "share": labels.mean()}


def doubtful(model: Scored, files: pd.DataFrame) -> Numbers:
    """Return the numbers of ``doubtful``: test without patients that may be in training as well.

    `files` are those of the data set, those of test in the order of the predictions.
    """
    out = reused_numbers(files)[files["split"] == "test"].notna().to_numpy()
    labels, scores = (values[~out] for values in model.answers())
    well, sick = np.bincount(labels, minlength=2).tolist()
    found = {"model": model, "images": int(out.sum()), "sick": sick, "well": well, "without": None}
    found["known"] = patients_known(files)
    if sick and well:
        rates = metrics.rates(labels, scores, model.test["threshold"])
        found["without"] = rates | metrics.of_scores(labels, scores)
    return found


def missing(models: Sequence[Scored]) -> Numbers:
    """Return the numbers of ``missing``: the notebooks that train a model, and what is there."""
    names = [file.stem for file in sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]
    steps = [name for name in names if name.split("_", 1)[1] in parameters.MODELS]
    return {"steps": steps, "models": models}


def answers(table: pd.DataFrame) -> Numbers:
    """Return the numbers of ``answers``: how many films a model was asked about, and what it said.

    `table` is that of `results.read_answers`.
    """
    sure = table[table["error"].isna() & table["unsure"].isna()]["decision"]
    told: Numbers = {"films": len(table), "errors": int(table["error"].notna().sum())}
    told |= {
        "positive": int((sure == "PNEUMONIA").sum()),
        "negative": int((sure == "NORMAL").sum()),
    }
    told["unsure"] = int(table["unsure"].notna().sum())
    return told | (table.iloc[0][["model", "run"]].to_dict() if len(table) else {})


def new_films(table: pd.DataFrame) -> pd.DataFrame:
    """Return answers to films as `display.films` shows them, the most probable pneumonias first."""
    ranked = table.sort_values("probability", ascending=False)
    words = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, (low, high)
             in zip(ranked["probability"], ranked["interval"], strict=True)]  # fmt: skip
    reasons = ranked["unsure"].fillna("")
    kinds = ranked["decision"].where(ranked["unsure"].isna(), "unsure")
    return pd.DataFrame({
        "kind": kinds, "subtype": reasons, "scores": words, "name": ranked["path"],
        "probability": ranked["probability"], "distance": ranked["distance"],
    })  # fmt: skip


def study(found: studies.StudyResults, model: str, gaps: pd.DataFrame) -> Numbers:
    """Return what the answer of a study says of a model; `gaps` are `studies.differences`."""
    rows, chooses = found.rows[found.rows["model"] == model], bool(found.factors)
    split = "validation" if chooses or found.about["folds"] else "test"
    prefix = "test_" if split == "test" else ""
    spread = studies.spread_of_shares
    scores = {tables.SCORES[score]: spread(rows[prefix + score]) for score in tables.SHOWN}
    sure = gaps[gaps["holm"] < studies.ALPHA]
    take, listed = studies.take(gaps, found.base), gaps.to_dict("records")
    best = next((gap for gap in listed if gap["setting"] == take), listed[0] if listed else None)
    return {"scores": scores, "split": split, "title": rows["title"].iloc[0], "base": found.base,
            "chooses": chooses, "folds": found.about["folds"], "gaps": listed, "take": take,
            "tried": len({cell["setting"] for cell in found.about["cells"].values()}) - 1,
            "best": best, "worse": list(sure[sure["value"] > 0]["setting"]),
            "better": list(sure[sure["value"] < 0]["setting"]),
            "apart": studies.apart(rows[prefix + "auroc"]),
            "doubling": studies.doubling(found, model)}  # fmt: skip
