"""Turns executed notebooks into HTML files and writes the page of a run to open first."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from PIL import Image

from .. import paths
from ..data.sources import REAL_RUN, REAL_RUN_COST
from ..evaluation import comparison, metrics, results
from ..evaluation.comparison import Scored
from ..files import read_json, within, write_atomically
from . import display, published, tables, text

THUMBNAIL = 560  # pixels of the longer side, shown at half of it
PICTURE = re.compile(r'<img[^>]*?src="data:image/(?:png|jpeg);base64,(?P<data>[^"]+)"[^>]*>')
# Keras' summary of a network: in colours for a dark terminal, and wider than a phone.
SUMMARY = re.compile(r'<pre style="white-space:pre;[^"]*">(.*?)</pre>', re.DOTALL)
CONTENTS = "<!-- contents -->"
GENERATED = '<meta name="generator" content="cxr_utils">'
Page = tuple[str, str, str]  # a step, the title of its report, and the figure that stands for it


def render(
    step: str,
    title: str,
    pages: Sequence[Page],
    folder: paths.RunFolder,
    synthetic: bool,
    failed: bool = False,
) -> None:
    """Write the HTML report of a step from ``executed/<step>.ipynb``.

    It links to all `pages` of the run, and a banner says where its data is `synthetic` or the step
    `failed`.
    """
    notebook = nbformat.read(folder.executed(step), as_version=4)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    exporter = HTMLExporter(
        template_name=paths.TEMPLATES.name, extra_template_basedirs=[str(paths.TEMPLATES.parent)]
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    about = {
        "title": f"{'SYNTHETIC: ' if synthetic else ''}{title}, run {folder.name}",
        "pages": _navigation(pages),
        "here": f"{step}.html",
        "failed": failed,
        "marked": any(output.output_type == "error" for output in outputs),
        "contents": CONTENTS,
        **_frame(synthetic),
    }
    body, _ = exporter.from_notebook_node(notebook, resources={"report": about})
    body = body.replace(CONTENTS, _contents(body), 1)
    body = SUMMARY.sub(_plain, PICTURE.sub(_framed, body))
    write_atomically(folder.html(step), body)


def _frame(synthetic: bool) -> dict[str, Any]:
    """What every page of a run is given: its style, and what the banner says."""
    style = (paths.TEMPLATES / "style.css").read_text(encoding="utf-8")
    return {
        "style": style, "synthetic": synthetic, "command": REAL_RUN, "cost": REAL_RUN_COST,
    }  # fmt: skip


def _navigation(pages: Sequence[Page]) -> list[tuple[str, str]]:
    return [("index.html", "Overview"), *((f"{step}.html", title) for step, title, _ in pages)]


def _framed(found: re.Match) -> str:
    """A wide picture in a frame, so that on a phone it can be larger than the screen."""
    with Image.open(io.BytesIO(base64.b64decode(found["data"]))) as picture:
        width, height = picture.size
    if width < 1.4 * height:
        return found[0]
    label = f"Figure {found.start()}"
    return f'<div class="wide" role="region" tabindex="0" aria-label="{label}">{found[0]}</div>'


def _plain(found: re.Match) -> str:
    """Preformatted text without its colours, in a frame that scrolls by keyboard too."""
    told = re.sub("</?span[^>]*>", "", found[1])
    label = f"Summary {found.start()}"
    return f'<pre class="scroll" role="region" tabindex="0" aria-label="{label}">{told}</pre>'


def _contents(body: str) -> str:
    """Return a list of links to a report's sections."""
    found = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    if not found:
        return ""
    links = "\n".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in found)
    label = "Contents of this report"
    return f'<nav class="contents" aria-label="{label}"><ol>\n{links}\n</ol></nav>'


def write_index(
    folder: paths.RunFolder,
    record: dict[str, Any],
    pages: Sequence[Page],
    problems: Sequence[str],
) -> None:
    """Write ``index.html``: verdict, scores, the threshold to move, links, provenance.

    `record` is the content of ``run.json``; of each of the `pages` ``figures/<cover>.png`` is shown
    small where its step is done; `problems` say what failed.
    """
    known, models = results.read_metrics(folder), comparison.read_models(folder)
    synthetic, about = record["data"]["synthetic"], within(known, "data")
    verdict = {
        "models": models,
        "pairs": comparison.read(folder),
        "references": within(known, "floors"),
        "standing": published.standing(about.get("source", ""), about.get("counts", {})),
    }
    scored = (
        tables.scores(models, within(known, "floors"), ["test"], brief=True) if models else None
    )
    written = [page for page in pages if folder.html(page[0]).is_file()]
    page = _template("overview.html.j2").render(
        run=folder.name,
        pages=_navigation(written),
        problems=problems,
        verdict=text.render_html("verdict", **verdict) if models else "",
        scores=display.table_html(scored, index=True) if models else "",
        splits=text.render_html("splits", known=known) if models else "",
        slider=slider(models, synthetic) if models else "",
        thumbnails=[found for page in written if (found := _thumbnail(folder, record, *page))],
        provenance=_provenance(record),
        **_frame(synthetic),
    )
    write_atomically(folder.index, page)


def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(paths.TEMPLATES)
    return jinja2.Environment(loader=loader, trim_blocks=True).get_template(name)


def _thumbnail(
    folder: paths.RunFolder, record: dict[str, Any], step: str, title: str, cover: str
) -> dict[str, Any]:
    """The figure of a report, small and in the page itself; none of a step that is not done."""
    file = folder.figure(cover)
    if not within(record, "steps", step).get("key") or not file.is_file():
        return {}
    small = io.BytesIO()
    with Image.open(file) as stored:
        alt, picture = display.alt_text(stored), stored.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(small, "JPEG", quality=80, optimize=True)
    data = base64.b64encode(small.getvalue()).decode()
    width, height = (side // 2 for side in picture.size)
    shown = {"data": data, "width": width, "height": height}
    return {"page": f"{step}.html", "title": title, "alt": alt, **shown}


def slider(models: Sequence[Scored], synthetic: bool) -> str:
    """Return HTML in which the reader moves threshold and prevalence and sees each model's rates.

    It starts with each model at its own threshold. Script and data are inline: it works from a
    file and asks the network for nothing. Counts are of ``score >= threshold``, in the same double
    precision as everywhere else.
    """
    data, rows, labels = {}, [], models[0].answers()[0]
    for model in models:
        own, (labels, scores) = model.test["threshold"], model.answers()
        sick, well = (scores[labels == label].tolist() for label in (1, 0))
        data[model.name] = {"sick": sick, "well": well, "own": own}
        rates = metrics.rates(labels, scores, own)
        (tn, fp), (fn, tp) = rates["confusion_matrix"]
        cells = {"tp": tp, "fn": fn, "tn": tn, "fp": fp}
        for name in ("sensitivity", "specificity", "ppv", "npv"):
            cells[name] = tables.number(rates, name)
        rows.append({"model": model.name, "name": model.title, "own": own, "cells": cells})
    return _template("slider.html.j2").render(
        data=json.dumps(data).replace("<", "\\u003c"),
        rows=rows,
        share=float(labels.mean()),
        images=len(labels),
        synthetic=synthetic,
    )


def write_runs(folder: Path) -> None:
    """Write ``index.html`` of the folder of all runs: their test scores and links to their pages.

    A page that something else put there is left alone.
    """
    page = folder / "index.html"
    if page.is_file() and GENERATED not in page.read_text(encoding="utf-8", errors="replace"):
        return
    runs = [run for run in sorted(folder.iterdir()) if (run / "run.json").is_file()]
    rows = [row for run in runs for row in _run_rows(paths.RunFolder(run))]
    groups = [
        ("Real X-rays", [row for row in rows if not row["synthetic"]]),
        ("SYNTHETIC data", [row for row in rows if row["synthetic"]]),
    ]
    write_atomically(page, _template("runs.html.j2").render(groups=groups, **_frame(False)))


def _run_rows(run: paths.RunFolder) -> list[dict[str, Any]]:
    """A row for each model of a run; none where it cannot be read or is of another version."""
    try:
        record, known = read_json(run.record), results.read_metrics(run)
        rows = []
        for name, splits in known.get("models", {}).items():
            title = results.read_card(name, run).get("title", name)
            scores = [tables.with_interval(splits["test"], score) for score in tables.SHOWN]
            written = record["written"][:16].replace("T", " ")
            came_from = [record["profile"], record["data"]["source"], written]
            cells = [title, *scores, str(splits["test"]["n"]), *came_from]
            rows.append({"cells": cells, "synthetic": record["data"]["synthetic"]})
        link = f"{quote(run.name)}/index.html"
        return [row | {"run": run.name, "link": link} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    data, versions, machine = record["data"], record["versions"], record["machine"]
    real = f"real X-rays, source “{data['source']}”"
    kind = "SYNTHETIC, drawn by the phantom" if data["synthetic"] else real
    seconds = sum(step.get("seconds", 0) for step in record.get("steps", {}).values())
    libraries = ("python", "tensorflow", "keras", "scikit-learn")
    return [
        ("data", f"{kind}, manifest {data['manifest'][:12]}"),
        ("profile", record["profile"]),
        ("seed", str(record["seed"])),
        ("code", record["git"] or "not under version control"),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in libraries)),
        ("machine", f"{machine['processor']}, {machine['cores']} cores"),
        ("notebooks ran for", f"{seconds / 60:.1f} minutes, without trainings taken over"),
    ]
