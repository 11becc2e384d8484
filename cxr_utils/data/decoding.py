"""From an image file to a grey square of uint8, on every core, and the cache of such squares."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageOps
from tqdm import tqdm

from .. import paths
from ..files import put_in_place, sha256_of

CHUNK = 32  # files that a worker takes at a time; handing one over costs as much as decoding it
MOST_PIXELS = 40_000_000  # five times the largest image of the real set
FITS: dict[str, Callable[..., Image.Image]] = {
    "squash": Image.Image.resize,  # the whole image, its aspect lost
    "crop": ImageOps.fit,  # the largest square in its centre
    "pad": partial(ImageOps.pad, color=0),  # the whole image, with black bars
}


class Square(NamedTuple):
    """What an image is made into."""

    size: int  # px a side
    fit: str = "squash"  # one of FITS


class Picture(NamedTuple):
    """What a file holds: its size as stored (px), Pillow's name of its mode, and its squares."""

    width: int
    height: int
    mode: str
    squares: list[np.ndarray]


def read(content: bytes, squares: Sequence[Square]) -> Picture:
    """Decode an image to grey squares; ValueError where it is too large, Pillow's where damaged."""
    made = []
    for size, fit in squares:
        with Image.open(io.BytesIO(content)) as image:
            (width, height), mode = image.size, image.mode
            if width * height > MOST_PIXELS:
                raise ValueError(f"too large: {width} x {height} px")
            made.append(fitted(upright(image, size), Square(size, fit)))
    return Picture(width, height, mode, made)


def fitted(image: Image.Image, square: Square) -> np.ndarray:
    """Return an 8-bit grey image as a square; bilinear, over all the pixels that it shrinks."""
    size = square.size, square.size
    return np.asarray(FITS[square.fit](image, size, Image.Resampling.BILINEAR))


def decode(content: bytes, square: Square) -> np.ndarray:
    """Decode a JPEG or PNG of any size and mode, the first picture of an animation, to uint8."""
    return read(content, [square]).squares[0]


def upright(image: Image.Image, size: int) -> Image.Image:
    """Return an opened image as 8-bit grey, turned as EXIF says, at no less than `size`."""
    # A larger JPEG is scaled down by its own decoder (DCT scaling, by 2, 4 or 8), a fifth faster.
    # Sharpness then depends a little on the file's size: of one film saved at 300 to 1,300 px, the
    # spread of its log at 96 px is 0.025, where it is 0.24 between films.
    image.draft("L", (size, size))
    ImageOps.exif_transpose(image, in_place=True)
    return grey(image)


def grey(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit grey: of deeper greys the 8 uppermost bits in use are kept.

    Transparent pixels turn black.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.clip(np.asarray(image), 0, 2**31 - 1).astype(np.int32)
        unused = max(int(values.max()).bit_length() - 8, 0)
        return Image.fromarray((values >> unused).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers)
    return image.convert("L")


def standardised(pictures: np.ndarray) -> np.ndarray:
    """Return images, (n, height, width), less their mean and over their spread; float32."""
    grey = np.asarray(pictures, np.float32)
    spread = np.maximum(grey.std((1, 2), keepdims=True), 1)
    return (grey - grey.mean((1, 2), keepdims=True)) / spread


def in_parallel(work: Callable, items: Sequence, title: str, progress: bool = False) -> Iterator:
    """Do `work` on each item, with a worker for each core, and yield the results in order."""
    # Forking is safe while no other thread may hold a lock. Pillow gives up Python's lock several
    # times a file: with files of 224 px two threads are hardly faster than one, and two processes
    # are. joblib starts its workers from nothing (benchmarks/data_preparation.py).
    if sys.platform == "linux" and threading.active_count() == 1:
        fork = multiprocessing.get_context("fork")
        pool: Executor = ProcessPoolExecutor(os.cpu_count(), fork, _start_worker)
    else:
        pool = ThreadPoolExecutor(os.cpu_count())
    # Processes that are forked meanwhile leave Ctrl-C and SIGTERM to the parent for good: one that
    # died while it sends a result would leave the parent waiting for the rest.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        try:
            results = pool.map(work, items, chunksize=CHUNK)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        hidden = None if progress else True  # None shows it on a terminal alone
        yield from tqdm(results, title, len(items), unit=" files", disable=hidden)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Make a worker end when its parent has gone, however it went."""

    def end_with_parent() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def storing(squares: Sequence[Square]) -> Iterator[list[BinaryIO]]:
    """Yield a file to write each kind of square to, in order, until `keep` says what they are of.

    The caller holds the pixels' lock.
    """
    _folder().mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as opened:
            parts = [_folder() / f"{square.fit}-{square.size}.part" for square in squares]
            yield [opened.enter_context(part.open("wb")) for part in parts]
    finally:  # what was not kept, and what killed processes have left
        for left in _folder().glob("*.part"):
            left.unlink()


def keep(files: Sequence[BinaryIO], squares: Sequence[Square], digest: str) -> None:
    """Make what was written the cache of the data with this digest."""
    for file, square in zip(files, squares, strict=True):
        file.close()
        put_in_place(Path(file.name), cached_at(digest, square))


def _folder() -> Path:
    return paths.cache_folder() / "pixels"


def cached_at(digest: str, square: Square) -> Path:
    """Return where squares of the data with this digest lie, or will lie."""
    decoder = f"{digest} {PIL.__version__} {sha256_of(Path(__file__))}"
    key = hashlib.sha256(decoder.encode()).hexdigest()[:32]
    return _folder() / f"{key}-{square.fit}-{square.size}.u8"
