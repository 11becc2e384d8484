"""What besides the lungs tells the classes apart: traits of the files, the rim of the picture, the aspect of the film."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ..data.dataset import Dataset, Split, squares
from ..data.decoding import Square, standardised
from ..data.manifest import LABELS
from . import intervals

BLOCK = 512  # images looked at together
METADATA = ["width", "height", "aspect", "bytes a pixel", "sharpness"]  # and the colour mode
TRAITS = [*METADATA, "brightness", "contrast", "black"]
BLACK = 5  # grey values below count as black
RIM_SIZE, RIM = 32, 4  # the rim is the outer 4 of 32 pixels on each side
LEAK_IMAGES, LEAK_SIZE = 600, 16
FOLDS_OF_PATIENTS, LEAST_PATIENTS = 5, 15
LEAST_SPREAD = 0.02  # of the aspect


def traits(data: Dataset) -> pd.DataFrame:
    """Return what can be told of each image without looking at the lungs.

    Returns
    -------
    DataFrame
        width, height (px), aspect, bytes a pixel, mode, brightness and contrast (mean and spread of
        the grey values, 0..255), black (share of black pixels), sharpness (log of the spread of the
        Laplacian).
    """
    files = data.files
    looks = np.concatenate(
        [_looks(data.stored[start : start + BLOCK]) for start in range(0, len(files), BLOCK)]
    )
    table = files[["width", "height", "mode"]].assign(aspect=files["width"] / files["height"])
    table["bytes a pixel"] = files["bytes"] / (files["width"] * files["height"])
    return table.assign(
        brightness=looks[:, 0], contrast=looks[:, 1], sharpness=looks[:, 2], black=looks[:, 3]
    )


def _looks(pictures: np.ndarray) -> np.ndarray:
    grey = np.asarray(pictures, np.float32)
    edges = (
        4 * grey[:, 1:-1, 1:-1]
        - grey[:, :-2, 1:-1]
        - grey[:, 2:, 1:-1]
        - grey[:, 1:-1, :-2]
        - grey[:, 1:-1, 2:]
    )
    return np.stack(
        [
            grey.mean((1, 2)),
            grey.std((1, 2)),
            np.log(edges.std((1, 2)) + 1e-3),
            (grey < BLACK).mean((1, 2)),
        ],
        axis=1,
    )


@dataclass(frozen=True)
class Reach:
    """How far a shortcut gets.

    Parameters
    ----------
    seen : float
        AUROC on training patients that the classifier has not seen; NaN where there are too few.
    test : float
        AUROC on test, with `low` and `high`, its 95 % interval (`uncertainty.delong`).
    """

    seen: float
    test: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = "" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"an AUROC of {self.seen:.3f} on training patients it has not seen and of {self.test:.3f}{interval} on test"


def metadata_floor(looks: pd.DataFrame, files: pd.DataFrame) -> Reach:
    """Return how far gradient boosting on metadata alone gets."""
    features, model = _metadata(looks, files)
    return _reach(model, features, files)


def metadata_scores(looks: pd.DataFrame, files: pd.DataFrame) -> np.ndarray | None:
    """Return P(PNEUMONIA) of every image by the classifier of `metadata_floor`; of a training image by one that has not seen its patient.

    Returns
    -------
    ndarray of float64, shape (n,), or None
        None where there are too few patients.
    """
    features, model = _metadata(looks, files)
    return _all_unseen(model, features, files)


def _metadata(looks: pd.DataFrame, files: pd.DataFrame) -> tuple[np.ndarray, BaseEstimator]:
    features = looks[METADATA].join(pd.get_dummies(looks["mode"]).astype(float))
    leaf = int(np.clip(len(files) // 40, 2, 20))
    return features.to_numpy(np.float64), HistGradientBoostingClassifier(
        max_iter=50, min_samples_leaf=leaf, random_state=0
    )


def rim(data: Dataset) -> Reach:
    """Return how far a logistic regression on the rim of the standardised picture gets."""
    side = data.stored.shape[1] // RIM_SIZE
    outer = np.ones((RIM_SIZE, RIM_SIZE), bool)
    outer[RIM:-RIM, RIM:-RIM] = False
    rows = []
    for start in range(0, len(data.files), BLOCK):
        grey = np.asarray(data.stored[start : start + BLOCK], np.float32)
        coarse = (
            grey[:, : side * RIM_SIZE, : side * RIM_SIZE]
            .reshape(len(grey), RIM_SIZE, side, RIM_SIZE, side)
            .mean((2, 4))
        )
        rows.append(standardised(coarse)[:, outer])
    return _reach(_linear(0.001), np.concatenate(rows), data.files)


def _reach(model: BaseEstimator, features: np.ndarray, files: pd.DataFrame) -> Reach:
    scores = _all_unseen(model, features, files)
    if scores is None:
        return Reach(np.nan, np.nan, np.nan, np.nan)
    labels = (files["label"] == LABELS[1]).to_numpy()
    train, test = of_training_patients(files).to_numpy(), (files["folder"] == "test").to_numpy()
    found = intervals.delong(
        labels[test].astype(int), scores[test], files["patient"].to_numpy()[test]
    )
    low, high = (found.interval_of_share if found else None) or (np.nan, np.nan)
    return Reach(
        float(roc_auc_score(labels[train], scores[train])),
        float(roc_auc_score(labels[test], scores[test])),
        low,
        high,
    )


def _all_unseen(
    model: BaseEstimator, features: np.ndarray, files: pd.DataFrame
) -> np.ndarray | None:
    """Scores of training images by cross-validation over patients, and of the others by a model of all training images."""
    labels, patients = (files["label"] == LABELS[1]).to_numpy(), files["patient"].to_numpy()
    train = of_training_patients(files).to_numpy()
    if not _enough(labels[train], patients[train]):
        return None
    scores = np.empty(len(files))
    scores[train] = _unseen(model, features[train], labels[train], patients[train])
    with threadpool_limits(1):
        scores[~train] = model.fit(features[train], labels[train]).predict_proba(features[~train])[
            :, 1
        ]
    return scores


def auroc_error(area: float, positives: int, negatives: int) -> float:
    """Return the standard error of an AUROC (Hanley and McNeil 1982, Radiology 143:29)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    )
    return float(np.sqrt(variance / (positives * negatives)))


def of_training_patients(files: pd.DataFrame) -> pd.Series:
    """Tell which files are of training patients, those that were set aside for validation among them; bool."""
    return files["folder"].isin(["train", "validation"])


def trait_aurocs(looks: pd.DataFrame, files: pd.DataFrame) -> dict[str, float]:
    """Return the AUROC of each trait alone on the training patients, under 0.5 where PNEUMONIA has less of it, best first."""
    train = of_training_patients(files)
    areas = {
        name: float(roc_auc_score(files.loc[train, "label"] == LABELS[1], looks.loc[train, name]))
        for name in TRAITS
    }
    return dict(sorted(areas.items(), key=lambda entry: -abs(entry[1] - 0.5)))


def fit_leaks(data: Dataset, seed: int) -> pd.DataFrame:
    """Measure how well the pixels tell a wide film from a narrow one after each way of making it a square.

    A logistic regression on 16 x 16 pixels of up to 600 training images, on patients it has not seen.
    Where the classes differ in aspect, a network can use what it reads; where all files have one aspect,
    or there are too few, nothing can be measured and the table is empty.

    Returns
    -------
    DataFrame
        fit, AUROC (of "wider than midway between the narrowest and the widest film").
    """
    train = data.files[data.files["folder"] == "train"]
    chosen = train.sample(min(len(train), LEAK_IMAGES), random_state=seed)
    aspect = chosen["width"] / chosen["height"]
    wide = (aspect > (aspect.min() + aspect.max()) / 2).to_numpy()
    rows = []
    if aspect.max() - aspect.min() >= LEAST_SPREAD and _enough(wide, chosen["patient"].to_numpy()):
        for fit in ("squash", "crop", "pad"):
            pictures = squares(data.manifest, chosen["path"], Square(LEAK_SIZE, fit)).reshape(
                len(chosen), -1
            )
            guess = _unseen(
                _linear(0.01), pictures.astype(np.float32), wide, chosen["patient"].to_numpy()
            )
            rows.append([fit, roc_auc_score(wide, guess)])
    return pd.DataFrame(rows, columns=["fit", "AUROC"])


def _linear(strength: float) -> BaseEstimator:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def _enough(labels: np.ndarray, patients: np.ndarray) -> bool:
    """Whether each class has the patients without which a cross-validation says nothing."""
    return min(len(set(patients[labels == label])) for label in (False, True)) >= LEAST_PATIENTS


def _unseen(
    model: BaseEstimator, features: np.ndarray, labels: np.ndarray, patients: np.ndarray
) -> np.ndarray:
    """Scores of each row by a model that has not seen its patient."""
    with threadpool_limits(
        1
    ):  # on a busy machine more threads wait for each other twenty times as long
        folds = StratifiedGroupKFold(FOLDS_OF_PATIENTS)
        return cross_val_predict(
            model, features, labels, groups=patients, cv=folds, method="predict_proba"
        )[:, 1]


def class_means(fold: Split) -> dict[str, np.ndarray]:
    """Return the mean image of each class, and PNEUMONIA minus NORMAL; float64, shape (size, size), grey values."""
    totals = {label: np.zeros(fold.pixels.shape[1:], np.float64) for label in LABELS}
    for start in range(0, len(fold), BLOCK):
        pictures, labels = fold.pixels[start : start + BLOCK], fold.labels[start : start + BLOCK]
        for number, label in enumerate(LABELS):
            totals[label] += pictures[labels == number].sum(0, dtype=np.float64)
    means = {
        label: total / (fold.labels == number).sum()
        for number, (label, total) in enumerate(totals.items())
    }
    return means | {"difference": means[LABELS[1]] - means[LABELS[0]]}


def grey_histograms(fold: Split) -> dict[str, np.ndarray]:
    """Return the share of pixels at each grey value, by class; float64, shape (256,)."""
    counts = {label: np.zeros(256) for label in LABELS}
    for start in range(0, len(fold), BLOCK):
        pictures, labels = fold.pixels[start : start + BLOCK], fold.labels[start : start + BLOCK]
        for number, label in enumerate(LABELS):
            counts[label] += np.bincount(pictures[labels == number].ravel(), minlength=256)
    return {label: count / count.sum() for label, count in counts.items()}
