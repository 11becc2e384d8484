"""The list of files that a data set is made of, with what is known of each, and its digest."""

import contextlib
import csv
import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL

from .. import paths
from ..files import exclusive, sha256_of, write_atomically
from ..parameters import UsageError
from . import decoding
from .decoding import Square

LABELS = ("NORMAL", "PNEUMONIA")
SPLITS = ("train", "validation", "val", "test")  # validation is ours, carved from train
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
LAYOUT = "train|val|test / NORMAL|PNEUMONIA / *.jpeg"
MOST_BYTES = 200_000_000  # of a file
MOST_UNUSABLE = 0.05  # of the files; up to two are always passed over
NO_IMAGE = ("hidden file", "folder", f"not one of {', '.join(IMAGE_SUFFIXES)}")
COLUMNS = ["path", "folder", "label", "subtype", "patient"]  # the path POSIX, from the root
COLUMNS += ["width", "height", "mode", "bytes", "sha256", "problem"]  # the mode as Pillow names it
NUMBERS = ("width", "height", "bytes")  # px as stored, before EXIF turns it; the rest is text
# The patient in names of the published set, of its first release at Mendeley, of its NORMAL films.
# The same number under two prefixes is not known to be one child and counts as two.
PATIENT = re.compile(
    r"person\d+_(bacteria|virus)(?=_\d)|(BACTERIA|VIRUS|NORMAL)-\d+(?=-\d)|(NORMAL2-)?IM-\d+(?=-\d)"
)


@dataclass(frozen=True)
class Manifest:
    """The files of a data set."""

    root: Path
    files: pd.DataFrame  # those that are usable, with all COLUMNS but the last
    left_out: pd.DataFrame  # path and problem of every other
    digest: str  # SHA-256 over paths and contents; identifies the data

    def counts(self) -> dict[str, dict[str, int]]:
        """Return usable files per published folder and class."""
        table = pd.crosstab(self.files["label"], self.files["folder"]).to_dict()
        return {folder: table[folder] for folder in SPLITS if folder in table}


def labels_of(table: pd.DataFrame) -> np.ndarray:
    """Return the column ``label`` as int64: 1 for PNEUMONIA, 0 for NORMAL."""
    return (table["label"] == "PNEUMONIA").to_numpy(np.int64)


def parse_name(stem: str, label: str) -> tuple[str, str]:
    """Return patient and subtype; a name of another form is its own patient (``unknown``)."""
    found = PATIENT.match(stem)
    patient = found[0] if found else stem
    if label == "NORMAL":
        return patient, "normal"
    subtype = found and (found[1] or found[2] or "").lower()
    return patient, subtype if subtype in ("bacteria", "virus") else "unknown"


def read_manifest(root: Path, squares: Sequence[Square] = (), progress: bool = False) -> Manifest:
    """List and hash every file below `root` that is new or has changed in size or time.

    Where all are new, the same pass caches the `squares` that will be asked for next. Raises
    UsageError where the folder is missing or not in the Kaggle layout, a class has no images, or
    more than 5% of the files are unusable.
    """
    check_layout(root)
    found = {_state(root, name): name for name in _walk(root)}
    code = "".join(sha256_of(Path(file)) for file in (__file__, decoding.__file__))
    key = f"{root.resolve()} {PIL.__version__}{code}".encode(errors="surrogateescape")
    cached = paths.cache_folder() / "manifests" / f"{hashlib.sha256(key).hexdigest()[:32]}.csv"
    with exclusive("pixels"):
        known, states = _cached_table(cached), list(found)
        if list(known.index) == states:
            return _checked(root, known)
        new = {state: name for state, name in found.items() if state not in known.index}
        kept, rows = squares if len(new) == len(found) else (), []
        with decoding.storing(kept) as files:
            inspect, names = partial(_inspect, root, kept), list(new.values())
            for row, made in decoding.in_parallel(inspect, names, "reading the images", progress):
                rows.append(row)
                for file, square in zip(files, made, strict=False):
                    file.write(square)
            read = pd.DataFrame(rows, list(new), COLUMNS)
            table = (pd.concat([known, read]) if len(known) else read).loc[states]
            manifest = _checked(root, table)
            decoding.keep(files, kept, manifest.digest)
            write_atomically(cached, table.to_csv(index_label="state", quoting=csv.QUOTE_ALL))
            return manifest


def _state(root: Path, name: str) -> str:
    """What changes when a file, or the one that a link leads to, is renamed or written."""
    try:
        state = (root / name).stat()
    except OSError:  # a link that leads nowhere
        state = (root / name).lstat()
    said = f"{name}\0{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
    return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:32]


def _cached_table(cached: Path) -> pd.DataFrame:
    """The rows of the last time, by the state of their files; none where it is damaged."""
    kinds = dict.fromkeys(("state", *COLUMNS), "str") | dict.fromkeys(NUMBERS, "int64")
    with contextlib.suppress(OSError, KeyError, ValueError):  # as pandas' errors of parsing are
        table = pd.read_csv(cached, keep_default_na=False, dtype=kinds).set_index("state")
        if list(table) == COLUMNS and table.index.is_unique:
            return table
    return pd.DataFrame(columns=COLUMNS)


def _checked(root: Path, table: pd.DataFrame) -> Manifest:
    usable = table["problem"] == ""
    files = table[usable].drop(columns="problem").reset_index(drop=True)
    left_out = table.loc[~usable, ["path", "problem"]].reset_index(drop=True)
    damaged = left_out[~left_out["problem"].isin(NO_IMAGE)]
    if len(damaged) > max(MOST_UNUSABLE * len(table), 2):
        path, problem = damaged.iloc[0]
        said = f"{len(damaged)} of {len(table)} files are unusable, the first is {path!r}"
        raise UsageError(f"data {root}: {said} ({problem}); fetch the data again")
    filled = set(files["folder"] + "/" + files["label"])
    for folder in _class_folders(root):
        if folder not in filled:
            raise UsageError(f"data {root}: no usable image in {folder}; put its images there")
    lines = files["path"] + "\0" + files["sha256"] + "\n"
    return Manifest(root, files, left_out, hashlib.sha256("".join(lines).encode()).hexdigest())


def check_layout(root: Path) -> None:
    """Raise UsageError where `root` is not a folder in the Kaggle layout."""
    if not root.is_dir():
        raise UsageError(f"data {root}: there is no such folder; give one in the Kaggle layout")
    needed = [f"{split}/{label}" for split in ("train", "test") for label in LABELS]
    for folder in [*needed, *_class_folders(root)]:
        if not (root / folder).is_dir():
            raise UsageError(f"data {root}: {folder} is missing; the layout is {LAYOUT}")


def find_root(folder: Path) -> Path:
    """Return the folder in the Kaggle layout at `folder` or at most two levels below it."""
    # The published zip holds the set twice, one copy nested in the other, and __MACOSX beside it.
    for place in ("train", "*/train", "*/*/train"):
        for train in sorted(folder.glob(place)):
            apart = "__MACOSX" in train.relative_to(folder).parts
            if not apart and train.is_dir() and train.with_name("test").is_dir():
                return train.parent
    raise ValueError("no train and test folders in it or two levels down")


def _class_folders(root: Path) -> list[str]:
    return [f"{split}/{label}" for split in SPLITS if (root / split).is_dir() for label in LABELS]


def _walk(root: Path) -> Iterator[str]:
    """Everything directly in a class folder, relative to the root, in the order of names."""
    for folder in _class_folders(root):
        try:
            names = sorted(entry.name for entry in os.scandir(root / folder))
        except OSError as error:
            said = f"data {root / folder}: cannot be read ({error.strerror})"
            raise UsageError(f"{said}; give yourself access to it") from None
        yield from (f"{folder}/{name}" for name in names)


def _inspect(root: Path, squares: Sequence[Square], relative: str) -> tuple[list, list]:
    """One row of the table: what the file is, or why it is unusable; and its squares."""
    name = relative.encode(errors="surrogateescape").decode(errors="replace")
    folder, label, file = name.split("/")
    path = root / relative
    patient, subtype = parse_name(Path(file).stem, label)
    row: list[Any] = [name, folder, label, subtype, patient]
    unusable = [0, 0, "", 0, ""]
    if problem := _no_image(path) or ("its name is not UTF-8" if name != relative else ""):
        return [*row, *unusable, problem], []
    try:
        content = path.read_bytes()
    except PermissionError:
        return [*row, *unusable, "cannot be read (permission denied)"], []
    except OSError as error:  # of the disk or the network, now: not a property of the data
        said = f"data {path}: cannot be read now ({error.strerror})"
        raise UsageError(f"{said}; check the disk and run again") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of what we judge by the outcome
            picture = decoding.read(content, squares or [Square(1)])
    except Exception as error:  # of many kinds, by Pillow's decoders: the file is unusable
        said = " ".join(re.sub(r"<_io.BytesIO[^>]*>", "it", str(error)).split())
        return [*row, *unusable, f"not a readable image ({said or type(error).__name__})"], []
    row += [*picture[:3], len(content), hashlib.sha256(content).hexdigest(), ""]
    return row, picture.squares


def _no_image(path: Path) -> str:
    if path.name.startswith("."):
        return NO_IMAGE[0]
    if path.is_dir():
        return NO_IMAGE[1]
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return NO_IMAGE[2]
    if not path.is_file():
        return "not a file that can be read (a broken link, or a device)"
    return "too large to be an X-ray" if path.stat().st_size > MOST_BYTES else ""
