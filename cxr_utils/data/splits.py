"""Which images a model learns from, which choices are made on, which are scored: by patient."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from ..parameters import Data, UsageError
from .manifest import LABELS, SPLITS

# Maybe one child by several names: person1 of _bacteria and _virus, IM-0429 also after NORMAL2.
ONE_CHILD = re.compile(r"^(person\d+)_.*|^NORMAL2-(?=IM)", re.DOTALL)
TRAINING = {"train", "validation"}  # folders of training patients, those set aside among them
UNUSED = "unused"  # the split of training patients that are left out
MOST_UNNAMED = 0.9  # share of files whose names tell no patient; beyond it patients are unknown


def assign_splits(
    files: pd.DataFrame, data: Data, seed: int, own_class: np.ndarray | None = None
) -> pd.DataFrame:
    """Add the columns ``split``, ``adverse`` and ``weight``.

    ``adverse``: set aside as it looks like the other class. `own_class`, float of shape (n,), tells
    which films do, as `looks.own_class` returns it. Without such films, or with folds, validation
    holds patients drawn at random only. ``weight``: how many films a film of validation stands for.
    The split of training patients beyond `data.training_share` is `UNUSED`. Raises UsageError where
    a validation that is asked for by name cannot be had.
    """
    folders = set(files["folder"])
    if data.validation == "val":
        if folders & {"val", "validation"} != {"val"}:
            said = "this data set has no val folder, or a validation of its own"
            raise UsageError(f"data.validation = val: {said}; take data.validation=patients")
        return files.assign(split=files["folder"], adverse=False, weight=1.0)
    if data.folds and "validation" in folders:
        said = "this data set has a validation of its own"
        raise UsageError(f"data.folds = {data.folds}: {said}; take data.folds=0")
    files = carve_validation(files, data, seed).assign(adverse=False, weight=1.0)
    if own_class is not None and goes_by_looks(files, data):
        files["adverse"] = _adverse(files, own_class, seed)
        files.loc[files["adverse"], "split"] = "validation"
        if files["adverse"].any():
            files["weight"] = validation_weights(files, own_class)
    if data.validation == "adverse" and not files["adverse"].any():
        said = "too few patients are known, looks hardly tell the classes apart, or too few films "
        said += "look like the other class"
        if "validation" in folders:
            said = "this data set has a validation of its own"
        raise UsageError(f"data.validation = adverse: {said}; take data.validation=patients")
    return _reduced(files, data.training_share, seed) if data.training_share < 1 else files


def goes_by_looks(files: pd.DataFrame, data: Data) -> bool:
    """Tell whether validation is to hold patients whose films look like the other class."""
    asked = data.validation in ("auto", "adverse") and not data.folds
    return asked and "validation" not in set(files["folder"])


def _reduced(files: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Leave a share of the training patients of each subtype; a larger share holds a smaller."""
    train = files.assign(child=children(files)).query("split == 'train'")
    rng, kept = np.random.default_rng([seed, 6]), []
    for _, names in train.groupby("subtype")["child"]:
        found = rng.permutation(sorted(set(names)))
        kept += list(found[: max(1, round(share * len(found)))])
    return files.assign(
        split=files["split"].mask(files.index.isin(train.index[~train["child"].isin(kept)]), UNUSED)
    )


def _unlike(files: pd.DataFrame, own_class: np.ndarray) -> pd.Series:
    """Tell which films are of a training patient that looks like the other class; bool."""
    known = files.assign(own=own_class, child=children(files))
    return known.groupby(["label", "child"])["own"].transform("mean") < 0.5


def _adverse(files: pd.DataFrame, own_class: np.ndarray, seed: int) -> np.ndarray:
    """Tell which films belong to half of those training patients that look like the other class.

    The other half is left to be learned from. None where a class would have none on one side. Bool,
    shape (n,).
    """
    unlike = _unlike(files, own_class)
    train = files.assign(child=children(files), unlike=unlike).query("split == 'train'")
    rng = np.random.default_rng([seed, 5])
    chosen: list[np.ndarray] = []
    for label in LABELS:
        found = np.unique(train["child"][train["unlike"] & (train["label"] == label)])
        chosen.append(rng.permutation(found)[: len(found) // 2])
    if not all(map(len, chosen)):
        return np.zeros(len(files), bool)
    return files.index.isin(train.index[train["child"].isin(np.concatenate(chosen))])


def validation_weights(files: pd.DataFrame, own_class: np.ndarray) -> np.ndarray:
    """Return how many films each film of validation stands for; float64, shape (n,), 1 elsewhere.

    The inverse of the share of its group (class, looks like or unlike it) that is held out; cf.
    Horvitz and Thompson 1952, doi:10.1080/01621459.1952.10483446. Validation holds more than half
    of the patients that look like the other class, and far fewer of the rest.
    """
    held = files["split"] == "validation"
    group = [files["label"], _unlike(files, own_class)]
    share = held.where(is_training(files)).astype(float).groupby(group).transform("mean")
    return (1 / share).where(held, 1.0).to_numpy()


def is_training(files: pd.DataFrame) -> np.ndarray:
    """Tell which images were published to be trained on, or chosen on; bool, shape (n,)."""
    return files["folder"].isin(TRAINING).to_numpy()


def chosen_on(splits: Iterable[str]) -> str:
    """Return the split that all choices are made on: ``validation``, else ``val``."""
    return "validation" if "validation" in splits else "val"


def carve_validation(files: pd.DataFrame, data: Data, seed: int) -> pd.DataFrame:
    """Add the column ``split``, with some of the training patients set aside as ``validation``.

    Patients stand in random order within strata of class and subtype, and are set aside until
    `data.validation_fraction` of a stratum's images is reached; with `data.folds`, those in that
    part of the order that is the fold's. So no patient stands on both sides; nor does a number that
    is used twice. A set that has a validation folder keeps it. Raises UsageError where a class has
    too few patients.
    """
    files = files.assign(split=files["folder"])
    if "validation" in set(files["folder"]):
        return files
    train = files[files["folder"] == "train"]
    train = train.assign(number=children(train))
    kinds = ("subtype", lambda found: "+".join(sorted(set(found))))
    strata = train.groupby("number").agg(stratum=kinds, images=("path", "size"))
    rng = np.random.default_rng([seed, 1])
    chosen: list[str] = []
    for _, stratum in strata.groupby("stratum"):
        stratum = stratum.iloc[rng.permutation(len(stratum))]
        images = stratum["images"]
        # Taken where that comes nearer to the share than leaving.
        middle = (images.cumsum() - images / 2) / images.sum()
        take = middle <= data.validation_fraction
        if data.folds:
            take = np.ceil(middle * data.folds) == data.fold
        else:  # one at least stays on each side
            if len(stratum) > 1 and not take.any():
                take[images.idxmin()] = True
            take.iloc[-1] &= len(stratum) > 1 and not take.all()
        chosen += list(stratum.index[take])
    files.loc[train.index[train["number"].isin(chosen)], "split"] = "validation"
    for split in ("train", "validation"):
        if missing := set(LABELS) - set(files.loc[files["split"] == split, "label"]):
            needed = "more training patients or another data.validation_fraction are needed"
            raise UsageError(f"data: no {min(missing)} is left for {split}; {needed}")
    return files


def children(files: pd.DataFrame) -> np.ndarray:
    """Return a name for each image that is one for all names that one child may have."""
    return np.array([ONE_CHILD.sub(r"\1", name) for name in files["patient"]])


def patients_known(files: pd.DataFrame) -> bool:
    """Tell whether file names tell patients: not where nearly every file has one of its own."""
    stems = files["path"].map(lambda path: PurePosixPath(path).stem)
    return (files["patient"] == stems).mean() <= MOST_UNNAMED


def reused_numbers(files: pd.DataFrame) -> pd.Series:
    """Return each image's person number if splits use it for different kinds; else missing."""
    # person1_bacteria and person1_virus are not known to be one child, nor known to be two.
    number = files["patient"].str.extract(r"^(person\d+)_", expand=False)
    kinds = files.groupby(number)[["patient", "split"]].nunique()
    return number.where(number.isin(kinds.index[(kinds > 1).all(axis=1)]))


def breakdown(files: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return images and patients by ``split`` (or published ``folder``), class and subtype."""
    named = {"images": ("path", "size"), "patients": ("patient", "nunique")}
    table = files.groupby([by, "label", "subtype"], sort=False).agg(**named)
    order = (*SPLITS, UNUSED)
    return table.sort_index(level=by, sort_remaining=False, key=lambda part: part.map(order.index))
