"""What besides the lungs tells the classes apart: traits of the files, the rim of the picture, the aspect of the film."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .images import Fold, XRays, load_pixels
from .manifest import LABELS, Manifest
from .pixels import Square

BLOCK = 512  # images looked at together
METADATA = ["width", "height", "aspect", "bytes a pixel", "sharpness"]  # and the colour mode
TRAITS = [*METADATA, "brightness", "contrast", "black"]
BLACK = 5  # grey values below count as black
RIM_SIZE, RIM = 32, 4  # the rim is the outer 4 of 32 pixels on each side
LEAK_IMAGES, LEAK_SIZE = 600, 16
FOLDS_OF_PATIENTS = 5


def traits(data: XRays) -> pd.DataFrame:
    """Return what can be told of each image without looking at the lungs.

    Returns
    -------
    DataFrame
        width, height (px), aspect, bytes a pixel, mode, brightness and contrast (mean and spread of
        the grey values, 0..255), black (share of black pixels), sharpness (log of the spread of the
        Laplacian).
    """
    files = data.files
    looks = np.concatenate([_looks(data.stored[start : start + BLOCK]) for start in range(0, len(files), BLOCK)])
    table = files[["width", "height", "mode"]].assign(aspect=files["width"] / files["height"])
    table["bytes a pixel"] = files["bytes"] / (files["width"] * files["height"])
    return table.assign(brightness=looks[:, 0], contrast=looks[:, 1], sharpness=looks[:, 2], black=looks[:, 3])


def _looks(pictures: np.ndarray) -> np.ndarray:
    grey = np.asarray(pictures, np.float32)
    edges = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    return np.stack([grey.mean((1, 2)), grey.std((1, 2)), np.log(edges.std((1, 2)) + 1e-3), (grey < BLACK).mean((1, 2))], axis=1)


def metadata_floor(looks: pd.DataFrame, files: pd.DataFrame) -> tuple[float, float]:
    """Return the AUROC of gradient boosting on metadata: on unseen training patients, and on test."""
    features = looks[METADATA].join(pd.get_dummies(looks["mode"]).astype(float))
    return _areas(HistGradientBoostingClassifier(max_iter=50, random_state=0), features.to_numpy(np.float64), files)


def rim_auroc(data: XRays) -> tuple[float, float]:
    """Return the AUROC of a logistic regression on the rim of the standardised picture: on unseen training patients, and on test."""
    side = data.stored.shape[1] // RIM_SIZE
    rim = np.ones((RIM_SIZE, RIM_SIZE), bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    rows = []
    for start in range(0, len(data.files), BLOCK):
        grey = np.asarray(data.stored[start : start + BLOCK], np.float32)
        coarse = grey[:, : side * RIM_SIZE, : side * RIM_SIZE].reshape(len(grey), RIM_SIZE, side, RIM_SIZE, side).mean((2, 4))
        coarse = (coarse - coarse.mean((1, 2), keepdims=True)) / np.maximum(coarse.std((1, 2), keepdims=True), 1)
        rows.append(coarse[:, rim])
    return _areas(make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000)), np.concatenate(rows), data.files)


def _areas(model: BaseEstimator, features: np.ndarray, files: pd.DataFrame) -> tuple[float, float]:
    labels, patients = (files["label"] == LABELS[1]).to_numpy(), files["patient"].to_numpy()
    train, test = files["split"].isin(["train", "validation"]).to_numpy(), (files["split"] == "test").to_numpy()
    folds = GroupKFold(FOLDS_OF_PATIENTS)
    seen = cross_val_predict(model, features[train], labels[train], groups=patients[train], cv=folds, method="predict_proba")[:, 1]
    hidden = model.fit(features[train], labels[train]).predict_proba(features[test])[:, 1]
    return roc_auc_score(labels[train], seen), roc_auc_score(labels[test], hidden)


def trait_aurocs(looks: pd.DataFrame, files: pd.DataFrame) -> dict[str, float]:
    """Return the AUROC of each trait alone on the training patients, under 0.5 where PNEUMONIA has less of it, best first."""
    train = files["split"].isin(["train", "validation"])
    areas = {name: float(roc_auc_score(files.loc[train, "label"] == LABELS[1], looks.loc[train, name])) for name in TRAITS}
    return dict(sorted(areas.items(), key=lambda entry: -abs(entry[1] - 0.5)))


def fit_leaks(data: XRays, seed: int) -> pd.DataFrame:
    """Measure how well the pixels tell a wide film from a narrow one after each way of making it a square.

    A logistic regression on 16 x 16 pixels of up to 600 training images, on patients it has not seen. Where the classes differ in
    aspect, a network can use what it reads; where all files have one aspect, there is nothing to measure and the table is empty.

    Returns
    -------
    DataFrame
        fit, AUROC (of "wider than the median film").
    """
    return pd.DataFrame(list(_leaks(data, seed)), columns=["fit", "AUROC"])


def _leaks(data: XRays, seed: int) -> Iterator[tuple[str, float]]:
    train = data.files[data.files["split"] == "train"]
    chosen = train.sample(min(len(train), LEAK_IMAGES), random_state=seed)
    aspect = chosen["width"] / chosen["height"]
    if aspect.max() - aspect.min() < 0.02:
        return
    manifest = Manifest(data.manifest.root, chosen, data.manifest.left_out, f"{data.manifest.digest} sample {seed}")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    for fit in ("squash", "crop", "pad"):
        pictures = load_pixels(manifest, Square(LEAK_SIZE, fit)).reshape(len(chosen), -1).astype(np.float32)
        wide = (aspect > aspect.median()).to_numpy()
        guess = cross_val_predict(model, pictures, wide, groups=chosen["patient"], cv=GroupKFold(FOLDS_OF_PATIENTS), method="predict_proba")
        yield fit, roc_auc_score(wide, guess[:, 1])


def class_means(fold: Fold) -> dict[str, np.ndarray]:
    """Return the mean image of each class, and PNEUMONIA minus NORMAL; float32, shape (size, size), grey values."""
    totals = {label: np.zeros(fold.pixels.shape[1:], np.float64) for label in LABELS}
    for start in range(0, len(fold), BLOCK):
        pictures, labels = fold.pixels[start : start + BLOCK], fold.labels[start : start + BLOCK]
        for number, label in enumerate(LABELS):
            totals[label] += pictures[labels == number].sum(0, dtype=np.float64)
    means = {label: total / (fold.labels == number).sum() for number, (label, total) in enumerate(totals.items())}
    return means | {"difference": means[LABELS[1]] - means[LABELS[0]]}


def grey_histograms(fold: Fold) -> dict[str, np.ndarray]:
    """Return the share of pixels at each grey value, by class; float64, shape (256,)."""
    counts = {label: np.zeros(256) for label in LABELS}
    for start in range(0, len(fold), BLOCK):
        pictures, labels = fold.pixels[start : start + BLOCK], fold.labels[start : start + BLOCK]
        for number, label in enumerate(LABELS):
            counts[label] += np.bincount(pictures[labels == number].ravel(), minlength=256)
    return {label: count / count.sum() for label, count in counts.items()}
