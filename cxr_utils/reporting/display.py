"""Shows figures, tables and sentences in notebooks, and draws those about the data.

Each figure has a title, units and alt text, and says SYNTHETIC where its data is.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from .. import paths
from ..data import decoding
from ..data.dataset import Split
from ..data.manifest import LABELS
from ..files import replacing
from .names import KIND_NAMES

MARKUP = str.maketrans({character: "\\" + character for character in "\\`*_[]$"})
SYNTHETIC_TITLE = "SYNTHETIC · "
DPI = 110


@dataclass(frozen=True)
class Gallery:
    """Shows figures in a notebook and keeps them as files of the run.

    Parameters
    ----------
    run : RunFolder
        Where ``figures/`` lies.
    synthetic : bool
        Whether every title must say SYNTHETIC.
    """

    run: paths.RunFolder
    synthetic: bool

    def show(self, figure: Figure, name: str, title: str, alt: str, photo: bool = False) -> None:
        """Give a figure its title, save it as ``figures/<name>.png`` and display it with alt text.

        A `photo` (a grid of X-rays) is displayed as JPEG, which is a tenth of the size.
        """
        mark = SYNTHETIC_TITLE if self.synthetic else ""
        figure.suptitle(mark + title)
        options: dict[str, Any] = {
            "dpi": DPI,
            "bbox_inches": "tight",
        }  # tight: a title wider than its axes is not cut
        with replacing(self.run.figure(name)) as part:
            figure.savefig(part, **options)
        kind = "jpeg" if photo else "png"
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, **options)
        plt.close(figure)
        # As HTML: JupyterLab shows a picture of its own accord without its alt text.
        data = base64.b64encode(picture.getvalue()).decode()
        display(
            HTML(
                f'<img class="plot" alt="{html.escape(mark + alt, quote=True)}" src="data:image/{kind};base64,{data}">'
            )
        )


def canvas(
    columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.6
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes, as an array of shape (rows, columns); sizes are inches per panel."""
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    return figure, axes


def grid_of_images(rows: dict[str, Sequence[np.ndarray]]) -> Figure:
    """Draw X-rays row by row, each row with its name; images are uint8 or floats in 0..1, of any aspect."""
    columns = max(len(images) for images in rows.values())
    figure, axes = canvas(columns, len(rows), width=1.5, height=1.55)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        line[0].set_title(name, loc="left", fontsize="medium")
    return figure


def class_counts(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw images per class and published folder."""
    table = (
        pd.DataFrame(counts)
        .T.rename_axis("split")
        .reset_index()
        .melt("split", var_name="class", value_name="images")
    )
    figure, axes = canvas(width=6)
    sns.barplot(table, x="split", y="images", hue="class", hue_order=LABELS, ax=axes[0, 0])
    for bars in axes[0, 0].containers:
        axes[0, 0].bar_label(bars, fontsize="small")
    axes[0, 0].set(xlabel="published folder", ylabel="images")
    return figure


def image_sizes(files: pd.DataFrame) -> Figure:
    """Draw width against height, and the aspect ratio, by class."""
    figure, axes = canvas(2)
    sns.scatterplot(
        files, x="width", y="height", hue="label", hue_order=LABELS, s=12, alpha=0.5, ax=axes[0, 0]
    )
    axes[0, 0].set(xlabel="width (px)", ylabel="height (px)")
    aspect = files.assign(aspect=files["width"] / files["height"])
    sns.histplot(
        aspect,
        x="aspect",
        hue="label",
        hue_order=LABELS,
        stat="density",
        common_norm=False,
        bins=30,
        element="step",
        fill=False,
        ax=axes[0, 1],
    )
    axes[0, 1].set(xlabel="aspect (width / height)", ylabel="density")
    return figure


def mean_images(means: dict[str, np.ndarray]) -> Figure:
    """Draw the mean image of each class and their difference, as `audit.class_means` gives them."""
    figure, axes = canvas(3, width=2.9, height=3.0)
    for axis, label in zip(axes[0], LABELS, strict=False):
        axis.imshow(means[label], cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"mean {label}", fontsize="medium")
    span = np.abs(means["difference"]).max()
    drawn = axes[0, 2].imshow(means["difference"], cmap="RdBu_r", vmin=-span, vmax=span)
    axes[0, 2].set_title("PNEUMONIA - NORMAL", fontsize="medium")
    figure.colorbar(drawn, ax=axes[0, 2], shrink=0.75, label="grey values")
    for axis in axes[0]:
        axis.axis("off")
    return figure


def grey_values(shares: dict[str, np.ndarray]) -> Figure:
    """Draw how often each grey value but black occurs, by class; the share of black stands in the legend."""
    figure, axes = canvas(width=6.4)
    for label, style in zip(LABELS, ("-", "--"), strict=True):
        axes[0, 0].plot(
            range(1, 256),
            100 * shares[label][1:],
            style,
            label=f"{label} (and {shares[label][0]:.1%} black)",
        )
    axes[0, 0].set(
        xlabel="grey value, 1 (dark) to 255 (white)", ylabel="share of pixels (%)", ylim=(0, None)
    )
    axes[0, 0].legend()
    return figure


def standardised(pictures: np.ndarray) -> np.ndarray:
    """Return images less their mean and over their spread, with -2.5 shown black and 2.5 white."""
    return np.clip(0.5 + decoding.standardised(pictures) / 5, 0, 1)


def show_table(
    table: pd.DataFrame, index: bool = False, decimals: int = 4, words: bool = False
) -> None:
    """Display a table with its text escaped and its numbers rounded; one of `words` is set to the left."""
    display(HTML(table_html(table, index, decimals, words)))


def table_html(
    table: pd.DataFrame, index: bool = False, decimals: int = 4, words: bool = False
) -> str:
    """Return a table as HTML in a frame that scrolls where it is wider than the page, by keyboard too."""
    classes = "words" if words else None
    inner = table.to_html(
        index=index, border=0, classes=classes, float_format=lambda value: f"{value:.{decimals}f}"
    )
    name = html.escape(
        ", ".join(str(part) for part in table.columns.get_level_values(0).unique())[:120],
        quote=True,
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="Table: {name}">{inner}</div>'
    )


def say(sentences: list[str]) -> None:
    """Display sentences as a list; what looks like markup in them is shown as text."""
    lines = (html.escape(sentence).translate(MARKUP) for sentence in sentences)
    display(Markdown("\n".join(f"- {line}" for line in lines)))


def say_sections(sections: dict[str, list[str]]) -> None:
    """Display groups of sentences, each under its title; text is escaped as by `say`."""
    parts = []
    for title, sentences in sections.items():
        text = " ".join(html.escape(sentence).translate(MARKUP) for sentence in sentences)
        parts.append(f"**{html.escape(title).translate(MARKUP)}.** {text}")
    display(Markdown("\n\n".join(parts)))


def some_of_each(fold: Split, count: int) -> np.ndarray:
    """Return the rows of the first images of each class, NORMAL first; int, shape (<= 2 * count,)."""
    return np.concatenate([np.flatnonzero(fold.labels == label)[:count] for label in (0, 1)])


def examples(fold: Split, count: int, seed: int) -> dict[str, np.ndarray]:
    """Return some images of each subtype, drawn at random; subtype -> uint8, shape (<= count, size, size)."""
    rng = np.random.default_rng([seed, 3])
    rows = {}
    for kind in [kind for kind in KIND_NAMES if kind in set(fold.files["subtype"])]:
        found = np.flatnonzero(fold.files["subtype"] == kind)
        rows[KIND_NAMES[kind]] = fold.pixels[
            np.sort(rng.choice(found, min(count, len(found)), replace=False))
        ]
    return rows
