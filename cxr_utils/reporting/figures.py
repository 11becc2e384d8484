"""Figures about models: learning curves, confusion matrices, ROC, calibration, errors, decision curves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics as sk

from ..data.manifest import LABELS
from ..data.splits import chosen_on
from ..evaluation import metrics
from ..evaluation.results import labels_of, uncalibrated
from .display import canvas
from .names import MODEL_NAMES, POINT_NAMES, SPLIT_NAMES

MARKERS = {"half": "o", "youden": "s", "sensitivity": "^"}
LARGEST = 300  # area of the mark of a bin that holds all images
LINES = ("-", "--", "-.")


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
    told = [f"{count}\n{share:.1%}" for count, share in zip(counts.flat, shares.flat, strict=True)]
    figure, axes = canvas()
    sns.heatmap(
        shares,
        annot=np.reshape(told, counts.shape),
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


def curves(predictions: pd.DataFrame, scores: dict[str, Any]) -> Figure:
    """Draw ROC and precision-recall curves of test and of the images that choices were made on, with the operating points."""
    figure, axes = canvas(2, width=4.6, height=4.4)
    for split, line in zip((chosen_on(scores), "test"), LINES, strict=False):
        part = predictions[predictions["split"] == split]
        labels, entry = labels_of(part), scores[split]
        alarms, hits, _ = sk.roc_curve(labels, part["score"])
        precision, recall, _ = sk.precision_recall_curve(labels, part["score"])
        (drawn,) = axes[0, 0].plot(
            alarms, hits, line, label=f"{SPLIT_NAMES[split]}, area {entry['auroc']:.3f}"
        )
        axes[0, 1].plot(
            recall[:-1],
            precision[:-1],
            line,
            label=f"{SPLIT_NAMES[split]}, area {entry['auprc']:.3f}",
        )
        for name, point in entry["operating_points"].items():
            look = {"marker": MARKERS[name], "color": drawn.get_color(), "linestyle": "none"}
            axes[0, 0].plot(1 - point["specificity"], point["sensitivity"], **look)
            if point["ppv"] is not None:
                axes[0, 1].plot(point["sensitivity"], point["ppv"], **look)
    axes[0, 0].plot([0, 1], [0, 1], ":", color="grey", label="chance")
    share = sum(scores["test"]["confusion_matrix"][1]) / scores["test"]["n"]
    axes[0, 1].axhline(share, linestyle=":", color="grey", label="chance on test")
    for name, marker in MARKERS.items():
        if name in scores["test"]["operating_points"]:
            axes[0, 0].plot([], [], marker, color="grey", label=POINT_NAMES[name])
    axes[0, 0].set(
        xlabel="1 - specificity",
        ylabel="sensitivity",
        title="ROC",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes[0, 1].set(
        xlabel="sensitivity (recall)",
        ylabel="PPV (precision)",
        title="precision and recall",
        xlim=(-0.02, 1.02),
    )
    axes[0, 1].set_ylim(top=1.02)
    for axis in axes[0]:
        axis.legend(loc="lower right" if axis is axes[0, 0] else "lower left", fontsize="small")
    return figure


def reliability(predictions: pd.DataFrame, scores: dict[str, Any]) -> Figure:
    """Draw how often images with a score are PNEUMONIA, before and after calibration, for both splits of `curves`.

    The larger a mark, the more images are in its bin.
    """
    splits = (chosen_on(scores), "test")
    figure, axes = canvas(2, width=4.2, height=4.2)
    for axis, split in zip(axes[0], splits, strict=True):
        part = predictions[predictions["split"] == split]
        labels, after = labels_of(part), part["score"].to_numpy()
        before = uncalibrated(after, scores[split]["temperature"])
        axis.plot([0, 1], [0, 1], ":", color="grey", label="as often as the score says")
        for name, values, line, mark in (
            ("before calibration", before, "--", "o"),
            ("after", after, "-", "s"),
        ):
            found = metrics.reliability(labels, values)
            (drawn,) = axis.plot(found[:, 0], found[:, 1], line, label=name, alpha=0.8)
            axis.scatter(
                found[:, 0],
                found[:, 1],
                s=6 + LARGEST * found[:, 2] / len(labels),
                marker=mark,
                color=drawn.get_color(),
                alpha=0.8,
            )
        axis.set(
            xlabel="mean score of a bin",
            ylabel="share of PNEUMONIA",
            title=SPLIT_NAMES[split],
            aspect="equal",
        )
    axes[0, 0].legend(loc="upper left", fontsize="small")
    return figure


def with_evidence(pictures: np.ndarray, evidence: np.ndarray, titles: list[str]) -> Figure:
    """Draw images in a row, and below each the same with what speaks for PNEUMONIA laid over it.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, size, size)
        Grey images, at least one.
    evidence : ndarray, shape (n, size, size)
        In 0..1, as `gradcam.scaled` returns it.
    titles : list of str
        Of each image.
    """
    figure, axes = canvas(len(pictures), 2, width=1.75, height=1.9)
    for column, (picture, heat, title) in enumerate(zip(pictures, evidence, titles, strict=True)):
        for axis in axes[:, column]:
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
        shown = plt.get_cmap("inferno")(heat)
        shown[..., 3] = 0.6 * heat
        axes[1, column].imshow(shown)
        axes[0, column].set_title(title, fontsize="x-small")
    return figure


def decision_curve(predictions: dict[str, pd.DataFrame]) -> Figure:
    """Draw the net benefit on test of each model, of treating all and of treating none."""
    figure, axes = canvas(width=7)
    labels = np.zeros(0)  # those of any: all models have the same test images
    for (model, frame), line in zip(predictions.items(), LINES, strict=False):
        part = frame[frame["split"] == "test"]
        labels = labels_of(part)
        axes[0, 0].plot(
            metrics.CUTS,
            metrics.net_benefit(labels, part["score"].to_numpy(), metrics.CUTS),
            line,
            label=MODEL_NAMES[model],
        )
    axes[0, 0].plot(
        metrics.CUTS,
        metrics.net_benefit(labels, np.ones(len(labels)), metrics.CUTS),
        ":",
        color="black",
        label="call all PNEUMONIA",
    )
    axes[0, 0].axhline(0, color="grey", linewidth=1, label="call none")
    axes[0, 0].set(
        xlabel="probability of PNEUMONIA from which on one would act",
        ylabel="net benefit (true positives an image)",
    )
    axes[0, 0].set_ylim(-0.1, labels.mean() * 1.1)
    axes[0, 0].legend()
    return figure


def score_histogram(predictions: pd.DataFrame, threshold: float) -> Figure:
    """Draw the scores of the test images by class, with the threshold."""
    figure, axes = canvas(width=6.4)
    part = predictions[predictions["split"] == "test"]
    sns.histplot(
        part, x="score", hue="label", hue_order=LABELS, bins=np.linspace(0, 1, 31), ax=axes[0, 0]
    )
    axes[0, 0].axvline(threshold, color="black", linestyle="--")
    axes[0, 0].annotate(
        "threshold ", (threshold, 0.92), xycoords=("data", "axes fraction"), ha="right"
    )
    axes[0, 0].set(xlabel="score, P(PNEUMONIA)", ylabel="test images")
    return figure


def bars_with_intervals(table: pd.DataFrame) -> Figure:
    """Draw scores with 95 % intervals side by side; columns: model, score, value, low, high."""
    figure, axes = canvas(width=7.5)
    models, names = list(table["model"].unique()), list(table["score"].unique())
    for number, model in enumerate(models):
        rows = table[table["model"] == model].set_index("score").loc[names]
        offset = np.arange(len(names)) + (number - (len(models) - 1) / 2) * 0.18
        span = [
            np.maximum(rows["value"] - rows["low"], 0),
            np.maximum(rows["high"] - rows["value"], 0),
        ]
        axes[0, 0].errorbar(
            offset, rows["value"], yerr=span, fmt="os"[number % 2], capsize=4, label=model
        )
    axes[0, 0].set(xticks=range(len(names)), xticklabels=names, ylabel="score on the test split")
    axes[0, 0].legend()
    return figure
