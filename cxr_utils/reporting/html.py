"""Turns executed notebooks into HTML files and writes the page of a run to open first."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from PIL import Image

from ..data.sources import REAL_RUN, REAL_RUN_COST
from ..evaluation import comparison, results
from ..files import read_json, within, write_atomically
from ..paths import TEMPLATES, RunFolder
from . import display, published, tables, text
from .display import PAGES

THUMBNAIL = 560  # pixels of the longer side, shown at half of it
# Keras' summary of a network: in colours for a dark terminal, and wider than a phone.
SUMMARY = re.compile(r'<pre style="white-space:pre;[^"]*">(.*?)</pre>', re.DOTALL)
CONTENTS = "<!-- contents -->"
GENERATED = '<meta name="generator" content="cxr_utils">'
BANNER = {"command": REAL_RUN, "cost": REAL_RUN_COST}
Page = tuple[str, str, str]  # a step, the title of its report, and the figure that stands for it


def render(
    step: str, title: str, pages: Sequence[Page], folder: RunFolder, synthetic: bool, failed: bool
) -> None:
    """Write a step's report, which links to all `pages`, and says if `synthetic` or `failed`."""
    title = f"{'SYNTHETIC: ' if synthetic else ''}{title}, run {folder.name}"
    about: dict[str, Any] = {"title": title, "pages": pages, "here": step, "contents": CONTENTS}
    about |= {"failed": failed, "synthetic": synthetic, **BANNER}
    places = [str(TEMPLATES.parent)]
    exporter = HTMLExporter(template_name=TEMPLATES.name, extra_template_basedirs=places)
    body, _ = exporter.from_filename(str(folder.executed(step)), resources={"report": about})
    sections = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    frame: Any = PAGES.get_template("frame.html.j2").module
    body = body.replace(CONTENTS, frame.contents(sections), 1)
    write_atomically(folder.html(step), SUMMARY.sub(_plain, body))


def _plain(found: re.Match) -> str:
    """Preformatted text without its colours, in a frame that scrolls by keyboard too."""
    look = f'class="scroll" role="region" tabindex="0" aria-label="Summary {found.start()}"'
    return f"<pre {look}>{re.sub('</?span[^>]*>', '', found[1])}</pre>"


def write_index(
    folder: RunFolder, record: dict[str, Any], pages: Sequence[Page], problems: Sequence[str]
) -> None:
    """Write ``index.html``: verdict, scores, the threshold to move, links, provenance.

    `record` is the content of ``run.json``; the covers of those `pages` that are done are shown.
    """
    known, models = results.read_metrics(folder), comparison.read_models(folder)
    synthetic, about = record["data"]["synthetic"], within(known, "data")
    told: dict[str, Any] = {}
    if models:
        references, pairs = within(known, "floors"), comparison.read(folder)
        standing = published.standing(about.get("source", ""), about.get("counts", {}))
        judged = {"models": models, "references": references, "standing": standing}
        scored = tables.scores(models, references, ["test"]).loc[tables.BRIEF]
        told["verdict"] = markdown2html(text.render("verdict", **judged, pairs=pairs))
        told["scores"] = display.table_html(scored, index=True)
        told["splits"] = markdown2html(text.render("splits", known=known))
        told["slider"] = display.slider(models, synthetic)
    written = [page for page in pages if folder.html(page[0]).is_file()]
    thumbnails = [found for page in written if (found := _thumbnail(folder, record, page))]
    told |= {"run": folder.name, "record": record, "synthetic": synthetic, "problems": problems}
    told |= {"pages": written, "thumbnails": thumbnails, **BANNER}
    write_atomically(folder.index, PAGES.get_template("overview.html.j2").render(told))


def _thumbnail(folder: RunFolder, record: dict[str, Any], page: Page) -> dict[str, Any]:
    """The figure of a report, small and in the page itself; none of a step that is not done."""
    step, title, cover = page
    file = folder.figure(cover)
    if not within(record, "steps", step).get("key") or not file.is_file():
        return {}
    small = io.BytesIO()
    with Image.open(file) as stored:
        alt, picture = stored.info.get("Description", ""), stored.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(small, "JPEG", quality=80, optimize=True)
    data = base64.b64encode(small.getvalue()).decode()
    return {"step": step, "title": title, "alt": alt, "data": data, "size": picture.size}


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
