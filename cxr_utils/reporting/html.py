"""Turns executed notebooks into HTML files and writes the page of a run to open first."""

from __future__ import annotations

import base64
import io
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
from ..evaluation import results
from ..files import read_json, within, write_atomically
from ..parameters import MODELS
from . import comparison, display, findings, published
from .display import SYNTHETIC_TITLE
from .names import MODEL_NAMES, SHOWN
from .slider import slider

# What the figure that stands for a report on the index shows; a matrix is told by its counts.
COVERS = {
    "class_counts": "Images of each class in each folder, drawn as bars.",
    "comparison": "Test scores of both models with their 95 % intervals.",
}
Pages = Sequence[tuple[str, str, str]]  # step, title, cover
THUMBNAIL = 560  # pixels of the longer side, shown at half of it
PICTURE = re.compile(r'<img[^>]*?src="data:image/(?:png|jpeg);base64,(?P<data>[^"]+)"[^>]*>')
CONTENTS = "<!-- contents -->"
GENERATED = '<meta name="generator" content="cxr_utils">'


def _links(pages: Pages) -> list[tuple[str, str]]:
    return [("index.html", "Overview"), *((f"{step}.html", title) for step, title, _ in pages)]


def render(
    step: str,
    title: str,
    pages: Pages,
    folder: paths.RunFolder,
    synthetic: bool,
    failed: bool = False,
) -> None:
    """Write the HTML report of a step from its executed notebook, marked where the step failed.

    Parameters
    ----------
    step : str
        Stem of the notebook.
    title : str
        What the report is called.
    pages : sequence of tuple
        Step, title and cover of each report of the run.
    folder : RunFolder
        The run; ``executed/<step>.ipynb`` must be there.
    synthetic : bool
        Whether the data is the phantom's; the report then carries a banner.
    failed : bool
        Whether the step did not run to its end; the report then says so.
    """
    notebook = nbformat.read(folder.executed(step), as_version=4)
    cells = [
        cell
        for cell in notebook.cells
        if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    notebook.cells = cells
    exporter = HTMLExporter(
        template_name=paths.TEMPLATES.name, extra_template_basedirs=[str(paths.TEMPLATES.parent)]
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    about = {
        "title": f"{'SYNTHETIC: ' if synthetic else ''}{title}, run {folder.name}",
        "style": _style(),
        "pages": _links(pages),
        "here": f"{step}.html",
        "synthetic": synthetic,
        "failed": failed,
        "marked": any(
            output.output_type == "error" for cell in cells for output in cell.get("outputs", [])
        ),
        "command": REAL_RUN,
        "cost": REAL_RUN_COST,
        "contents": CONTENTS,
    }
    body, _ = exporter.from_notebook_node(notebook, resources={"report": about})
    write_atomically(
        folder.html(step), PICTURE.sub(_framed, body.replace(CONTENTS, _contents(body), 1))
    )


def _framed(found: re.Match) -> str:
    """A wide picture in a frame, so that on a phone it can be larger than the screen; others as they are."""
    with Image.open(io.BytesIO(base64.b64decode(found["data"]))) as picture:
        width, height = picture.size
    if width < 1.4 * height:
        return found[0]
    return f'<div class="wide" role="region" tabindex="0" aria-label="Figure {found.start()}">{found[0]}</div>'


def _contents(body: str) -> str:
    """Return a list of links to a report's sections."""
    found = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    links = "\n".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in found)
    return (
        f'<nav class="contents" aria-label="Contents of this report"><ol>\n{links}\n</ol></nav>'
        if found
        else ""
    )


def write_index(
    folder: paths.RunFolder, record: dict[str, Any], pages: Pages, problems: list[str]
) -> None:
    """Write ``index.html``: verdict, scores, the threshold to move, links, provenance.

    Parameters
    ----------
    folder : RunFolder
        The run.
    record : dict
        Content of ``run.json``.
    pages : sequence of tuple
        Step, title and cover of each report of the run.
    problems : list of str
        What failed, if anything.
    """
    known = results.read_metrics(folder)
    models = within(known, "models")
    synthetic = record["data"]["synthetic"]
    standing = published.standing(
        known.get("data", {}).get("source", ""), known.get("data", {}).get("counts", {})
    )
    floors, bootstrap = known.get("floors", {}), known.get("bootstrap", {})
    predictions = {
        model: results.read_predictions(model, folder)
        for model in models
        if folder.predictions(model).is_file()
    }
    gaps = None
    if len(predictions) == len(MODELS):
        gaps = comparison.differences(
            comparison.pair(predictions, models), bootstrap["resamples"], bootstrap["seed"]
        )
    page = _template("overview.html.j2").render(
        run=folder.name,
        style=_style(),
        pages=[
            page
            for page in _links(pages)
            if page[0] == "index.html" or (folder.root / page[0]).is_file()
        ],
        synthetic=synthetic,
        command=REAL_RUN,
        cost=REAL_RUN_COST,
        problems=problems,
        verdict=[
            *comparison.verdict(models, floors, gaps, standing),
            *findings.about_networks(models, folder),
        ],
        scores=display.table_html(
            findings.score_table(models, floors, ["test"], brief=True), index=True
        )
        if models
        else "",
        splits=findings.about_splits(known) if models else "",
        slider=slider(predictions, models, synthetic) if predictions else "",
        thumbnails=_thumbnails(folder, pages, models, synthetic),
        provenance=_provenance(record),
    )
    write_atomically(folder.index, page)


def _style() -> str:
    return (paths.TEMPLATES / "style.css").read_text(encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.TEMPLATES), autoescape=False, trim_blocks=True
    )
    return environment.get_template(name)


def _thumbnails(
    folder: paths.RunFolder, pages: Pages, models: dict[str, Any], synthetic: bool
) -> list[dict[str, Any]]:
    """A figure of each report that is there, small and in the page itself."""
    mark = SYNTHETIC_TITLE if synthetic else ""
    found = []
    for step, title, name in pages:
        model = next((model for model in models if name == f"confusion_matrix_{model}_test"), None)
        if (
            (model or name in COVERS)
            and folder.html(step).is_file()
            and folder.figure(name).is_file()
        ):
            with Image.open(folder.figure(name)) as file:
                picture = file.convert("RGB")
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            small = io.BytesIO()
            picture.save(small, "JPEG", quality=80, optimize=True)
            data = base64.b64encode(small.getvalue()).decode()
            alt = mark + (_about_matrix(model, models) if model else COVERS[name])
            width, height = (side // 2 for side in picture.size)
            found.append(
                {
                    "page": f"{step}.html",
                    "title": title,
                    "alt": alt,
                    "data": data,
                    "width": width,
                    "height": height,
                }
            )
    return found


def _about_matrix(model: str, models: dict[str, Any]) -> str:
    return f"Confusion matrix of {MODEL_NAMES[model]} on test: {findings.matrix_in_words(models[model]['test'])}"


def write_runs(folder: Path) -> None:
    """Write ``index.html`` of the folder of all runs: their test scores and links to their pages.

    A page that something else put there is left alone.
    """
    page = folder / "index.html"
    if page.is_file() and GENERATED not in page.read_text(encoding="utf-8", errors="replace"):
        return
    rows = [
        row
        for run in sorted(folder.iterdir())
        if (run / "run.json").is_file()
        for row in _run_rows(paths.RunFolder(run))
    ]
    groups = [
        ("Real X-rays", [row for row in rows if not row["synthetic"]]),
        ("SYNTHETIC data", [row for row in rows if row["synthetic"]]),
    ]
    write_atomically(page, _template("runs.html.j2").render(style=_style(), groups=groups))


def _run_rows(run: paths.RunFolder) -> list[dict[str, Any]]:
    """A row for each model of a run; a run that cannot be read, or was written by another version, has none."""
    try:
        record, known = read_json(run.record), results.read_metrics(run)
        return [
            {
                "run": run.name,
                "link": f"{quote(run.name)}/index.html",
                "synthetic": record["data"]["synthetic"],
                "cells": [
                    MODEL_NAMES[model],
                    *(findings.with_interval(splits["test"], score) for score in SHOWN),
                    str(splits["test"]["n"]),
                    record["profile"],
                    record["data"]["source"],
                    record["written"][:16].replace("T", " "),
                ],
            }
            for model, splits in known.get("models", {}).items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    data, versions, steps = record["data"], record["versions"], record.get("steps", {})
    kind = (
        "SYNTHETIC, drawn by the phantom"
        if data["synthetic"]
        else f"real X-rays, source “{data['source']}”"
    )
    seconds = sum(step.get("seconds", 0) for step in steps.values())
    return [
        ("data", f"{kind}, manifest {data['manifest'][:12]}"),
        ("profile", record["profile"]),
        ("seed", str(record["seed"])),
        ("code", record["git"] or "not under version control"),
        (
            "versions",
            ", ".join(
                f"{name} {versions[name]}"
                for name in ("python", "tensorflow", "keras", "scikit-learn")
            ),
        ),
        ("machine", f"{record['machine']['processor']}, {record['machine']['cores']} cores"),
        (
            "notebooks ran for",
            f"{seconds / 60:.1f} minutes, without trainings that were taken over from before",
        ),
    ]
