"""Shows figures, tables and prose in a notebook, and keeps the figures as files of the run."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from IPython import display
from IPython.core.pylabtools import print_figure

from .. import paths
from ..evaluation.comparison import Scored
from ..files import replacing
from . import text

DPI = 110
PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(paths.TEMPLATES), trim_blocks=True)


@dataclass(frozen=True)
class Figure:
    """A drawing with the name of its file, its title and its alt text."""

    drawn: plt.Figure
    name: str
    title: str
    alt: str
    photo: bool = False  # a grid of X-rays: displayed as JPEG, which is a tenth of the size


@dataclass(frozen=True)
class Gallery:
    """Shows figures in a notebook and keeps them in a run's folder; `synthetic` ones say so."""

    run: paths.RunFolder
    synthetic: bool

    def show(self, figure: Figure) -> None:
        """Save a figure as ``figures/<name>.png``, alt text inside, and display it."""
        mark = "SYNTHETIC · " if self.synthetic else ""
        alt = mark + figure.alt
        figure.drawn.suptitle(mark + figure.title)
        with replacing(self.run.figure(figure.name)) as part:  # tight: no wide title is cut
            figure.drawn.savefig(part, dpi=DPI, bbox_inches="tight", metadata={"Description": alt})
        kind = "jpeg" if figure.photo else "png"
        picture = print_figure(figure.drawn, kind, base64=True, dpi=DPI)
        plt.close(figure.drawn)
        # As HTML: JupyterLab shows a picture of its own accord without its alt text.
        shown = f'<img class="plot" alt="{escape(alt)}" src="data:image/{kind};base64,{picture}">'
        width, height = figure.drawn.get_size_inches()
        show_html(scrolling(shown, "wide", figure.title) if width > 1.4 * height else shown)


def say(template: str, **numbers: Any) -> None:
    """Display the prose of a template, filled with numbers, if there is any to say."""
    if prose := text.render(template, **numbers):
        display.display(display.Markdown(prose))


def show_code(function: Any) -> None:
    """Show the source of a function: a report tells what a notebook leaves to the package."""
    display.display(display.Markdown(f"```python\n{inspect.getsource(function).rstrip()}\n```"))


def show_html(content: str) -> None:
    """Display HTML as it is."""
    display.display(display.HTML(content))


def show_table(table: pd.DataFrame, empty: str = "None.", **options: Any) -> None:
    """Display a table, or `empty` where it has no rows; for `options` see `table_html`."""
    show_html(f"<p>{empty}</p>" if table.empty else table_html(table, **options))


def table_html(
    table: pd.DataFrame, index: bool = False, decimals: int = 4, words: bool = False
) -> str:
    """Return a table as HTML; text is escaped, numbers rounded, a table of `words` set left."""
    style = "words" if words else None
    form = f"{{:.{decimals}f}}".format
    inner = table.to_html(index=index, border=0, classes=style, float_format=form)
    columns = ", ".join(str(name) for name in table.columns.get_level_values(0).unique())
    return scrolling(inner, "scroll", f"Table: {columns[:120]}")


def scrolling(inner: str, style: str, label: str) -> str:
    """Return HTML in a frame that scrolls, by keyboard too, where the page is narrower."""
    frame = f'class="{style}" role="region" tabindex="0" aria-label="{escape(label)}"'
    return f"<div {frame}>{inner}</div>"


def slider(models: Sequence[Scored], synthetic: bool) -> str:
    """Return HTML in which the reader moves threshold and prevalence and sees each model's rates.

    Counts are of ``score >= threshold``, in double precision as everywhere; no network is needed.
    """
    data = {}
    for model in models:
        labels, scores = model.answers()
        sick, well = (scores[labels == label].tolist() for label in (1, 0))
        data[model.name] = {"sick": sick, "well": well, "own": model.test["threshold"]}
    about = {"models": models, "data": data, "synthetic": synthetic}
    return PAGES.get_template("slider.html.j2").render(about)
