"""A data set as the notebooks use it: splits of pixels, labels and files."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import cached_array, exclusive, sha256_of
from ..parameters import Params, UsageError
from . import decoding, looks, sources
from .decoding import Square
from .manifest import SPLITS, Manifest, labels_of, read_manifest
from .splits import assign_splits, chosen_on, patients_known

OVERVIEW_SIZE = 128  # side of the squares that are shown and audited, in pixels


@dataclass(frozen=True)
class Pixels:
    """A split's images: uint8, (n, size, size), white is dense; read where they are indexed."""

    stored: np.ndarray  # memmap of all images of the data set
    rows: np.ndarray  # which of them are the split's

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        return np.asarray(self.stored[self.rows[index]])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of images, height and width."""
        return (len(self.rows), *self.stored.shape[1:])


@dataclass(frozen=True)
class Split:
    """The images of one split, in one order."""

    pixels: Pixels
    labels: np.ndarray  # int64: 1 for PNEUMONIA, 0 for NORMAL
    files: pd.DataFrame  # rows of the manifest

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set as a notebook uses it."""

    source: sources.Source  # where it comes from, and whether it is synthetic
    manifest: Manifest
    files: pd.DataFrame  # those of the manifest, with the column ``split``
    stored: np.ndarray  # memmap of uint8, shape (n, size, size): all images, in their order
    splits: dict[str, Split]  # train, validation, val and test, those there are
    fit: str = "squash"  # how images are made square

    @property
    def unit(self) -> str:
        """What an interval resamples: ``patient``, or ``image`` where patients are not known."""
        return "patient" if patients_known(self.files) else "image"

    @property
    def chosen_on(self) -> str:
        """The split on which all choices are made."""
        return chosen_on(self.splits)


def open_data(params: Params, size: int, progress: bool = False) -> Dataset:
    """Fetch, list, split by patient and decode a data set, to `size` px; raises UsageError."""
    source = sources.fetch(params.data, progress)
    square = Square(size, params.data.fit)
    manifest = read_manifest(source.root, [square], progress)
    stored = load_pixels(manifest, square, progress)
    files = split_files(manifest, params, progress)
    splits = {}
    for split in SPLITS:
        rows = np.flatnonzero(files["split"] == split)
        if len(rows):
            splits[split] = split_of(files, stored, rows)
    return Dataset(source, manifest, files, stored, splits, params.data.fit)


def split_files(manifest: Manifest, params: Params, progress: bool = False) -> pd.DataFrame:
    """Return a manifest's files with the column ``split``, and ``own_class`` by their looks.

    See `splits.assign_splits` and `looks.own_class`, whose answer is cached. Raises UsageError.
    """
    files, square, own = manifest.files, Square(OVERVIEW_SIZE, params.data.fit), None
    if patients_known(files):
        code = sha256_of(Path(looks.__file__)), version("scikit-learn"), version("numpy")
        decides = [decoding.cached_at(manifest.digest, square).name, *code]
        own = cached_array(
            "looks",
            decides,
            lambda: looks.own_class(files, load_pixels(manifest, square, progress)),
        )
    found = assign_splits(files, params.data, params.seed, own)
    return found.assign(own_class=np.nan if own is None else own)


def split_of(files: pd.DataFrame, stored: np.ndarray, rows: np.ndarray) -> Split:
    """Return some rows of a data set as a split; a row may be there several times."""
    part = files.iloc[rows].reset_index(drop=True)
    return Split(Pixels(stored, rows), labels_of(part), part)


def load_pixels(manifest: Manifest, square: Square, progress: bool = False) -> np.ndarray:
    """Return a manifest's squares, decoded the first time: a memmap of uint8, (n, size, size)."""
    cached = decoding.cached_at(manifest.digest, square)
    shape = (len(manifest.files), square.size, square.size)
    with exclusive("pixels"):
        if not cached.is_file() or cached.stat().st_size != math.prod(shape):
            rows = list(manifest.files[["path", "sha256"]].itertuples(index=False, name=None))
            decode = partial(_decode_file, manifest.root, square)
            with decoding.storing([square]) as files:
                for picture in decoding.in_parallel(decode, rows, "decoding", progress):
                    files[0].write(picture)
                decoding.keep(files, [square], manifest.digest)
    return np.memmap(cached, np.uint8, "r", shape=shape)


def _decode_file(root: Path, square: Square, row: tuple[str, str]) -> np.ndarray:
    name, sha256 = row
    content = (root / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UsageError(f"data {root / name}: changed while the data was read; run again")
    return decoding.decode(content, square)
