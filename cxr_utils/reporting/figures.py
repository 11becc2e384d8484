"""Every figure of the reports, drawn from data and scores, with its title and alt text."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator
from sklearn import metrics as sk

from ..data import decoding
from ..data.dataset import Split
from ..data.manifest import LABELS
from ..evaluation import intervals, metrics, results
from ..evaluation.comparison import Scored
from .display import CLASS_COLOURS, MODEL_COLOURS, SPLIT_COLOURS, Figure
from .tables import KINDS, POINTS, SCORES, SHOWN, SPLITS

MARKERS = {"half": "o", "youden": "s", "sensitivity": "^"}
LINES = ("-", "--", "-.", ":")
UNIT = (-0.02, 1.02)
CORNER = 0.3  # of the ROC that is drawn enlarged


def canvas(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.6) -> Any:
    """Return a drawing and its axes, shape (rows, columns); sizes are inches per panel."""
    plain = {"legend.frameon": False}
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85, rc=plain)
    size = (width * columns, height * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


def images(rows: dict[str, Any], name: str, title: str, caption: str) -> Figure:
    """Draw X-rays row by row, each row with its name; uint8 or floats in 0..1, of any aspect."""
    drawn, axes = canvas(max(map(len, rows.values())), len(rows), width=1.5, height=1.55)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
        line[0].set_title(label, loc="left", fontsize="medium")
    alt = f"Rows of chest X-rays: {'; '.join(rows)}."
    return Figure(drawn, name, title, caption, alt, photo=True)


def examples(split: Split, count: int, seed: int) -> Figure:
    """Draw some training images of each subtype, chosen at random."""
    rng, rows = np.random.default_rng([seed, 3]), {}
    found = split.files.groupby("subtype").indices
    for kind in (kind for kind in KINDS if kind in found):
        chosen = rng.choice(found[kind], min(count, len(found[kind])), replace=False)
        rows[KINDS[kind]] = split.pixels[np.sort(chosen)]
    caption = "Air is dark; pneumonia can show as brightness where air should be."
    return images(rows, "examples", "Training X-rays of each kind", caption)


def preparation(pictures: np.ndarray, fit: str) -> Figure:
    """Draw X-rays as they are made square by `fit`, and standardised."""
    rows = {fit: pictures, f"{fit}, standardised": standardised(pictures)}
    caption = "Left three NORMAL, right three PNEUMONIA. Standardising evens out exposure."
    return images(rows, "preparation", "Training X-rays made square, and standardised", caption)


def augmentation(model: str, before: np.ndarray, changed: np.ndarray) -> Figure:
    """Draw training X-rays before and after augmentation; uint8, and floats in 0..1."""
    rows = {"as it is": before, "changed": changed, "standardised": standardised(255 * changed)}
    caption = "Left three NORMAL, right three PNEUMONIA: moved, turned, stretched, in another "
    caption += "sharpness, exposure and border, as one epoch shows them."
    title = "Training X-rays before and after augmentation"
    return images(rows, f"augmentation_{model}", title, caption)


def standardised(pictures: np.ndarray) -> np.ndarray:
    """Return images less their mean and over their spread; -2.5 is shown black and 2.5 white."""
    return np.clip(0.5 + decoding.standardised(pictures) / 5, 0, 1)


def class_counts(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw images per class and published folder."""
    table = pd.DataFrame(counts).unstack().rename_axis(["published folder", "class"])
    drawn, ((axis,),) = canvas(width=6)
    look: dict[str, Any] = {"hue": "class", "palette": CLASS_COLOURS, "ax": axis}
    sns.barplot(table.to_frame("images"), x="published folder", y="images", **look)
    for bars in axis.containers:
        axis.bar_label(bars, fontsize="small")
    told = [f"{n['NORMAL']} NORMAL, {n['PNEUMONIA']} PNEUMONIA in {f}" for f, n in counts.items()]
    alt = f"Bar chart of the images of each class in each published folder: {'; '.join(told)}."
    many, few = sorted(counts["train"].items(), key=lambda item: -item[1])
    caption = f"In train, {many[0]} has {many[1] / max(few[1], 1):.1f} times the films of {few[0]}."
    return Figure(drawn, "class_counts", "Images per class and published folder", caption, alt)


def image_sizes(files: pd.DataFrame) -> Figure:
    """Draw width against height, and the aspect ratio, by class."""
    drawn, ((left, right),) = canvas(2)
    by_class: dict[str, Any] = {"hue": "label", "hue_order": LABELS, "palette": CLASS_COLOURS}
    spots: dict[str, Any] = {"s": 12, "alpha": 0.5, "rasterized": True, "ax": left}
    sns.scatterplot(files, x="width", y="height", **spots, **by_class)
    left.set(xlabel="width (px)", ylabel="height (px)")
    aspect = files.assign(aspect=files["width"] / files["height"])
    look = {"stat": "density", "common_norm": False, "bins": 30, "element": "step", "fill": False}
    sns.histplot(aspect, x="aspect", ax=right, **look, **by_class)
    right.set(xlabel="aspect (width / height)", ylabel="density")
    alt = "Left, the width of each image against its height; right, its aspect; both by class."
    caption = "Where the classes differ here, a model could separate them without the lungs."
    return Figure(drawn, "image_sizes", "Width, height and aspect by class", caption, alt)


def mean_images(means: dict[str, np.ndarray]) -> Figure:
    """Draw the mean image of each class and their difference, from `shortcuts.class_means`."""
    drawn, axes = canvas(3, width=2.9, height=3.0)
    for axis, label in zip(axes[0], LABELS, strict=False):
        axis.imshow(means[label], cmap="gray", vmin=0, vmax=255)
    gap = means["difference"]
    span = np.abs(gap).max()
    colours = axes[0, 2].imshow(gap, cmap="RdBu_r", vmin=-span, vmax=span)
    drawn.colorbar(colours, ax=axes[0, 2], shrink=0.75, label="grey values")
    names = (*(f"mean {label}" for label in LABELS), "PNEUMONIA - NORMAL")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize="medium")
        axis.axis("off")
    title = "The mean training X-ray of each class, and their difference"
    alt = f"{title}, from {gap.min():.0f} to {gap.max():+.0f} grey values of 255."
    caption = "Red: PNEUMONIA is brighter on average. Outside the lungs this is rarely disease."
    return Figure(drawn, "class_means", title, caption, alt, photo=True)


def learning_curves(history: pd.DataFrame, card: dict[str, Any]) -> Figure:
    """Draw the losses by epoch, and the epoch that was kept."""
    drawn, ((axis,),) = canvas(width=6.5)
    epoch, best = history["epoch"], card["epochs"]["best"]
    axis.plot(epoch, history["loss"], "o-", color="grey", label="training, augmented")
    axis.plot(epoch, history["validation_loss"], "s--", color=SPLIT_COLOURS[0], label="validation")
    if "stress_loss" in history:
        look = {"color": MODEL_COLOURS[0], "label": "stress validation"}
        axis.plot(epoch, history["stress_loss"], "^-", **look)
    axis.axvline(best, linestyle=":", color="grey")
    late = best > len(history) / 2
    side: dict[str, Any] = {"xytext": (-4 if late else 4, 6), "ha": "right" if late else "left"}
    axis.annotate(f"kept: epoch {best}", (best, 0), textcoords="offset points", **side)
    axis.set(xlabel="epoch", ylabel="log loss (nats)", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()
    title, kept = f"{card['title']}: learning curves", f"epoch {best} of {len(history)} was kept"
    loss = card["chosen_by"].replace("_", " ")
    caption = f"The epoch with the lowest {loss} is kept: {kept}."
    if best == card["epochs"]["planned"]:
        caption += " It is the last one, so more epochs may help."
    alt = f"Log loss by epoch in training and on validation; {kept}."
    return Figure(drawn, f"learning_curves_{card['model']}", title, caption, alt)


def confusion_matrix(model: Scored, split: str = "test", name: str = "") -> Figure:
    """Draw a confusion matrix: counts, and the share of each true class."""
    (tn, fp), (fn, tp) = counts = np.array(model.scores[split]["confusion_matrix"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    told = [f"{count}\n{share:.0%}" for count, share in zip(counts.flat, shares.flat, strict=True)]
    drawn, ((axis,),) = canvas(width=3.2, height=3.0)
    look: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False, "square": True}
    sns.heatmap(shares, annot=np.reshape(told, (2, 2)), fmt="", ax=axis, **look)
    for cell, share in zip(axis.texts, shares.flat, strict=True):
        cell.set_color("white" if share > 0.5 else "black")
    axis.set(xlabel="model's answer", ylabel="label", xticklabels=LABELS, yticklabels=LABELS)
    title = f"{model.title}, {SPLITS[split]}"
    cells = f"{tn} true negatives, {fp} false positives, {fn} false negatives, {tp} true positives"
    alt = f"Confusion matrix of {model.title} on {SPLITS[split]}: {cells}."
    caption = f"{fn} of {fn + tp} missed, {fp} of {tn + fp} false alarms."
    name = name or f"confusion_matrix_{model.name}_{split}"
    return Figure(drawn, name, title, caption, alt, small=True)


def curves(model: Scored) -> Figure:
    """Draw the ROC of test and of the split chosen on, whole and its corner, with the points."""
    drawn, (axes,) = canvas(2, width=4.2, height=4.0)
    for number, split in enumerate((model.chosen_on, "test")):
        alarms, hits, _ = sk.roc_curve(*model.answers(split))
        label = f"{SPLITS[split]}, AUROC {model.scores[split]['auroc']:.3f}"
        for axis in axes:
            line = {"color": SPLIT_COLOURS[number], "linestyle": LINES[1 - number]}
            axis.plot(alarms, hits, label=label, **line)
    for name, point in model.test["operating_points"].items():
        at = 1 - point["specificity"], point["sensitivity"]
        for axis in axes:
            axis.plot(*at, MARKERS[name], color=SPLIT_COLOURS[1], markeredgecolor="black")
        if at[0] <= CORNER and at[1] >= 1 - CORNER:
            shift = (6, -12 if name == "youden" else 4 if name == "half" else -24)
            axes[1].annotate(POINTS[name], at, shift, textcoords="offset points", fontsize="small")
    axes[0].plot([0, 1], [0, 1], ":", color="grey", label="chance")
    axes[0].set(xlim=UNIT, ylim=UNIT, title="whole")
    axes[1].set(xlim=(-0.01, CORNER), ylim=(1 - CORNER, 1.01), title="corner, with test's points")
    for axis in axes:
        axis.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes[0].legend(loc="lower right", fontsize="small")
    gap = model.test["auroc"] - model.scores[model.chosen_on]["auroc"]
    caption = f"The further up and left, the better. From {SPLITS[model.chosen_on]} to test the "
    caption += f"AUROC changes by {gap:+.3f}."
    alt = f"ROC curves of {model.title} on {SPLITS[model.chosen_on]} and test, with the thresholds."
    return Figure(drawn, f"roc_{model.name}", f"{model.title}: ROC", caption, alt)


def reliability(model: Scored) -> Figure:
    """Draw the share of PNEUMONIA among images of like score, with Wilson's intervals."""
    drawn, ((axis,),) = canvas(width=4.6, height=4.4)
    axis.plot([0, 1], [0, 1], ":", color="grey", label="perfect calibration")
    for number, split in enumerate((model.chosen_on, "test")):
        bins = metrics.reliability(*model.answers(split))
        share = bins["pneumonia"] / bins["images"]
        ends: Any = [intervals.wilson(*pair) for pair in bins[["pneumonia", "images"]].to_numpy()]
        span = np.abs(np.transpose(ends) - share.to_numpy())
        look = {"fmt": "so"[number] + "-", "color": SPLIT_COLOURS[number], "capsize": 3}
        axis.errorbar(bins["score"], share, span, label=SPLITS[split], **look)
    axis.set(xlabel="mean score of a bin", ylabel="share of PNEUMONIA", xlim=UNIT, ylim=UNIT)
    axis.set_aspect("equal")
    axis.legend(loc="upper left", fontsize="small")
    caption = "Points below the dotted line: scores are too high. Bins of about equal size, 95% CI."
    alt = f"Share of PNEUMONIA by mean score on {SPLITS[model.chosen_on]} and on test, in bins."
    title = f"{model.title}: reliability"
    return Figure(drawn, f"reliability_{model.name}", title, caption, alt)


def comparison(models: Sequence[Scored]) -> Figure:
    """Draw test scores with their 95% intervals, all models side by side."""
    drawn, ((axis,),) = canvas(width=7.5, height=0.9 + 0.45 * len(SHOWN) * max(len(models), 2) / 2)
    for number, model in enumerate(models):
        values = np.array([model.test[score] for score in SHOWN], dtype=float)  # None: NaN
        bounds = [results.best_interval(model.test, score) or (np.nan, np.nan) for score in SHOWN]
        low, high = np.transpose(bounds)
        span = np.maximum([values - low, high - values], 0)
        place = np.arange(len(SHOWN)) + (number - (len(models) - 1) / 2) * 0.22
        look = {"fmt": "os^Dv"[number % 5], "color": MODEL_COLOURS[number % len(MODEL_COLOURS)]}
        axis.errorbar(values, place, xerr=span, capsize=4, label=model.title, **look)
    axis.set(yticks=range(len(SHOWN)), yticklabels=[SCORES[score] for score in SHOWN])
    axis.set(xlabel="on test, with 95% CI", xlim=(None, 1.005))
    axis.invert_yaxis()
    axis.legend(bbox_to_anchor=(0, 1), loc="lower left", ncols=len(models), fontsize="small")
    titles = ", ".join(model.title for model in models)
    alt = f"{', '.join(SCORES[score] for score in SHOWN)} of {titles} on test, with 95% intervals."
    caption = "Models with overlapping intervals may still differ: report 4 compares them in pairs."
    return Figure(drawn, "comparison", "Scores on test", caption, alt)


def all_curves(models: Sequence[Scored]) -> Figure:
    """Draw the ROC and precision-recall curves of all models on test."""
    drawn, ((roc, pr),) = canvas(2, width=4.4, height=4.2)
    for number, model in enumerate(models):
        alarms, hits, _ = sk.roc_curve(*model.answers())
        precision, recall, _ = sk.precision_recall_curve(*model.answers())
        look = {"color": MODEL_COLOURS[number % len(MODEL_COLOURS)], "linestyle": LINES[number % 4]}
        roc.plot(alarms, hits, label=f"{model.title}, {model.test['auroc']:.3f}", **look)
        pr.plot(
            recall[:-1], precision[:-1], label=f"{model.title}, {model.test['auprc']:.3f}", **look
        )
        matrix = model.test["confusion_matrix"]
        roc.plot(matrix[0][1] / sum(matrix[0]), model.test["sensitivity"], "o", color=look["color"])
    roc.plot([0, 1], [0, 1], ":", color="grey", label="chance")
    share = sum(models[0].test["confusion_matrix"][1]) / models[0].test["n"]
    pr.axhline(share, linestyle=":", color="grey", label="chance")
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC", xlim=UNIT, ylim=UNIT)
    pr.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="precision and recall")
    pr.set(xlim=UNIT, ylim=(None, 1.02))
    for axis in (roc, pr):
        axis.legend(loc="lower right" if axis is roc else "lower left", fontsize="small")
    caption = "Areas in the legend; the dot is each model at its own threshold."
    alt = f"ROC and precision-recall curves of {', '.join(m.title for m in models)} on test."
    return Figure(drawn, "comparison_curves", "All models on test", caption, alt)
