"""From files to pixels: grey, square, uint8, decoded once and read from a memory-mapped cache."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from . import paths, sources
from .manifest import FOLDS, Manifest, carve_validation, read_manifest
from .params import Params
from .sources import Source


@dataclass(frozen=True)
class Fold:
    """The images of one fold.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, size, size)
        Grey images, white is dense.
    labels : ndarray of int64, shape (n,)
        1 for PNEUMONIA, 0 for NORMAL.
    files : DataFrame
        Rows of the manifest, in the order of `pixels`.
    """

    pixels: np.ndarray
    labels: np.ndarray
    files: pd.DataFrame

    def __len__(self) -> int:
        return len(self.labels)


def decode(path: Path, size: int) -> np.ndarray:
    """Decode an image file to a grey square.

    The whole image is squashed to a square, as its distributor does; a JPEG far larger than `size` is
    scaled down by its own decoder first (DCT scaling).

    Parameters
    ----------
    path : Path
        A JPEG or PNG file of any size and colour mode.
    size : int
        Side of the square, in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size)
    """
    with Image.open(path) as image:
        image.draft("L", (2 * size, 2 * size))
        return np.asarray(to_grey(image).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))


def to_grey(image: Image.Image) -> Image.Image:
    """Return `image` as 8-bit grey; 16-bit greys keep their upper byte, transparent pixels turn black."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        return Image.fromarray(np.clip(values / 256 if values.max(initial=0) > 255 else values, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers)
    return image.convert("L")


def load_pixels(manifest: Manifest, size: int) -> np.ndarray:
    """Return all images of a manifest at one size, decoding them only the first time.

    Parameters
    ----------
    manifest : Manifest
        The files.
    size : int
        Side of the square, in pixels.

    Returns
    -------
    memmap of uint8, shape (n, size, size)
        In the order of ``manifest.files``; pages are read from disk as they are used.
    """
    key = hashlib.sha256(manifest.digest.encode() + Path(__file__).read_bytes()).hexdigest()
    cached = paths.cache_folder() / "pixels" / f"{key[:32]}-{size}.npy"
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_name(f".{cached.name}.{os.getpid()}.part")
        _decode_all(manifest, size, part)
        part.replace(cached)
    return np.load(cached, mmap_mode="r")


def _decode_all(manifest: Manifest, size: int, target: Path) -> None:
    names = [manifest.root / name for name in manifest.files["path"]]
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, (len(names), size, size))

    def put(index: int) -> None:
        pixels[index] = decode(names[index], size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(put, range(len(names))):
            pass
    pixels.flush()


@dataclass(frozen=True)
class XRays:
    """A data set as a notebook uses it.

    Parameters
    ----------
    source : Source
        Where it comes from, and whether it is synthetic.
    manifest : Manifest
        Its files.
    files : DataFrame
        ``manifest.files`` with the column ``fold``.
    folds : dict of Fold
        ``train``, ``validation``, ``val`` and ``test``, those there are.
    """

    source: Source
    manifest: Manifest
    files: pd.DataFrame
    folds: dict[str, Fold]


def open_data(params: Params, size: int) -> XRays:
    """Return the data set that `params` names: fetched, listed, split by patient and decoded.

    Parameters
    ----------
    params : Params
        All parameters of the run.
    size : int
        Side of the square images, in pixels.

    Raises
    ------
    UsageError
        The data cannot be had or cannot be used.
    """
    source = sources.fetch(params.data)
    manifest = read_manifest(source.root)
    files = carve_validation(manifest.files, params.data.validation_fraction, params.seed)
    pixels = load_pixels(manifest, size)
    folds = {}
    for fold in FOLDS:
        rows = np.flatnonzero(files["fold"] == fold)
        if len(rows):
            part = files.iloc[rows].reset_index(drop=True)
            folds[fold] = Fold(pixels[rows], (part["label"] == "PNEUMONIA").to_numpy(np.int64), part)
    return XRays(source, manifest, files, folds)
