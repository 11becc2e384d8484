"""The list of files that a data set is made of, and our split of it by patient."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from . import paths
from .params import UsageError

LABELS = ("NORMAL", "PNEUMONIA")
FOLDS = ("train", "validation", "val", "test")  # validation is ours, carved from train
SCORED_FOLDS = FOLDS[1:]
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
MOST_UNUSABLE = 0.05  # of the files; up to two are always passed over
NO_IMAGE = ("hidden file", f"not one of {', '.join(IMAGE_SUFFIXES)}")
MOST_PIXELS = 100_000_000  # about three times the largest image of the real set, and 100 MB as grey
COLUMNS = ["path", "split", "label", "subtype", "patient", "width", "height", "mode", "bytes", "sha256", "problem"]
TEXT_COLUMNS = ["path", "split", "label", "subtype", "patient", "mode", "sha256", "problem"]

_PNEUMONIA_NAMES = re.compile(r"(?P<patient>person\d+_(?P<subtype>bacteria|virus))_\d+")
_MENDELEY_NAMES = re.compile(r"(?P<patient>(?P<subtype>BACTERIA|VIRUS|NORMAL)-\d+)-\d+")
_NORMAL_NAMES = re.compile(r"(?P<patient>(?:NORMAL2-)?IM-\d+)-\d+")


@dataclass(frozen=True)
class Manifest:
    """The files of a data set.

    Parameters
    ----------
    root : Path
        The data root; paths are relative to it.
    files : DataFrame
        One row a usable file: path (POSIX), split, label, subtype, patient, width and height in
        pixels, mode (as Pillow names it), bytes, sha256.
    left_out : DataFrame
        path and problem of every file that was not used.
    digest : str
        SHA-256 over paths and contents; identifies the data.
    """

    root: Path
    files: pd.DataFrame
    left_out: pd.DataFrame
    digest: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Usable files per published folder, before our validation split is carved."""
        table = self.files.groupby(["split", "label"]).size()
        splits = [split for split in FOLDS if split in set(self.files["split"])]
        return {split: {label: int(table.get((split, label), 0)) for label in LABELS} for split in splits}


def parse_name(stem: str, label: str) -> tuple[str, str]:
    """Return patient and subtype from a file name of the published set.

    A name of another form is its own patient, of subtype ``normal`` or ``unknown``. The same number
    under two prefixes is not known to be one child and counts as two.
    """
    for pattern in (_PNEUMONIA_NAMES, _MENDELEY_NAMES, _NORMAL_NAMES):
        found = pattern.match(stem)
        if found:
            break
    patient = found["patient"] if found else stem
    if label == "NORMAL":
        return patient, "normal"
    subtype = found.groupdict().get("subtype") if found else None
    return patient, subtype.lower() if subtype and subtype.lower() != "normal" else "unknown"


def read_manifest(root: Path) -> Manifest:
    """List, open and hash every file below `root`, or read what was found when nothing has changed since.

    Raises
    ------
    UsageError
        The folder is missing, has not the Kaggle layout, a class has no images, or more than 5 % of
        the files are unusable.
    """
    check_layout(root)
    found = list(_walk(root))
    key = hashlib.sha256(str(root.resolve()).encode() + Path(__file__).read_bytes())
    for path in found:
        state = path.lstat()
        key.update(f"{path.relative_to(root).as_posix()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    cached = paths.cache_folder() / "manifests" / f"{key.hexdigest()[:32]}.csv"
    if cached.is_file():
        table = pd.read_csv(cached, keep_default_na=False, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            table = pd.DataFrame(list(pool.map(lambda path: _inspect(root, path), found)), columns=COLUMNS)
        paths.write_atomically(cached, table.to_csv(index=False, quoting=csv.QUOTE_ALL))
    return _checked(root, table)


def _checked(root: Path, table: pd.DataFrame) -> Manifest:
    usable = table["problem"] == ""
    files = table[usable].drop(columns="problem").reset_index(drop=True)
    left_out = table.loc[~usable, ["path", "problem"]].reset_index(drop=True)
    damaged = left_out[~left_out["problem"].isin(NO_IMAGE)]
    if len(damaged) > max(MOST_UNUSABLE * len(table), 2):
        first = damaged.iloc[0]
        raise UsageError(
            f"data {root}: {len(damaged)} of {len(table)} files are unusable, the first is {first['path']!r} ({first['problem']}); "
            "fetch the data again"
        )
    for split, labels in _folders(root):
        for label in labels:
            if not ((files["split"] == split) & (files["label"] == label)).any():
                raise UsageError(f"data {root}: no usable image in {split}/{label}; put its images there")
    lines = files["path"] + "\0" + files["sha256"] + "\n"
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Manifest(root, files, left_out, digest)


def check_layout(root: Path) -> None:
    """Raise UsageError where `root` is not a folder in the Kaggle layout."""
    if not root.is_dir():
        raise UsageError(f"data {root}: there is no such folder; give a folder in the Kaggle layout or one of auto, kaggle, phantom")
    splits = ["train", "test", *(split for split in ("validation", "val") if (root / split).is_dir())]
    missing = [f"{split}/{label}" for split in splits for label in LABELS if not (root / split / label).is_dir()]
    if missing:
        raise UsageError(f"data {root}: {missing[0]} is missing; the layout is train|val|test / NORMAL|PNEUMONIA / *.jpeg")


def _folders(root: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for split in FOLDS:
        if (root / split).is_dir():
            yield split, LABELS


def _walk(root: Path) -> Iterator[Path]:
    """Every file directly in a class folder, in the order of names; symlinked folders are not followed."""
    for split, labels in _folders(root):
        for label in labels:
            folder = root / split / label
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                raise UsageError(f"data {folder}: cannot be read ({error.strerror}); give yourself access to it") from None
            yield from (entry for entry in entries if not entry.is_dir())


def _inspect(root: Path, path: Path) -> list:
    """One row of the table: what the file is, or why it cannot be used."""
    relative = path.relative_to(root)
    split, label = relative.parts[:2]
    name = relative.as_posix().encode(errors="surrogateescape").decode(errors="replace")
    patient, subtype = parse_name(Path(name).stem, label)
    row = [name, split, label, subtype, patient]
    if name != relative.as_posix():
        return [*row, 0, 0, "", 0, "", "its name is not UTF-8"]
    if path.name.startswith("."):
        return [*row, 0, 0, "", 0, "", NO_IMAGE[0]]
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return [*row, 0, 0, "", 0, "", NO_IMAGE[1]]
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; we judge by the outcome
            with Image.open(path) as image:
                if image.width * image.height > MOST_PIXELS:
                    return [*row, 0, 0, "", len(content), "", f"too large ({image.width} x {image.height} px)"]
                image.load()
                return [*row, image.width, image.height, image.mode, len(content), hashlib.sha256(content).hexdigest(), ""]
    except Exception as error:  # Pillow's decoders raise many kinds; whatever it is, the file is unusable
        return [*row, 0, 0, "", 0, "", f"not a readable image ({_one_line(error, path)})"]


def _one_line(error: Exception, path: Path) -> str:
    return " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__


def carve_validation(files: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Set aside a share of the training patients as validation.

    Patients are drawn within strata of class and subtype, until a stratum's share of images is
    reached, so that no patient stands on both sides.

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
    files = files.assign(fold=files["split"])
    if "validation" in set(files["split"]):
        return files
    train = files[files["split"] == "train"]
    strata = train.groupby("patient").agg(stratum=("subtype", lambda kinds: "+".join(sorted(set(kinds)))), images=("path", "size"))
    rng = np.random.default_rng([seed, 1])
    chosen: list[str] = []
    for _, stratum in strata.groupby("stratum"):
        if len(stratum) < 2:
            continue  # a lone patient stays in training
        stratum = stratum.iloc[rng.permutation(len(stratum))]
        before = stratum["images"].cumsum() - stratum["images"]
        chosen += list(stratum.index[before < fraction * stratum["images"].sum()])
    aside = (files["split"] == "train") & files["patient"].isin(chosen)
    files.loc[aside, "fold"] = "validation"
    _assert_split(files)
    return files


def _assert_split(files: pd.DataFrame) -> None:
    folds = {fold: part for fold, part in files.groupby("fold") if fold in ("train", "validation")}
    for fold in ("train", "validation"):
        missing = set(LABELS) - set(folds[fold]["label"]) if fold in folds else set(LABELS)
        if missing:
            raise UsageError(
                f"data: no {min(missing)} is left for {fold}; more training patients or another data.validation_fraction are needed"
            )
    shared = set(folds["train"]["patient"]) & set(folds["validation"]["patient"])
    if shared:
        raise AssertionError(f"patients on both sides of the split: {sorted(shared)[:3]}")
