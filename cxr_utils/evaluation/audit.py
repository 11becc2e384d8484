"""What may be wrong with a data set: duplicates, patients and shortcuts; each finding with a verdict and a remedy."""

from __future__ import annotations

from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..data.dataset import Dataset
from ..data.manifest import LABELS, NO_IMAGE, Manifest
from ..data.splits import patients_known, reused_numbers
from . import shortcuts
from .shortcuts import BLOCK

HASH_SIDE = 16  # a perceptual hash has its square of bits
# Of 256 bits; a film saved again in JPEG differs in fewer, and different films of the real set in no fewer than 34.
NEAR_BITS = 20
NOTED, WARNED = 0.65, 0.8  # AUROC of a shortcut from which on it is a note, or a warning
SHIFT = 0.05  # difference in the share of PNEUMONIA from which on it is a note


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Parameters
    ----------
    check : str
        What was looked for.
    verdict : str
        ``fine``, ``note`` (know it) or ``warning`` (scores may mislead).
    says : str
        What was found, in numbers.
    remedy : str
        What to do; empty where all is fine.
    files : tuple of str
        The files concerned, in groups that belong together.
    """

    check: str
    verdict: str
    says: str
    remedy: str = ""
    files: tuple[str, ...] = ()


def audit(data: Dataset) -> list[Finding]:
    """Look for what would make scores on a data set mislead.

    Parameters
    ----------
    data : Dataset
        The data set, opened at ``images.OVERVIEW_SIZE``.

    Returns
    -------
    list of Finding
        In the order of a reader's questions: files, duplicates, patients, shortcuts, prior.
    """
    exact = data.files.groupby("sha256", sort=False).ngroup().to_numpy()
    pairs = near_pairs(data.stored, exact)
    near = _groups(len(exact), pairs)
    same = _groups(len(exact), np.concatenate([pairs, _chains(exact)]))
    looks = shortcuts.traits(data)
    return [
        _left_out(data.manifest),
        _duplicates(
            "exact duplicates",
            "are identical to the byte",
            _groups(len(exact), _chains(exact)),
            data.files,
        ),
        _duplicates(
            "near duplicates",
            "show the same film, saved again (cropped and mirrored ones are not looked for)",
            near,
            data.files,
        ),
        _twins(same, data.files),
        _patients(data.files),
        _numbers(data.files, data.source.synthetic),
        _metadata(looks, data.files),
        _single_traits(looks, data.files),
        _rim(data),
        _prior(data.files),
    ]


def _left_out(manifest: Manifest) -> Finding:
    problems = manifest.left_out["problem"]
    named = tuple(
        f"{path}: {problem}"
        for path, problem in zip(manifest.left_out["path"], problems, strict=True)
    )
    damaged = int((~problems.isin(NO_IMAGE)).sum())
    says = f"{len(named)} files were left out, {damaged} of them damaged or unreadable."
    if not named:
        return Finding("usable files", "fine", says)
    if damaged:
        return Finding(
            "usable files", "warning", says, "fetch the damaged ones again, or delete them", named
        )
    return Finding("usable files", "note", says, "delete them, if they should not be there", named)


def near_pairs(stored: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return pairs of rows whose files differ and whose pictures hardly do.

    Pictures are compared by a perceptual hash of 256 bits: the signs of the low frequencies of their
    cosine transform (Zauner 2010, *Implementation and benchmarking of perceptual image hash functions*).

    Parameters
    ----------
    stored : ndarray of uint8, shape (n, size, size)
        The images.
    content : ndarray of int, shape (n,)
        Equal for files that are identical to the byte.

    Returns
    -------
    ndarray of int, shape (pairs, 2)
    """
    hashes = np.array(
        [imagehash.phash(Image.fromarray(picture), HASH_SIDE).hash.ravel() for picture in stored]
    )
    signs = hashes.astype(np.float32) * 2 - 1
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(signs), BLOCK):
        distance = (signs.shape[1] - signs[start : start + BLOCK] @ signs.T) / 2
        first, second = np.nonzero(distance <= NEAR_BITS)
        first += start
        later = (second > first) & (content[first] != content[second])
        pairs.append(np.stack([first[later], second[later]], axis=1))
    return np.concatenate(pairs)


def _chains(content: np.ndarray) -> np.ndarray:
    """Pairs of rows that follow each other among those of equal content."""
    order = np.argsort(content, kind="stable")
    equal = content[order[1:]] == content[order[:-1]]
    return np.stack([order[:-1][equal], order[1:][equal]], axis=1)


def _groups(count: int, pairs: np.ndarray) -> list[np.ndarray]:
    """Rows that hang together by pairs, two at least in a group, in the order of their first."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    rows = pd.Series(group).groupby(group, sort=False).indices
    return [found for found in rows.values() if len(found) > 1]


def _duplicates(check: str, what: str, groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    fold, path = files["split"].to_numpy(), files["path"].to_numpy()
    across = [rows for rows in groups if len(set(fold[rows])) > 1]
    tested = sum(
        "test" in fold[rows] and bool({"train", "validation"} & set(fold[rows])) for rows in across
    )
    says = f"Groups of files that {what}: {len(groups)}; across our splits: {len(across)}; across train and test: {tested}."
    named = tuple(
        " = ".join(path[rows])
        for rows in across + [rows for rows in groups if len(set(fold[rows])) == 1]
    )
    if across:
        remedy = "keep one of each group; " + (
            "a model has seen what it is tested on"
            if tested
            else "validation is easier than it should be"
        )
        return Finding(check, "warning", says, remedy, named)
    return Finding(
        check,
        "note" if groups else "fine",
        says,
        "keep or delete them; kept, their patients weigh a little more" if groups else "",
        named,
    )


def _twins(groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    label, path = files["label"].to_numpy(), files["path"].to_numpy()
    torn = [rows for rows in groups if len(set(label[rows])) > 1]
    says = f"Groups of duplicates that carry both labels: {len(torn)}."
    if not torn:
        return Finding("labels of twins", "fine", says)
    return Finding(
        "labels of twins",
        "warning",
        says,
        "one label is wrong if they are one film: ask a radiologist",
        tuple(" = ".join(path[rows]) for rows in torn),
    )


def _patients(files: pd.DataFrame) -> Finding:
    splits = files.groupby("patient")["split"].agg(lambda split: sorted(set(split)))
    across = splits[splits.str.len() > 1]
    ours = sum({"train", "validation"} <= set(fold) for fold in across)
    says = f"{len(across)} of {len(splits)} patients are in several splits, {ours} of them across our split, as far as file names tell."
    if across.empty and not patients_known(files):
        remedy = (
            "name files as the published set does, or read every score and interval as one by image"
        )
        return Finding(
            "patients across splits",
            "note",
            "Patients cannot be told from these file names.",
            remedy,
        )
    if across.empty:
        return Finding("patients across splits", "fine", says)
    named = tuple(
        " = ".join(files.loc[files["patient"] == patient, "path"]) for patient in across.index
    )
    return Finding(
        "patients across splits", "warning", says, "move each patient's files to one folder", named
    )


def _numbers(files: pd.DataFrame, synthetic: bool) -> Finding:
    """Count person numbers that stand in several splits under different kinds: not known to be one child, nor known to be two."""
    several = files.assign(number=reused_numbers(files)).dropna(subset="number")
    says = f"{several['number'].nunique()} person numbers stand in several splits under different kinds of pneumonia"
    if several.empty or synthetic:
        return Finding(
            "reused patient numbers",
            "fine",
            f"{says}{'; they were drawn as different children' if synthetic else ''}.",
        )
    tested, sick = (
        several[several["folder"] == "test"],
        files[(files["folder"] == "test") & (files["label"] == LABELS[1])],
    )
    says += (
        f" ({tested['number'].nunique()} of them in test, with {len(tested)} of its {len(sick)} PNEUMONIA images); we count them as "
        "different children. If they are the same, test scores are too good."
    )
    return Finding(
        "reused patient numbers",
        "note",
        says,
        "names cannot tell; reports 2 and 3 score test once more without them",
    )


def _metadata(looks: pd.DataFrame, files: pd.DataFrame) -> Finding:
    reach = shortcuts.metadata_floor(looks, files)
    says = f"A classifier on size, aspect, colour mode, bytes and sharpness alone reaches {reach}."
    says += " A model that does not clearly exceed this has shown nothing."
    return _reached(
        "metadata floor",
        reach,
        says,
        "vary sharpness and noise in augmentation; compare every AUROC with it",
    )


def _rim(data: Dataset) -> Finding:
    reach = shortcuts.rim(data)
    says = f"A linear model on the outer eighth of each side, where there is hardly any lung, reaches {reach}."
    return _reached(
        "rim of the picture",
        reach,
        says,
        "move and stretch pictures in augmentation; compare every AUROC with it",
    )


def _reached(check: str, reach: shortcuts.Reach, says: str, remedy: str) -> Finding:
    if np.isnan(reach.seen):
        return Finding(
            check,
            "note",
            "There are too few patients to tell.",
            f"{shortcuts.LEAST_PATIENTS} of each class in train are needed",
        )
    return _judged(check, max(reach.seen, reach.low), says, remedy)


def _single_traits(looks: pd.DataFrame, files: pd.DataFrame) -> Finding:
    areas = shortcuts.trait_aurocs(looks, files)
    named = [
        f"{name} {max(area, 1 - area):.3f} ({'higher' if area > 0.5 else 'lower'} in PNEUMONIA)"
        for name, area in areas.items()
    ]
    first = next(iter(areas.values()))
    says = f"AUROC of one number alone on the training patients, in the direction that separates, best first: {', '.join(named[:3])}."
    remedy = (
        "standardise or vary in augmentation what they stand for; compare every AUROC with them"
    )
    sick = files.loc[shortcuts.of_training_patients(files), "label"] == LABELS[1]
    surely = max(first, 1 - first) - 1.96 * shortcuts.auroc_error(
        max(first, 1 - first), int(sick.sum()), int((~sick).sum())
    )
    return _judged("single traits", surely, says, remedy)


def _judged(check: str, area: float, says: str, remedy: str) -> Finding:
    verdict = "warning" if area >= WARNED else "note" if area >= NOTED else "fine"
    return Finding(check, verdict, says, remedy if verdict != "fine" else "")


def _prior(files: pd.DataFrame) -> Finding:
    shares = (files["label"] == LABELS[1]).groupby(files["folder"]).mean()
    says = f"PNEUMONIA makes up {shares['train']:.1%} of train and {shares['test']:.1%} of test."
    if abs(shares["train"] - shares["test"]) < SHIFT:
        return Finding("prior shift", "fine", says)
    return Finding(
        "prior shift",
        "note",
        says,
        "read probabilities and the share of alarms that are right (PPV) for the share in validation; recalibrate for another",
    )
