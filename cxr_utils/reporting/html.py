"""Turns executed notebooks into HTML files and writes the page of a run to open first."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from ..data.sources import REAL_RUN, REAL_RUN_COST
from ..evaluation import comparison, results
from ..files import read_json, within, write_atomically
from ..paths import TEMPLATES, RunFolder
from . import display, figures, findings, published, tables, text
from .display import FINDINGS, PAGES

# Keras' summary of a network: in colours for a dark terminal, and wider than a phone.
SUMMARY = re.compile(r'<pre style="white-space:pre;[^"]*">(.*?)</pre>', re.DOTALL)
CONTENTS = "<!-- contents -->"
GENERATED = '<meta name="generator" content="cxr_utils">'
BANNER = {"command": REAL_RUN, "cost": REAL_RUN_COST}
Page = tuple[str, str]  # a step, and the title of its report


def render(
    step: str, title: str, pages: Sequence[Page], folder: RunFolder, synthetic: bool, failed: bool
) -> None:
    """Write a step's report, which links to all `pages`, and says if `synthetic` or `failed`."""
    title = f"{'SYNTHETIC: ' * synthetic}{title}{f', run {folder.name}' if pages else ''}"
    about: dict[str, Any] = {"title": title, "pages": pages, "here": step, "contents": CONTENTS}
    about |= {"failed": failed, "synthetic": synthetic, **BANNER}
    places = [str(TEMPLATES.parent)]
    exporter = HTMLExporter(template_name=TEMPLATES.name, extra_template_basedirs=places)
    notebook = nbformat.read(folder.executed(step), as_version=4)
    notebook.cells = _findings_first(notebook.cells)
    body, _ = exporter.from_notebook_node(notebook, resources={"report": about})
    sections = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    frame: Any = PAGES.get_template("frame.html.j2").module
    body = body.replace(CONTENTS, frame.contents(sections), 1)
    write_atomically(folder.html(step), SUMMARY.sub(_plain, body))


def _findings_first(cells: list[Any]) -> list[Any]:
    """Put the cells with the tag ``findings``, which a notebook ends with, under its title."""
    found = [cell for cell in cells if "findings" in cell.metadata.get("tags", [])]
    if not any(cell.get("outputs") for cell in found):  # the notebook did not get that far
        return [cell for cell in cells if cell not in found]
    rest = [cell for cell in cells if cell not in found]
    title = 1 + next(n for n, cell in enumerate(rest) if cell.source.startswith("# "))
    return rest[:title] + found + rest[title:]


def _plain(found: re.Match) -> str:
    """Preformatted text without its colours; a table folded, and scrolling by keyboard too."""
    look = f'class="scroll" role="group" tabindex="0" aria-label="Layers {found.start()}"'
    text = re.sub("</?span[^>]*>", "", found[1])
    if "┃" not in text:
        return f"<pre>{text}</pre>"
    return f"<details><summary>Layers</summary><pre {look}>{text}</pre></details>"


def write_index(
    folder: RunFolder, record: dict[str, Any], pages: Sequence[Page], problems: Sequence[str]
) -> None:
    """Write ``index.html``: a card for each model, the verdict, findings, links, provenance.

    `record` is the content of ``run.json``; findings are those of the `pages` that are done.
    """
    known, models = results.read_metrics(folder), comparison.read_models(folder)
    synthetic, about = record["data"]["synthetic"], within(known, "data")
    told: dict[str, Any] = {"run": folder.name, "record": record, "problems": problems}
    if models:
        references, pairs = within(known, "floors"), comparison.read(folder)
        standing = published.standing(about.get("source", ""), about.get("counts", {}))
        judged = {"models": models, "references": references, "standing": standing}
        told["verdict"] = markdown2html(text.render("verdict", **judged, pairs=pairs))
        scored = tables.scores(models, references, ["test"])
        told["scores"] = display.table_html(scored, index=True)
        told["splits"] = markdown2html(text.render("splits", known=known))
        told["slider"] = display.slider(models, synthetic)
        told["plot"] = display.figure_html(figures.comparison(models), synthetic)
    written = [page for page in pages if folder.html(page[0]).is_file()]
    models_first = [*written[1:], *written[:1]]  # what is wrong with them weighs more than why
    told["findings"] = [one for page in models_first for one in _findings(folder, record, page)]
    told["findings"].sort(key=lambda found: findings.VERDICTS.index(found["verdict"]))
    told |= {"models": models, "pages": written, "synthetic": synthetic, **BANNER}
    write_atomically(folder.index, PAGES.get_template("overview.html.j2").render(told))


def _findings(folder: RunFolder, record: dict[str, Any], page: Page) -> list[dict[str, str]]:
    """What a report warns of or notes; nothing of a step that is not done."""
    step, title = page
    if not within(record, "steps", step).get("key"):
        return []
    outputs = [output for cell in read_json(folder.executed(step)).get("cells", [])
               for output in cell.get("outputs", [])]  # fmt: skip
    found = [one for output in outputs for one in output.get("data", {}).get(FINDINGS, [])]
    return [one | {"step": step, "title": title} for one in found if one["verdict"] != "fine"]


def write_runs(folder: Path) -> None:
    """Write ``index.html`` of all runs in a folder, unless something else put one there."""
    page = folder / "index.html"
    if page.is_file() and GENERATED not in page.read_text(encoding="utf-8", errors="replace"):
        return
    runs = [run for run in sorted(folder.iterdir()) if (run / "run.json").is_file()]
    rows = [row for run in runs for row in _run_rows(RunFolder(run))]
    write_atomically(page, PAGES.get_template("runs.html.j2").render(rows=rows))


def _run_rows(run: RunFolder) -> list[dict[str, Any]]:
    """A row for each model of a run; none where it cannot be read or is of another version."""
    try:
        record, known = read_json(run.record), results.read_metrics(run)
        rows, about = [], record["data"]
        came_from = [record["profile"], about["source"], record["written"][:16].replace("T", " ")]
        for name, splits in known.get("models", {}).items():
            title = read_json(run.model_card(name)).get("title", name)
            scores = [tables.with_interval(splits["test"], score) for score in tables.SHOWN]
            cells = [title, *scores, splits["test"]["n"], *came_from]
            rows.append({"run": run.name, "cells": cells, "synthetic": about["synthetic"]})
        return rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
