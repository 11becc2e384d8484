"""What besides the lungs tells the classes apart: traits of the files, and the border."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ..data import looks
from ..data.dataset import Dataset, Split
from ..data.decoding import standardised
from ..data.manifest import LABELS, labels_of
from ..data.splits import is_training
from . import intervals

COARSE, BORDER = 32, 4  # the border is the outer 4 of 32 pixels on each side


@dataclass(frozen=True)
class Reach:
    """How far a shortcut gets: its AUROC; NaN where there are too few patients."""

    seen: float  # on training patients that the classifier has not seen
    test: float
    low: float  # of the 95% interval on test, by DeLong
    high: float


def metadata_scores(traits: pd.DataFrame, files: pd.DataFrame) -> np.ndarray | None:
    """Return P(PNEUMONIA) by boosting on metadata of other patients; None where these are few.

    `traits` are those of `looks.traits` at ``OVERVIEW_SIZE`` px.
    """
    features = traits[looks.METADATA].join(pd.get_dummies(traits["mode"]).astype(float))
    leaf = int(np.clip(len(files) // 40, 2, 20))
    model = HistGradientBoostingClassifier(max_iter=50, min_samples_leaf=leaf, random_state=0)
    return _guesses(model, features.to_numpy(np.float64), files)


def border_scores(data: Dataset) -> np.ndarray | None:
    """Return P(PNEUMONIA) by a logistic regression on the border of the standardised picture.

    `data` is opened at ``OVERVIEW_SIZE`` px; None where patients are too few.
    """
    side = data.stored.shape[1] // COARSE
    outer = np.ones((COARSE, COARSE), bool)
    outer[BORDER:-BORDER, BORDER:-BORDER] = False
    rows = []
    for block in looks.blocks(data.stored[:, : side * COARSE, : side * COARSE]):
        cells = block.reshape(-1, COARSE, side, COARSE, side)
        rows.append(standardised(cells.mean((2, 4)))[:, outer])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000))
    return _guesses(model, np.concatenate(rows), data.files)


def reach(scores: np.ndarray | None, files: pd.DataFrame) -> Reach:
    """Return how far scores get that know nothing of an image's patient."""
    if scores is None:
        return Reach(np.nan, np.nan, np.nan, np.nan)
    labels, patients = labels_of(files), files["patient"].to_numpy()
    train, test = is_training(files), files["folder"] == "test"
    found = intervals.delong(labels[test], scores[test], patients[test])
    interval = (found.interval_of_share if found else None) or (np.nan, np.nan)
    areas = (float(roc_auc_score(labels[rows], scores[rows])) for rows in (train, test))
    return Reach(*areas, *interval)


@threadpool_limits.wrap(limits=1)
def _guesses(model: BaseEstimator, features: np.ndarray, files: pd.DataFrame) -> np.ndarray | None:
    """Scores by cross-validation over training patients, and of the others by all of these."""
    labels, train = labels_of(files), is_training(files)
    patients = files["patient"].to_numpy()[train]
    unseen = looks.unseen_scores(model, features[train], labels[train], patients)
    if unseen is None:
        return None
    scores, fitted = np.empty(len(files)), model.fit(features[train], labels[train])
    scores[train], scores[~train] = unseen, fitted.predict_proba(features[~train])[:, 1]
    return scores


def class_means(split: Split) -> dict[str, np.ndarray]:
    """Return the mean image of each class, and ``difference``, PNEUMONIA less NORMAL; float64."""
    means = {label: split.pixels[split.labels == n].mean(0) for n, label in enumerate(LABELS)}
    return means | {"difference": means[LABELS[1]] - means[LABELS[0]]}
