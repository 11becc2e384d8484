"""What can be told of a film without looking at its lungs, and which films contradict their class.

A film that looks like those of the other class (bytes, sharpness, tone, border) is where a network
that reads the scanner instead of the lungs is wrong: a *bias-conflicting* example (Nam et al. 2020,
arXiv:2007.02561).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .manifest import labels_of
from .splits import children

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

BLOCK = 512  # images looked at together
METADATA = ["width", "height", "aspect", "bytes a pixel", "sharpness"]  # and the colour mode
TRAITS = [*METADATA, "brightness", "contrast", "black"]
BLACK = 5  # grey values below count as black
EDGE = 1 / 8  # width of the border on each side, as a share of it
TONES = (5, 25, 50, 75, 95)  # percentiles of the grey values
PATIENT_FOLDS, LEAST_PATIENTS = 5, 15  # of the cross-validation; of each class
TELLING = 0.65  # AUROC of looks under which no film can be said to contradict its class


def traits(files: pd.DataFrame, pictures: np.ndarray) -> pd.DataFrame:
    """Return `TRAITS` and colour mode of each image.

    Width and height are in px; brightness and contrast, mean and spread of grey values in 0..255;
    black, the share of black pixels; sharpness, the log of the spread of the Laplacian. `pictures`
    are the images' squares, uint8, shape (n, size, size).
    """
    looks = []
    for grey in blocks(pictures):
        beside = grey[:, :-2, 1:-1], grey[:, 2:, 1:-1], grey[:, 1:-1, :-2], grey[:, 1:-1, 2:]
        edges = 4 * grey[:, 1:-1, 1:-1] - beside[0] - beside[1] - beside[2] - beside[3]
        sharpness, black = np.log(edges.std((1, 2)) + 1e-3), (grey < BLACK).mean((1, 2))
        looks.append([grey.mean((1, 2)), grey.std((1, 2)), sharpness, black])
    table = files[["width", "height", "mode"]].assign(aspect=files["width"] / files["height"])
    table["bytes a pixel"] = files["bytes"] / (files["width"] * files["height"])
    table[["brightness", "contrast", "sharpness", "black"]] = np.concatenate(looks, axis=1).T
    return table


def own_class(files: pd.DataFrame, pictures: np.ndarray, telling: float = TELLING) -> np.ndarray:
    """Return P(own class) of each film, by its looks alone; float64, shape (n,).

    By boosting on traits, border and tones, of other patients each time. All are NaN where patients
    are too few, or looks tell the classes apart with an AUROC under `telling`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # takes seconds to import
    from sklearn.metrics import roc_auc_score

    sick, looks = labels_of(files), _features(files, pictures)
    model = HistGradientBoostingClassifier(min_samples_leaf=20, random_state=0)
    scores = unseen_scores(model, looks, sick, children(files))
    if scores is None or roc_auc_score(sick, scores) < telling:
        return np.full(len(files), np.nan)
    return np.where(sick == 1, scores, 1 - scores)


def _features(files: pd.DataFrame, pictures: np.ndarray) -> np.ndarray:
    """Traits, colour mode, the mean of the border on each side, and percentiles of the greys."""
    table, edge, measured = traits(files, pictures), round(EDGE * pictures.shape[1]), []
    for film in blocks(pictures):
        sides = film[:, :edge], film[:, -edge:], film[:, :, :edge], film[:, :, -edge:]
        tones = np.percentile(film, TONES, axis=(1, 2))
        measured.append(np.stack([*(side.mean((1, 2)) for side in sides), *tones], axis=1))
    modes = pd.get_dummies(table["mode"])
    return np.hstack([table[TRAITS], modes, np.concatenate(measured)]).astype(np.float64)


def unseen_scores(
    model: "BaseEstimator", features: np.ndarray, labels: np.ndarray, patients: np.ndarray
) -> np.ndarray | None:
    """Scores of each row by a model that has not seen its patient; None where these are too few."""
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    if min(len(set(patients[labels == label])) for label in (False, True)) < LEAST_PATIENTS:
        return None
    asked: dict[str, Any] = {"groups": patients, "cv": StratifiedGroupKFold(PATIENT_FOLDS)}
    with threadpool_limits(1):  # on a busy machine more threads wait for each other, twenty times
        return cross_val_predict(model, features, labels, method="predict_proba", **asked)[:, 1]


def blocks(pictures: Any) -> Iterator[np.ndarray]:
    """Images as float32, so many at a time that they need not all be in memory."""
    for start in range(0, len(pictures), BLOCK):
        yield np.asarray(pictures[start : start + BLOCK], np.float32)
