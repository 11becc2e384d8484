"""Weights of the images that take from their looks what these say of the label.

In the training films sharpness, exposure and the size of the file tell the classes apart, and a network
that reads them is wrong where new films look different. Images whose looks go against their label are few,
so they are weighed up, by the inverse of how probable their label is given their looks (inverse
probability weighting, Robins, Rotnitzky and Zhao 1994, doi:10.1080/01621459.1994.10476818). Under these
weights looks alone say little, in training as in validation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from . import shortcuts
from .images import XRays
from .manifest import LABELS

LEAST_PROBABILITY = 0.02
LEARNED = ("train", "validation")


def weigh(data: XRays, most: float) -> XRays:
    """Return a data set in which each image of train and validation has its weight.

    Looks are the traits of ``shortcuts.traits``; the probability comes from a logistic regression that has
    not seen the patient; within each class the mean weight is 1.

    Parameters
    ----------
    data : XRays
        The data set.
    most : float
        No image is weighed up by more than this; 0 weighs all alike. Where there are too few patients to
        tell what looks say, all weigh alike as well.

    Returns
    -------
    XRays
    """
    rows = data.files["fold"].isin(LEARNED).to_numpy()
    labels, patients = (data.files["label"] == LABELS[1]).to_numpy(), data.files["patient"].to_numpy()
    if not most or not shortcuts.enough(labels[rows], patients[rows]):
        return data
    looks = shortcuts.traits(data)
    features = looks[shortcuts.TRAITS].join(pd.get_dummies(looks["mode"]).astype(float)).to_numpy(np.float64)
    share = labels[rows].mean()
    chance = shortcuts.unseen(shortcuts.linear(1.0), features[rows], labels[rows], patients[rows])
    of_label = np.clip(np.where(labels[rows], chance, 1 - chance), LEAST_PROBABILITY, 1)
    found = np.ones(len(rows))
    found[rows] = np.minimum(np.where(labels[rows], share, 1 - share) / of_label, most)
    folds = dict(data.folds)
    for name in set(LEARNED) & set(folds):
        weights = found[(data.files["fold"] == name).to_numpy()]
        folds[name] = replace(folds[name], weights=_mean_of_one(weights, folds[name].labels))
    return replace(data, folds=folds)


def _mean_of_one(weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    means = np.bincount(labels, weights) / np.bincount(labels)
    return weights / means[labels]


def reach_of_looks(data: XRays) -> pd.DataFrame:
    """Return the AUROC of each trait alone on the training images, without their weights and with them.

    Returns
    -------
    DataFrame
        trait, as it is, weighed; under 0.5 where PNEUMONIA has less of it.
    """
    train = data.folds["train"]
    looks = shortcuts.traits(data)[(data.files["fold"] == "train").to_numpy()]
    rows = []
    for trait in shortcuts.TRAITS:
        if looks[trait].nunique() > 1:
            both = [roc_auc_score(train.labels, looks[trait], sample_weight=weights) for weights in (None, train.weights)]
            rows.append([trait, *both])
    return pd.DataFrame(rows, columns=["trait", "as it is", "weighed"])
