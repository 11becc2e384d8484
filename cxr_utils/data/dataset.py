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
from ..parameters import Data, Params, UsageError
from ..paths import PACKAGE
from . import decoding, looks, sources
from .decoding import Square
from .manifest import SPLITS, Manifest, labels_of, read_manifest
from .splits import assign_splits, chosen_on, is_training, patients_known

LIBRARIES = ("scikit-learn", "numpy")  # by which films are told apart by their looks
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
    files: pd.DataFrame  # those of the manifest, as `split_files` returns them
    stored: np.ndarray  # memmap of uint8, shape (n, size, size): all images, in their order
    splits: dict[str, Split]  # train, validation, val and test, those there are
    asked: Data  # the parameters of section data that it was opened with

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
    square, overview = (Square(side, params.data.fit) for side in (size, OVERVIEW_SIZE))
    manifest = read_manifest(source.root, list({square, overview}), progress)
    stored = load_pixels(manifest, square, progress)
    files = split_files(manifest, params, progress)
    splits = {}
    for split in SPLITS:
        rows = np.flatnonzero(files["split"] == split)
        if len(rows):
            splits[split] = split_of(files, stored, rows)
    return Dataset(source, manifest, files, stored, splits, params.data)


def prepare(params: Params, progress: bool = False) -> tuple[sources.Source, Manifest]:
    """Fetch the data of a run and decode it, so that its notebooks only read; raises UsageError."""
    source = sources.fetch(params.data, progress)
    asked = squares(params)
    manifest = read_manifest(source.root, asked, progress)
    for square in asked:
        load_pixels(manifest, square, progress)
    return source, manifest


def squares(params: Params) -> list[Square]:
    """Return the squares that the notebooks of a run ask for."""
    sizes = {OVERVIEW_SIZE, *(part.image_size for part in params.sections.values())}
    return [Square(size, params.data.fit) for size in sorted(sizes)]


def split_files(manifest: Manifest, params: Params, progress: bool = False) -> pd.DataFrame:
    """Return a manifest's files with the columns of `splits.assign_splits` and ``own_class``.

    The latter, P(own class) of the films to train on by their looks, is by a classifier that has
    seen no film of validation, as it decides how often a film is shown. Raises UsageError.
    """
    files, fit = manifest.files, params.data.fit
    if not patients_known(files):
        return assign_splits(files, params.data, params.seed).assign(own_class=np.nan)
    known = _own_class(manifest, is_training(files), fit, progress)
    found = assign_splits(files, params.data, params.seed, known)
    train = (found["split"] == "train").to_numpy()
    return found.assign(own_class=_own_class(manifest, train, fit, progress))


def _own_class(manifest: Manifest, rows: np.ndarray, fit: str, progress: bool) -> np.ndarray:
    """What `looks.own_class` says of some rows, from the cache; NaN for the others."""
    square, found = Square(OVERVIEW_SIZE, fit), np.full(len(rows), np.nan)
    code = [sha256_of(PACKAGE / "data" / f"{name}.py") for name in ("looks", "manifest", "splits")]
    decides = [decoding.cached_at(manifest.digest, square).name, *map(version, LIBRARIES), *code]

    def compute() -> np.ndarray:
        return looks.own_class(manifest.files[rows], load_pixels(manifest, square, progress)[rows])

    found[rows] = cached_array("looks", [*decides, np.packbits(rows).tobytes().hex()], compute)
    return found


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


def read_films(data: Dataset, files: pd.DataFrame, size: int) -> np.ndarray:
    """Return a few films, rows of a data set's files, made square at another size; uint8."""
    square = Square(size, data.asked.fit)
    rows = files[["path", "sha256"]].itertuples(index=False, name=None)
    return np.array([_decode_file(data.manifest.root, square, row) for row in rows], np.uint8)


def _decode_file(root: Path, square: Square, row: tuple[str, str]) -> np.ndarray:
    name, sha256 = row
    content = (root / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UsageError(f"data {root / name}: changed while the data was read; run again")
    return decoding.decode(content, square)
