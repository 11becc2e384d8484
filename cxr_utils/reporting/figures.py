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
from ..evaluation import metrics, results
from ..evaluation.comparison import Scored
from .display import Figure
from .tables import KINDS, POINTS, SCORES, SHOWN, SPLITS

MARKERS = {"half": "o", "youden": "s", "sensitivity": "^"}
LARGEST = 300  # area of the mark of a bin that holds all images
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
UNIT = (-0.02, 1.02)


def canvas(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.6) -> Any:
    """Return a drawing and its axes, shape (rows, columns); sizes are inches per panel."""
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85)
    size = (width * columns, height * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


def images(rows: dict[str, Any], name: str, title: str) -> Figure:
    """Draw X-rays row by row, each row with its name; uint8 or floats in 0..1, of any aspect."""
    drawn, axes = canvas(max(map(len, rows.values())), len(rows), width=1.5, height=1.55)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
        line[0].set_title(label, loc="left", fontsize="medium")
    return Figure(drawn, name, title, f"Rows of chest X-rays: {'; '.join(rows)}.", photo=True)


def examples(split: Split, count: int, seed: int) -> Figure:
    """Draw some training images of each subtype, chosen at random."""
    rng, rows = np.random.default_rng([seed, 3]), {}
    found = split.files.groupby("subtype").indices
    for kind in (kind for kind in KINDS if kind in found):
        chosen = rng.choice(found[kind], min(count, len(found[kind])), replace=False)
        rows[KINDS[kind]] = split.pixels[np.sort(chosen)]
    return images(rows, "examples", "Training X-rays of each kind")


def preparation(pictures: np.ndarray, fit: str) -> Figure:
    """Draw X-rays as they are made square by `fit`, and standardised."""
    rows = {fit: pictures, f"{fit}, standardised": standardised(pictures)}
    return images(rows, "preparation", "Training X-rays made square, and standardised")


def augmentation(model: str, before: np.ndarray, changed: np.ndarray) -> Figure:
    """Draw training X-rays before and after augmentation; uint8, and floats in 0..1."""
    turned = "moved, turned, stretched, in other sharpness, exposure and borders"
    rows = {"as it is": before, turned: changed, "standardised": standardised(255 * changed)}
    return images(rows, f"augmentation_{model}", "Training X-rays before and after augmentation")


def standardised(pictures: np.ndarray) -> np.ndarray:
    """Return images less their mean and over their spread; -2.5 is shown black and 2.5 white."""
    return np.clip(0.5 + decoding.standardised(pictures) / 5, 0, 1)


def class_counts(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw images per class and published folder."""
    table = pd.DataFrame(counts).unstack().rename_axis(["published folder", "class"])
    drawn, ((axis,),) = canvas(width=6)
    sns.barplot(table.to_frame("images"), x="published folder", y="images", hue="class", ax=axis)
    for bars in axis.containers:
        axis.bar_label(bars, fontsize="small")
    told = [f"{n['NORMAL']} NORMAL, {n['PNEUMONIA']} PNEUMONIA in {f}" for f, n in counts.items()]
    alt = f"Bar chart of the images of each class in each published folder: {'; '.join(told)}."
    return Figure(drawn, "class_counts", "Images per class and published folder", alt)


def image_sizes(files: pd.DataFrame) -> Figure:
    """Draw width against height, and the aspect ratio, by class."""
    drawn, ((left, right),) = canvas(2)
    by_class: dict[str, Any] = {"hue": "label", "hue_order": LABELS}
    sns.scatterplot(files, x="width", y="height", s=12, alpha=0.5, ax=left, **by_class)
    left.set(xlabel="width (px)", ylabel="height (px)")
    aspect = files.assign(aspect=files["width"] / files["height"])
    look = {"stat": "density", "common_norm": False, "bins": 30, "element": "step", "fill": False}
    sns.histplot(aspect, x="aspect", ax=right, **look, **by_class)
    right.set(xlabel="aspect (width / height)", ylabel="density")
    alt = "Left, the width of each image against its height; right, its aspect; both by class."
    return Figure(drawn, "image_sizes", "Width, height and aspect by class", alt)


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
    return Figure(drawn, "class_means", title, alt, photo=True)


def learning_curves(history: pd.DataFrame, card: dict[str, Any]) -> Figure:
    """Draw loss and validation accuracy by epoch."""
    drawn, ((losses, accuracy),) = canvas(2)
    epoch = history["epoch"]
    losses.plot(epoch, history["loss"], "o-", label="training, augmented")
    losses.plot(epoch, history["validation_loss"], "s--", label="validation")
    if "stress_loss" in history:
        losses.plot(epoch, history["stress_loss"], "^:", label="stress validation")
    losses.set(xlabel="epoch", ylabel="log loss (nats)", ylim=(0, None))
    losses.legend()
    accuracy.plot(epoch, history["validation_accuracy"], "s--", color="C1")
    accuracy.set(xlabel="epoch", ylabel="validation accuracy at 0.5", ylim=(None, 1.0))
    for axis in (losses, accuracy):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    best = f"the best of {len(history)} epochs was {card['epochs']['best']}"
    alt = f"Left, log loss by epoch; right, validation accuracy by epoch; {best}."
    title = f"{card['title']}: learning curves"
    return Figure(drawn, f"learning_curves_{card['model']}", title, alt)


def confusion_matrix(model: Scored, split: str = "test", name: str = "") -> Figure:
    """Draw a confusion matrix: counts, and the share of each true class."""
    (tn, fp), (fn, tp) = counts = np.array(model.scores[split]["confusion_matrix"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    told = [f"{count}\n{share:.1%}" for count, share in zip(counts.flat, shares.flat, strict=True)]
    drawn, ((axis,),) = canvas()
    look: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False, "square": True}
    sns.heatmap(shares, annot=np.reshape(told, (2, 2)), fmt="", ax=axis, **look)
    axis.set(xlabel="model's answer", ylabel="label", xticklabels=LABELS, yticklabels=LABELS)
    title = f"{model.title}, {SPLITS[split]}: confusion matrix"
    cells = f"{tn} true negatives, {fp} false positives, {fn} false negatives, {tp} true positives"
    alt = f"Confusion matrix of {model.title} on {SPLITS[split]}: {cells}."
    return Figure(drawn, name or f"confusion_matrix_{model.name}_{split}", title, alt)


def curves(model: Scored) -> Figure:
    """Draw ROC and precision-recall curves of test and of the split chosen on."""
    drawn, ((roc, pr),) = canvas(2, width=4.6, height=4.4)
    for split, line in zip((model.chosen_on, "test"), LINES, strict=False):
        answers, entry = model.answers(split), model.scores[split]
        alarms, hits, _ = sk.roc_curve(*answers)
        precision, recall, _ = sk.precision_recall_curve(*answers)
        legend = f"{SPLITS[split]}, area {{:.3f}}"
        (curve,) = roc.plot(alarms, hits, linestyle=line, label=legend.format(entry["auroc"]))
        pr.plot(recall[:-1], precision[:-1], linestyle=line, label=legend.format(entry["auprc"]))
        for name, point in entry["operating_points"].items():
            look = {"marker": MARKERS[name], "color": curve.get_color(), "linestyle": "none"}
            roc.plot(1 - point["specificity"], point["sensitivity"], **look)
            if point["ppv"] is not None:
                pr.plot(point["sensitivity"], point["ppv"], **look)
    roc.plot([0, 1], [0, 1], ":", color="grey", label="chance")
    share = sum(model.test["confusion_matrix"][1]) / model.test["n"]
    pr.axhline(share, linestyle=":", color="grey", label="chance on test")
    for name in model.test["operating_points"]:
        roc.plot([], [], MARKERS[name], color="grey", label=POINTS[name])
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC", xlim=UNIT, ylim=UNIT)
    pr.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="precision and recall")
    pr.set(xlim=UNIT, ylim=(None, 1.02))
    roc.legend(loc="lower right", fontsize="small")
    pr.legend(loc="lower left", fontsize="small")
    title = f"{model.title}: ROC and precision-recall curves"
    alt = f"{title} on {SPLITS[model.chosen_on]} and on test, with the operating points."
    return Figure(drawn, f"roc_{model.name}", title, alt)


def reliability(model: Scored) -> Figure:
    """Draw the share of PNEUMONIA among images of like score, before and after calibration."""
    drawn, (axes,) = canvas(2, width=4.2, height=4.2)
    for axis, split in zip(axes, (model.chosen_on, "test"), strict=True):
        labels, after = model.answers(split)
        before = results.uncalibrated(after, model.scores[split]["temperature"])
        axis.plot([0, 1], [0, 1], ":", color="grey", label="as often as the score says")
        for name, values, line in (("before calibration", before, "o--"), ("after", after, "s-")):
            score, share, count = metrics.reliability(labels, values).T
            (curve,) = axis.plot(score, share, line[1:], label=name, alpha=0.8)
            look = {"marker": line[0], "color": curve.get_color(), "alpha": 0.8}
            axis.scatter(score, share, s=6 + LARGEST * count / len(labels), **look)
        axis.set(xlabel="mean score of a bin", ylabel="share of PNEUMONIA", title=SPLITS[split])
        axis.set_aspect("equal")
    axes[0].legend(loc="upper left", fontsize="small")
    where = f"left on {SPLITS[model.chosen_on]}, right on test"
    alt = f"Share of PNEUMONIA by mean score, before and after calibration: {where}."
    return Figure(drawn, f"reliability_{model.name}", f"{model.title}: reliability", alt)


def evidence(
    model: Scored, kind: str, rows: np.ndarray, pictures: np.ndarray, heat: np.ndarray
) -> Figure:
    """Draw test images of `text.telling_cases`, and below each the same with Grad-CAM over it."""
    drawn, axes = canvas(len(rows), 2, width=1.75, height=1.9)
    cases = model.part().iloc[rows].itertuples()
    for column, (case, picture, warm) in enumerate(zip(cases, pictures, heat, strict=True)):
        for axis in axes[:, column]:
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
        axes[1, column].imshow(warm, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * warm)
        label = f"{KINDS[case.subtype].removeprefix('PNEUMONIA, ')}\nscore {case.score:.3f}"
        axes[0, column].set_title(label, fontsize="x-small")
    name = f"{kind.lower().replace(' ', '_')}_{model.name}"
    what = f"{len(rows)} test images, {kind}, surest first"
    alt = f"{what}; below each where Grad-CAM sees PNEUMONIA."
    return Figure(drawn, name, f"{model.title}, test: {kind}", alt, photo=True)


def comparison(models: Sequence[Scored]) -> Figure:
    """Draw test scores with their 95 % intervals, all models side by side."""
    drawn, ((axis,),) = canvas(width=7.5)
    for number, model in enumerate(models):
        values = np.array([model.test[score] for score in SHOWN], dtype=float)  # None: NaN
        bounds = [results.best_interval(model.test, score) or (np.nan, np.nan) for score in SHOWN]
        low, high = np.transpose(bounds)
        span = np.maximum([values - low, high - values], 0)
        place = np.arange(len(SHOWN)) + (number - (len(models) - 1) / 2) * 0.18
        axis.errorbar(place, values, span, fmt="os^Dv"[number % 5], capsize=4, label=model.title)
    names = [SCORES[score] for score in SHOWN]
    axis.set(xticks=range(len(SHOWN)), xticklabels=names, ylabel="score on test")
    axis.legend()
    titles = ", ".join(model.title for model in models)
    alt = f"{', '.join(names)} of {titles} on test, with 95 % intervals."
    return Figure(drawn, "comparison", "Scores on the test split with 95 % intervals", alt)
