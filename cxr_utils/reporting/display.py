"""Shows figures, tables and prose in a notebook, and keeps the figures as files of the run."""

from __future__ import annotations

import base64
import html
import inspect
import io
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import matplotlib.pyplot as plt
import pandas as pd
from IPython import display
from PIL import Image

from .. import paths
from ..files import replacing
from . import text

SYNTHETIC = "SYNTHETIC · "
DPI = 110


@dataclass(frozen=True)
class Figure:
    """A drawing with the name of its file, its title and its alt text.

    A `photo`, a grid of X-rays, is displayed as JPEG, which is a tenth of the size.
    """

    drawn: matplotlib.figure.Figure
    name: str
    title: str
    alt: str
    photo: bool = False


@dataclass(frozen=True)
class Gallery:
    """Shows figures in a notebook and keeps them in a run's folder; `synthetic` ones say so."""

    run: paths.RunFolder
    synthetic: bool

    def show(self, figure: Figure) -> None:
        """Save a figure as ``figures/<name>.png``, alt text inside, and display it."""
        mark = SYNTHETIC if self.synthetic else ""
        figure.drawn.suptitle(mark + figure.title)
        # Tight: a title wider than its axes is not cut.
        options: dict[str, Any] = {"dpi": DPI, "bbox_inches": "tight"}
        with replacing(self.run.figure(figure.name)) as part:
            figure.drawn.savefig(part, metadata={"Description": mark + figure.alt}, **options)
        kind, picture = "jpeg" if figure.photo else "png", io.BytesIO()
        figure.drawn.savefig(picture, format=kind, **options)
        plt.close(figure.drawn)
        # As HTML: JupyterLab shows a picture of its own accord without its alt text.
        data = base64.b64encode(picture.getvalue()).decode()
        alt = html.escape(mark + figure.alt, quote=True)
        source = f"data:image/{kind};base64,{data}"
        show_html(f'<img class="plot" alt="{alt}" src="{source}">')


def alt_text(picture: Image.Image) -> str:
    """Return the alt text that `Gallery.show` put into a picture."""
    return picture.info.get("Description", "")


def say(template: str, **numbers: Any) -> None:
    """Display the prose of a template, filled with numbers, if there is any to say."""
    prose = text.render(template, **numbers)
    if prose:
        display.display(display.Markdown(prose))


def show_code(function: Any) -> None:
    """Show the source of a function: a report tells what a notebook leaves to the package."""
    source = inspect.getsource(function).rstrip()
    display.display(display.Markdown(f"```python\n{source}\n```"))


def show_html(content: str) -> None:
    """Display HTML as it is."""
    display.display(display.HTML(content))


def show_table(
    table: pd.DataFrame,
    index: bool = False,
    decimals: int = 4,
    words: bool = False,
    empty: str = "None.",
) -> None:
    """Display a table, or `empty` where it has no rows; see `table_html`."""
    show_html(f"<p>{empty}</p>" if table.empty else table_html(table, index, decimals, words))


def table_html(
    table: pd.DataFrame, index: bool = False, decimals: int = 4, words: bool = False
) -> str:
    """Return a table as HTML in a frame that scrolls, by keyboard too, where the page is narrower.

    Text is escaped, numbers are rounded; a table of `words` is set to the left.
    """
    inner = table.to_html(
        index=index,
        border=0,
        classes="words" if words else None,
        float_format=lambda value: f"{value:.{decimals}f}",
    )
    columns = ", ".join(str(name) for name in table.columns.get_level_values(0).unique())
    label = f"Table: {html.escape(columns[:120], quote=True)}"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{inner}</div>'
