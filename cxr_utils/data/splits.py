"""Which images a model learns from, which choices are made on, and which are only scored: by patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from ..parameters import Data, UsageError
from .manifest import LABELS, SPLITS

MOST_UNNAMED = (
    0.9  # share of files whose names tell no patient, from which on patients count as unknown
)


def assign_splits(files: pd.DataFrame, data: Data, seed: int) -> pd.DataFrame:
    """Add the column ``fold`` as the parameters ask: with a validation of our own, or with ``val`` in its place.

    Raises
    ------
    UsageError
        A class has too few patients to be split, or ``val`` cannot take the place of validation.
    """
    if data.validation == "patients":
        return carve_validation(files, data.validation_fraction, seed)
    if set(files["folder"]) & {"val", "validation"} != {"val"}:
        raise UsageError(
            "data.validation = val: this data set has no val folder, or a validation of its own; take data.validation=patients"
        )
    return files.assign(split=files["folder"])


def chosen_on(splits: Iterable[str]) -> str:
    """Return the fold on which epochs, temperature and thresholds are chosen: ``validation``, else ``val``."""
    return "validation" if "validation" in splits else "val"


def carve_validation(files: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Set aside a share of the training patients as validation.

    Patients are drawn within strata of class and subtype, until a stratum's share of images is
    reached, so that no patient stands on both sides. Nor does a number that is used twice (``person1``
    of ``_bacteria`` and of ``_virus``, ``IM-0429`` with and without ``NORMAL2``): it may be one child.

    Parameters
    ----------
    files : DataFrame
        ``files`` of a manifest.
    fraction : float
        Share of the training images, in (0, 0.5).
    seed : int
        The same seed gives the same split.

    Returns
    -------
    DataFrame
        `files` with the column ``fold``: ``train``, ``validation``, ``val`` or ``test``. A set that
        has a validation split of its own keeps it.

    Raises
    ------
    UsageError
        A class has too few patients to be split.
    """
    files = files.assign(split=files["folder"])
    if "validation" in set(files["folder"]):
        return files
    train = files[files["folder"] == "train"]
    train = train.assign(number=[_number(patient) for patient in train["patient"]])
    strata = train.groupby("number").agg(
        stratum=("subtype", lambda kinds: "+".join(sorted(set(kinds)))), images=("path", "size")
    )
    rng = np.random.default_rng([seed, 1])
    chosen: list[str] = []
    for _, stratum in strata.groupby("stratum"):
        stratum = stratum.iloc[rng.permutation(len(stratum))]
        wanted = fraction * stratum["images"].sum()
        # A patient is taken where that comes nearer to the share than leaving it; one at least stays on each side.
        take = stratum["images"].cumsum() - stratum["images"] / 2 <= wanted
        if len(stratum) > 1 and not take.any():
            take[stratum["images"].idxmin()] = True
        take.iloc[-1] &= len(stratum) > 1 and not take.all()
        chosen += list(stratum.index[take])
    aside = train.index[train["number"].isin(chosen)]
    files.loc[aside, "split"] = "validation"
    _assert_split(files)
    return files


def patients_known(files: pd.DataFrame) -> bool:
    """Tell whether file names tell patients: they do not where nearly every file would be a patient of its own name."""
    return (
        files["patient"] == files["path"].map(lambda path: PurePosixPath(path).stem)
    ).mean() <= MOST_UNNAMED


def reused_numbers(files: pd.DataFrame) -> pd.Series:
    """Return the person number of each image where it stands in several splits under different kinds; missing elsewhere.

    ``person1_bacteria`` and ``person1_virus`` are not known to be one child, nor known to be two.
    """
    number = files["patient"].str.extract(r"^(person\d+)_", expand=False)
    found = (
        files.assign(number=number)
        .dropna(subset="number")
        .groupby("number")[["patient", "split"]]
        .nunique()
    )
    return number.where(number.isin(found.index[(found["patient"] > 1) & (found["split"] > 1)]))


def _number(patient: str) -> str:
    person = re.match(r"person\d+(?=_)", patient)
    if person:
        return person[0]
    return patient.removeprefix("NORMAL2-") if patient.startswith("NORMAL2-IM") else patient


def breakdown(files: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return images and patients by ``fold`` (or published ``split``), class and subtype."""
    named = {"images": ("path", "size"), "patients": ("patient", "nunique")}
    table = files.groupby([by, "label", "subtype"], sort=False).agg(**named)
    return table.sort_index(
        level=by,
        sort_remaining=False,
        key=lambda names: names.map({fold: rank for rank, fold in enumerate(SPLITS)}),
    )


def _assert_split(files: pd.DataFrame) -> None:
    train, validation = (files[files["split"] == fold] for fold in ("train", "validation"))
    for fold, part in (("train", train), ("validation", validation)):
        missing = set(LABELS) - set(part["label"])
        if missing:
            raise UsageError(
                f"data: no {min(missing)} is left for {fold}; more training patients or another data.validation_fraction are needed"
            )
    shared = set(train["patient"]) & set(validation["patient"])
    if shared:
        raise AssertionError(f"patients on both sides of the split: {sorted(shared)[:3]}")
