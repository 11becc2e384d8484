"""What besides the lungs tells the classes apart: traits of the files, and the border."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from .. import paths
from ..data.dataset import OVERVIEW_SIZE, Dataset, Pixels, Split, load_pixels
from ..data.decoding import Square, cached_at, standardised
from ..data.manifest import LABELS
from ..files import replacing, sha256_of
from . import intervals, metrics

BLOCK = 512  # images looked at together
METADATA = ["width", "height", "aspect", "bytes a pixel", "sharpness"]  # and the colour mode
TRAITS = [*METADATA, "brightness", "contrast", "black"]
BLACK = 5  # grey values below count as black
COARSE, BORDER = 32, 4  # the border is the outer 4 of 32 pixels on each side
PATIENT_FOLDS, LEAST_PATIENTS = 5, 15  # of the cross-validation; of each class
TRAINING = {"train", "validation"}  # folders of training patients, those set aside among them


def traits(data: Dataset) -> pd.DataFrame:
    """Return `TRAITS` and colour mode of each image: what is told without looking at the lungs.

    Width and height are in px; brightness and contrast, mean and spread of grey values in 0..255;
    black, the share of black pixels; sharpness, the log of the spread of the Laplacian.
    """
    files, looks = data.files, []
    for block in _blocks(load_pixels(data.manifest, Square(OVERVIEW_SIZE, data.fit))):
        grey = block.astype(np.float32)
        beside = grey[:, :-2, 1:-1], grey[:, 2:, 1:-1], grey[:, 1:-1, :-2], grey[:, 1:-1, 2:]
        edges = 4 * grey[:, 1:-1, 1:-1] - beside[0] - beside[1] - beside[2] - beside[3]
        sharpness, black = np.log(edges.std((1, 2)) + 1e-3), (grey < BLACK).mean((1, 2))
        looks.append([grey.mean((1, 2)), grey.std((1, 2)), sharpness, black])
    table = files[["width", "height", "mode"]].assign(aspect=files["width"] / files["height"])
    table["bytes a pixel"] = files["bytes"] / (files["width"] * files["height"])
    table[["brightness", "contrast", "sharpness", "black"]] = np.concatenate(looks, axis=1).T
    return table


@dataclass(frozen=True)
class Reach:
    """How far a shortcut gets: its AUROC; NaN where there are too few patients."""

    seen: float  # on training patients that the classifier has not seen
    test: float
    low: float  # of the 95 % interval on test, by DeLong
    high: float


def metadata_scores(data: Dataset) -> np.ndarray | None:
    """Return what `classify` says, cached by what decides it: not our own split, see `TRAINING`."""
    pixels = cached_at(data.manifest.digest, Square(OVERVIEW_SIZE, data.fit)).name
    decides = f"{pixels} {sha256_of(Path(__file__))} {sklearn.__version__} {np.__version__}"
    key = hashlib.sha256(decides.encode()).hexdigest()[:32]
    cached = paths.cache_folder() / "metadata" / f"{key}.npy"
    try:
        scores = np.load(cached)
    except (OSError, ValueError):  # there is none, or it is damaged
        found = classify(traits(data), data.files)
        scores = np.empty(0) if found is None else found
        with replacing(cached) as part:
            np.save(part, scores)
    return scores if len(scores) else None


def classify(looks: pd.DataFrame, files: pd.DataFrame) -> np.ndarray | None:
    """Return P(PNEUMONIA) by boosting on metadata of other patients; None where these are few."""
    features = looks[METADATA].join(pd.get_dummies(looks["mode"]).astype(float))
    leaf = int(np.clip(len(files) // 40, 2, 20))
    model = HistGradientBoostingClassifier(max_iter=50, min_samples_leaf=leaf, random_state=0)
    return _guesses(model, features.to_numpy(np.float64), files)


def border(data: Dataset) -> Reach:
    """Return how far a logistic regression on the border of the standardised picture gets."""
    side = data.stored.shape[1] // COARSE
    outer = np.ones((COARSE, COARSE), bool)
    outer[BORDER:-BORDER, BORDER:-BORDER] = False
    rows = []
    for block in _blocks(data.stored[:, : side * COARSE, : side * COARSE]):
        cells = block.astype(np.float32).reshape(-1, COARSE, side, COARSE, side)
        rows.append(standardised(cells.mean((2, 4)))[:, outer])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000))
    return reach(_guesses(model, np.concatenate(rows), data.files), data.files)


def reach(scores: np.ndarray | None, files: pd.DataFrame) -> Reach:
    """Return how far scores get that know nothing of an image's patient."""
    if scores is None:
        return Reach(np.nan, np.nan, np.nan, np.nan)
    labels, patients = metrics.labels_of(files), files["patient"].to_numpy()
    train, test = files["folder"].isin(TRAINING), files["folder"] == "test"
    found = intervals.delong(labels[test], scores[test], patients[test])
    interval = (found.interval_of_share if found else None) or (np.nan, np.nan)
    areas = (float(roc_auc_score(labels[rows], scores[rows])) for rows in (train, test))
    return Reach(*areas, *interval)


@threadpool_limits.wrap(limits=1)
def _guesses(model: BaseEstimator, features: np.ndarray, files: pd.DataFrame) -> np.ndarray | None:
    """Scores by cross-validation over training patients, and of the others by all of these."""
    labels, train = metrics.labels_of(files), files["folder"].isin(TRAINING).to_numpy()
    unseen = unseen_scores(
        model, features[train], labels[train], files["patient"].to_numpy()[train]
    )
    if unseen is None:
        return None
    scores, fitted = np.empty(len(files)), model.fit(features[train], labels[train])
    scores[train], scores[~train] = unseen, fitted.predict_proba(features[~train])[:, 1]
    return scores


# On a busy machine more threads wait for each other, twenty times.
@threadpool_limits.wrap(limits=1)
def unseen_scores(
    model: BaseEstimator, features: np.ndarray, labels: np.ndarray, patients: np.ndarray
) -> np.ndarray | None:
    """Scores of each row by a model that has not seen its patient; None where these are too few."""
    if min(len(set(patients[labels == label])) for label in (False, True)) < LEAST_PATIENTS:
        return None
    asked = {"groups": patients, "cv": StratifiedGroupKFold(PATIENT_FOLDS)}
    return cross_val_predict(model, features, labels, method="predict_proba", **asked)[:, 1]


def class_means(split: Split) -> dict[str, np.ndarray]:
    """Return the mean image of each class, and ``difference``, PNEUMONIA less NORMAL; float64."""
    means = {label: split.pixels[split.labels == n].mean(0) for n, label in enumerate(LABELS)}
    return means | {"difference": means[LABELS[1]] - means[LABELS[0]]}


def _blocks(pictures: np.ndarray | Pixels) -> Iterator[np.ndarray]:
    """Images, so many at a time that they need not all be in memory."""
    return (pictures[start : start + BLOCK] for start in range(0, len(pictures), BLOCK))
