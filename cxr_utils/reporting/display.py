"""Shows figures, tables and prose in a notebook, and keeps the figures as files of the run."""

import base64
import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import display
from PIL import Image
from sklearn import metrics as sk

from .. import paths
from ..evaluation.audit import Finding
from ..evaluation.comparison import Scored
from ..files import replacing
from . import tables, text

DPI = 110
FILM = 256  # side of a film that is shown to be looked at, in pixels
ORDER = ("probability", "distance", "name")  # by which films can be sorted
FINDINGS = "application/x-findings+json"  # what a notebook found, beside its HTML
# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
CLASS_COLOURS = {"NORMAL": "#0072B2", "PNEUMONIA": "#D55E00"}
MODEL_COLOURS = ("#009E73", "#CC79A7", "#F0E442", "#999999")
SPLIT_COLOURS = ("#E69F00", "#56B4E9")  # what choices are made on, and test
PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(paths.TEMPLATES), trim_blocks=True)
PAGES.filters["score"] = tables.with_interval


# What a figure's colours become in a page, so that they follow its light or dark look.
INKS = {"#262626": "var(--ink)", "#cccccc": "var(--grid)"}
LOOK = """<style>:root { --ink: #262626; --grid: #cccccc; background: #ffffff; }
@media (prefers-color-scheme: dark) {
:root { --ink: #e4e9ee; --grid: #46535f; background: #14191e; } }</style>"""


@dataclass(frozen=True)
class Figure:
    """A drawing with the name of its file, its title, what to see in it, and its alt text."""

    drawn: plt.Figure
    name: str
    title: str
    caption: str
    alt: str
    photo: bool = False  # a grid of X-rays: displayed as JPEG, everything else as SVG
    small: bool = False  # stands beside others


@dataclass(frozen=True)
class Gallery:
    """Shows figures in a notebook and keeps them in a run's folder; `synthetic` ones say so."""

    run: paths.RunFolder
    synthetic: bool

    def show(self, figure: Figure) -> None:
        """Save a figure as ``figures/<name>.png``, alt text inside, and display it."""
        self.save(figure)
        show_html(figure_html(figure, self.synthetic))

    def save(self, figure: Figure) -> None:
        """Save a figure that the report leaves out."""
        figure.drawn.suptitle(_mark(self.synthetic) + figure.title)
        about = {"Description": _mark(self.synthetic) + figure.alt}
        with replacing(self.run.figure(figure.name)) as part:  # tight: no wide title is cut
            figure.drawn.savefig(part, dpi=DPI, bbox_inches="tight", metadata=about)
        plt.close(figure.drawn)


def figure_html(figure: Figure, synthetic: bool) -> str:
    """Return a figure as HTML, for JupyterLab shows a picture of its own without its alt text."""
    alt = escape(_mark(synthetic) + figure.alt)
    figure.drawn.suptitle(_mark(synthetic) + figure.title)
    shown = f'<img alt="{alt}" src="{data_address(figure)}">'
    plt.close(figure.drawn)
    width, height = figure.drawn.get_size_inches()
    shown = scrolling(shown, "wide", figure.title) if width > 1.4 * height else shown
    look = f'class="plot{" small" if figure.small else ""}" data-name="{escape(figure.name)}"'
    return f"<figure {look}>{shown}<figcaption>{escape(figure.caption)} </figcaption></figure>"


def _mark(synthetic: bool) -> str:
    return "SYNTHETIC · " if synthetic else ""


def data_address(figure: Figure) -> str:
    """Return a drawing as a ``data:`` address: JPEG of X-rays, else SVG that follows the page."""
    drawn, content = figure.drawn, io.BytesIO()
    if figure.photo:
        drawn.savefig(content, format="jpeg", dpi=DPI, bbox_inches="tight")
        return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    with plt.rc_context({"svg.hashsalt": figure.name}):
        about = {"Date": None, "Creator": None}
        drawn.savefig(content, format="svg", bbox_inches="tight", transparent=True, metadata=about)
    picture = content.getvalue().decode()
    picture = picture[picture.index("<svg") :]
    for ink, follows in INKS.items():
        picture = picture.replace(ink, follows)
    picture = picture.replace(">", f">{LOOK}", 1)
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"


def say(template: str, **numbers: Any) -> None:
    """Display the prose of a template, filled with numbers, if there is any to say."""
    if prose := text.render(template, **numbers):
        display.display(display.Markdown(prose))


def findings(found: Sequence[Finding]) -> None:
    """Display findings as a list, by their verdict in colour; the index reads them as data."""
    lines = []
    for one in found:
        mark = "" if one.verdict == "fine" else f"<strong>{one.verdict}:</strong> "
        remedy = tables.remedy(one)
        said = f"{tables.says(one)} {f'Remedy: {remedy}.' if remedy else ''}".strip()
        lines.append(f'<li class="{one.verdict}">{mark}{escape(said)}</li>')
    shown = f'<ul class="findings">{"".join(lines)}</ul>'
    told = [{"verdict": one.verdict, "says": tables.says(one)} for one in found]
    display.display({"text/html": shown, FINDINGS: told}, raw=True)


def show_code(function: Any) -> None:
    """Show the source of a function, folded: a report tells what a notebook leaves to others."""
    code = f"```python\n{inspect.getsource(function).rstrip()}\n```"
    summary = f"<summary>Code of {escape(function.__name__)}</summary>"
    display.display(display.Markdown(f"<details>{summary}\n\n{code}\n\n</details>"))


def show_html(content: str) -> None:
    """Display HTML as it is."""
    display.display(display.HTML(content))


def show_table(table: pd.DataFrame, folded: str = "", **options: Any) -> None:
    """Display a table if it has rows, `folded` under these words; for `options` see `table_html`.

    Nothing is said of an empty one.
    """
    if not table.empty:
        shown = table_html(table, **options)
        show_html(f"<details><summary>{folded}</summary>{shown}</details>" if folded else shown)


def table_html(
    table: pd.DataFrame, index: bool = False, decimals: int = 4, words: bool = False
) -> str:
    """Return a table as HTML; text is escaped, numbers rounded, a table of `words` set left."""
    style = "words" if words else None
    form = f"{{:.{decimals}f}}".format
    inner = table.to_html(
        index=index, border=0, classes=style, float_format=form, na_rep="undefined"
    )
    inner = inner.replace("<th></th>", "<td></td>")  # a header of nothing
    columns = ", ".join(str(name) for name in table.columns.get_level_values(0).unique())
    return scrolling(inner, "scroll", f"Table: {columns[:120]}")


def scrolling(inner: str, style: str, label: str) -> str:
    """Return HTML in a frame that scrolls, by keyboard too, where the page is narrower."""
    frame = f'class="{style}" role="group" tabindex="0" aria-label="{escape(label)}"'
    return f"<div {frame}>{inner}</div>"


def films(
    title: str, cases: pd.DataFrame, pixels: np.ndarray, heat: np.ndarray | None, synthetic: bool
) -> None:
    """Show X-rays in a grid that a reader can filter and enlarge.

    Parameters
    ----------
    title : str
        What they are.
    cases : DataFrame
        A row a film, in words: ``kind``, ``subtype``, ``scores`` and ``name``; readers can sort by
        ``probability`` and ``distance``, where there are such.
    pixels : ndarray
        The films; uint8, shape (n, size, size).
    heat : ndarray or None
        Grad-CAM, shown beside them; floats in 0..1 of the same shape.
    synthetic : bool
        Whether they were drawn.
    """
    told = cases.to_dict("records")
    for number, case in enumerate(told):
        case["film"] = _jpeg(pixels[number])
        if heat is not None:
            warm = 0.6 * heat[number][..., None]
            colours = 255 * plt.get_cmap("inferno")(heat[number])[..., :3]
            case["heat"] = _jpeg((1 - warm) * pixels[number][..., None] + warm * colours)
    if told:
        about: dict[str, Any] = {"title": title, "cases": told, "heat": heat is not None}
        about |= {"drawn": "SYNTHETIC · " if synthetic else ""}
        about["order"] = [name for name in ORDER if "probability" in cases]
        about |= {"kinds": cases["kind"].unique(), "subtypes": cases["subtype"].unique()}
        show_html(PAGES.get_template("gallery.html.j2").render(about))


def _jpeg(picture: np.ndarray) -> str:
    """A picture, 0..255, as a ``data:`` address."""
    content = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(content, "JPEG", quality=75, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def slider(models: Sequence[Scored], synthetic: bool) -> str:
    """Return HTML in which the reader moves threshold and prevalence and sees each model's rates.

    Counts are of ``score >= threshold``, in double precision as everywhere; no network is needed.
    The points on the ROC move along.
    """
    told, drawn, colours = {}, {}, MODEL_COLOURS * len(models)
    for model, colour in zip(models, colours, strict=False):
        labels, scores = model.answers()
        sick, well = (scores[labels == label].tolist() for label in (1, 0))
        alarms, hits, _ = sk.roc_curve(labels, scores)
        path = " ".join(f"{x:.4f},{1 - y:.4f}" for x, y in zip(alarms, hits, strict=True))
        told[model.name] = {"sick": sick, "well": well, "own": model.test["threshold"]}
        drawn[model.name] = {"path": path, "colour": colour}
    about = {"models": models, "told": told, "drawn": drawn, "synthetic": synthetic}
    return PAGES.get_template("slider.html.j2").render(about)
