"""Which images a model learns from, which choices are made on, which are scored: by patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from ..parameters import Data, UsageError
from .manifest import LABELS, SPLITS

MOST_UNNAMED = 0.9  # share of files whose names tell no patient; beyond it patients are unknown


def assign_splits(files: pd.DataFrame, data: Data, seed: int) -> pd.DataFrame:
    """Add the column ``split``: with a validation of our own, or with ``val`` in its place.

    Raises UsageError where a class has too few patients, or ``val`` cannot take that place.
    """
    if data.validation == "patients":
        return carve_validation(files, data.validation_fraction, seed)
    if set(files["folder"]) & {"val", "validation"} != {"val"}:
        raise UsageError(
            "data.validation = val: this data set has no val folder, or a validation of its own; "
            "take data.validation=patients"
        )
    return files.assign(split=files["folder"])


def chosen_on(splits: Iterable[str]) -> str:
    """Return the split that all choices are made on: ``validation``, else ``val``."""
    return "validation" if "validation" in splits else "val"


def carve_validation(files: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Add the column ``split``, with a share of the training patients set aside as ``validation``.

    Patients are drawn within strata of class and subtype, until a stratum's share of images is
    reached, so that no patient stands on both sides. Nor does a number that is used twice
    (``person1`` of ``_bacteria`` and of ``_virus``, ``IM-0429`` with and without ``NORMAL2``): it
    may be one child. A set that has a validation folder keeps it.

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
        # Taken where that comes nearer to the share than leaving; one at least stays on each side.
        take = stratum["images"].cumsum() - stratum["images"] / 2 <= wanted
        if len(stratum) > 1 and not take.any():
            take[stratum["images"].idxmin()] = True
        take.iloc[-1] &= len(stratum) > 1 and not take.all()
        chosen += list(stratum.index[take])
    files.loc[train.index[train["number"].isin(chosen)], "split"] = "validation"
    _check(files)
    return files


def _number(patient: str) -> str:
    """What may be one child under several names."""
    person = re.match(r"person\d+(?=_)", patient)
    return person[0] if person else re.sub(r"^NORMAL2-(?=IM)", "", patient)


def _check(files: pd.DataFrame) -> None:
    sides = {split: files[files["split"] == split] for split in ("train", "validation")}
    for split, part in sides.items():
        missing = set(LABELS) - set(part["label"])
        if missing:
            raise UsageError(
                f"data: no {min(missing)} is left for {split}; more training patients or another "
                "data.validation_fraction are needed"
            )
    shared = set.intersection(*(set(part["patient"]) for part in sides.values()))
    if shared:
        raise AssertionError(f"patients on both sides of the split: {sorted(shared)[:3]}")


def patients_known(files: pd.DataFrame) -> bool:
    """Tell whether file names tell patients: not where nearly every file has one of its own."""
    stems = files["path"].map(lambda path: PurePosixPath(path).stem)
    return (files["patient"] == stems).mean() <= MOST_UNNAMED


def reused_numbers(files: pd.DataFrame) -> pd.Series:
    """Return the person number of images where several splits have it under different kinds.

    ``person1_bacteria`` and ``person1_virus`` are not known to be one child, nor known to be two.
    Missing elsewhere.
    """
    number = files["patient"].str.extract(r"^(person\d+)_", expand=False)
    kinds = files.groupby(number)[["patient", "split"]].nunique()
    return number.where(number.isin(kinds.index[(kinds > 1).all(axis=1)]))


def breakdown(files: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return images and patients by ``split`` (or published ``folder``), class and subtype."""
    named = {"images": ("path", "size"), "patients": ("patient", "nunique")}
    table = files.groupby([by, "label", "subtype"], sort=False).agg(**named)
    return table.sort_index(
        level=by, sort_remaining=False, key=lambda names: names.map(SPLITS.index)
    )
