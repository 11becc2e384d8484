"""Figures of the reports: each has a title, units and alt text, and says SYNTHETIC where its data is."""

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
from matplotlib.ticker import MaxNLocator
from sklearn import metrics as sk

from . import paths, pixels
from .folds import chosen_on
from .images import Fold
from .manifest import LABELS
from .scoring import labels_of

MODEL_NAMES = {"baseline_cnn": "Baseline CNN", "resnet50v2": "ResNet50V2"}
SPLIT_NAMES = {"train": "training", "validation": "validation", "val": "published val", "test": "test"}
KIND_NAMES = {"normal": "NORMAL", "bacteria": "PNEUMONIA, bacterial", "virus": "PNEUMONIA, viral", "unknown": "PNEUMONIA"}
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
        options = {"dpi": DPI, "bbox_inches": "tight"}  # tight: a title wider than its axes is not cut
        figure.savefig(self.run.figure(name), **options)
        kind = "image/jpeg" if photo else "image/png"
        picture = io.BytesIO()
        figure.savefig(picture, format=kind.removeprefix("image/"), **options)
        plt.close(figure)
        data = {kind: base64.b64encode(picture.getvalue()).decode()}
        display(data, metadata={kind: {"alt": mark + alt}}, raw=True)


def canvas(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes, as an array of shape (rows, columns); sizes are inches per panel."""
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained")
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
    table = pd.DataFrame(counts).T.rename_axis("split").reset_index().melt("split", var_name="class", value_name="images")
    figure, axes = canvas(width=6)
    sns.barplot(table, x="split", y="images", hue="class", hue_order=LABELS, ax=axes[0, 0])
    for bars in axes[0, 0].containers:
        axes[0, 0].bar_label(bars, fontsize="small")
    axes[0, 0].set(xlabel="published folder", ylabel="images")
    return figure


def image_sizes(files: pd.DataFrame) -> Figure:
    """Draw width against height, and the aspect ratio, by class."""
    figure, axes = canvas(2)
    sns.scatterplot(files, x="width", y="height", hue="label", hue_order=LABELS, s=12, alpha=0.5, ax=axes[0, 0])
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
        axes[0, 0].plot(range(1, 256), 100 * shares[label][1:], style, label=f"{label} (and {shares[label][0]:.1%} black)")
    axes[0, 0].set(xlabel="grey value, 1 (dark) to 255 (white)", ylabel="share of pixels (%)", ylim=(0, None))
    axes[0, 0].legend()
    return figure


def standardised(pictures: np.ndarray) -> np.ndarray:
    """Return images less their mean and over their spread, with -2.5 shown black and 2.5 white."""
    return np.clip(0.5 + pixels.standardised(pictures) / 5, 0, 1)


def learning_curves(history: pd.DataFrame) -> Figure:
    """Draw loss and validation accuracy by epoch."""
    figure, axes = canvas(2)
    axes[0, 0].plot(history["epoch"], history["loss"], "o-", label="training, augmented")
    axes[0, 0].plot(history["epoch"], history["validation_loss"], "s--", label="validation")
    if "stress_loss" in history:
        axes[0, 0].plot(history["epoch"], history["stress_loss"], "^:", label="stress validation")
    axes[0, 0].set(xlabel="epoch", ylabel="log loss (nats)", ylim=(0, None))
    axes[0, 0].legend()
    for axis in axes[0]:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 1].plot(history["epoch"], history["validation_accuracy"], "s--", color="C1")
    axes[0, 1].set(xlabel="epoch", ylabel="validation accuracy at 0.5", ylim=(None, 1.0))
    return figure


def confusion_matrix(matrix: list[list[int]]) -> Figure:
    """Draw a confusion matrix: counts, and the share of each true class."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = np.array([[f"{count}\n{share:.1%}" for count, share in zip(*rows, strict=True)] for rows in zip(counts, shares, strict=True)])
    figure, axes = canvas()
    sns.heatmap(
        shares,
        annot=text,
        fmt="",
        cmap="Blues",
        vmin=0,
        vmax=1,
        cbar=False,
        square=True,
        xticklabels=LABELS,
        yticklabels=LABELS,
        ax=axes[0, 0],
    )
    axes[0, 0].set(xlabel="model's answer", ylabel="label")
    return figure


def roc(predictions: pd.DataFrame, scores: dict[str, Any]) -> Figure:
    """Draw the ROC curves of test and of the images that choices were made on, with the operating point in use."""
    figure, axes = canvas(width=4.8, height=4.4)
    for split in (chosen_on(scores), "test"):
        part = predictions[predictions["split"] == split]
        alarms, hits, _ = sk.roc_curve(labels_of(part), part["score"])
        area = scores[split]["auroc"]
        (line,) = axes[0, 0].plot(alarms, hits, label=f"{SPLIT_NAMES[split]}, AUROC {area:.3f}")
        point = scores[split]
        axes[0, 0].plot(1 - point["specificity"], point["sensitivity"], "o", color=line.get_color())
    axes[0, 0].plot([0, 1], [0, 1], ":", color="grey", label="chance")
    axes[0, 0].set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    axes[0, 0].legend(loc="lower right")
    return figure


def score_histogram(predictions: pd.DataFrame, threshold: float) -> Figure:
    """Draw the scores of the test images by class, with the threshold."""
    figure, axes = canvas(width=6.4)
    part = predictions[predictions["split"] == "test"]
    sns.histplot(part, x="score", hue="label", hue_order=LABELS, bins=np.linspace(0, 1, 31), ax=axes[0, 0])
    axes[0, 0].axvline(threshold, color="black", linestyle="--")
    axes[0, 0].annotate("threshold ", (threshold, 0.92), xycoords=("data", "axes fraction"), ha="right")
    axes[0, 0].set(xlabel="score, P(PNEUMONIA)", ylabel="test images")
    return figure


def bars_with_intervals(table: pd.DataFrame) -> Figure:
    """Draw scores with 95 % intervals side by side; columns: model, score, value, low, high."""
    figure, axes = canvas(width=7.5)
    models, names = list(table["model"].unique()), list(table["score"].unique())
    for number, model in enumerate(models):
        rows = table[table["model"] == model].set_index("score").loc[names]
        offset = np.arange(len(names)) + (number - (len(models) - 1) / 2) * 0.18
        span = [np.maximum(rows["value"] - rows["low"], 0), np.maximum(rows["high"] - rows["value"], 0)]
        axes[0, 0].errorbar(offset, rows["value"], yerr=span, fmt="os"[number % 2], capsize=4, label=model)
    axes[0, 0].set(xticks=range(len(names)), xticklabels=names, ylabel="score on the test split")
    axes[0, 0].legend()
    return figure


def show_table(table: pd.DataFrame, index: bool = False, decimals: int = 4, words: bool = False) -> None:
    """Display a table with its text escaped and its numbers rounded; one of `words` is set to the left."""
    classes = "words" if words else None
    display(HTML(table.to_html(index=index, border=0, classes=classes, float_format=lambda value: f"{value:.{decimals}f}")))


def say(sentences: list[str]) -> None:
    """Display sentences as a list; what looks like markup in them is shown as text."""
    lines = (html.escape(sentence).translate(MARKUP) for sentence in sentences)
    display(Markdown("\n".join(f"- {line}" for line in lines)))


def some_of_each(fold: Fold, count: int) -> np.ndarray:
    """Return the rows of the first images of each class, NORMAL first; int, shape (<= 2 * count,)."""
    return np.concatenate([np.flatnonzero(fold.labels == label)[:count] for label in (0, 1)])


def examples(fold: Fold, count: int, seed: int) -> dict[str, np.ndarray]:
    """Return some images of each subtype, drawn at random; subtype -> uint8, shape (<= count, size, size)."""
    rng = np.random.default_rng([seed, 3])
    rows = {}
    for kind in [kind for kind in KIND_NAMES if kind in set(fold.files["subtype"])]:
        found = np.flatnonzero(fold.files["subtype"] == kind)
        rows[KIND_NAMES[kind]] = fold.pixels[np.sort(rng.choice(found, min(count, len(found)), replace=False))]
    return rows
