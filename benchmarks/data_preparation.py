"""How fast X-rays are prepared, beside plain libjpeg decoding and Keras' own loader.

    python benchmarks/data_preparation.py ../path/to/chest_xray
    python benchmarks/data_preparation.py phantom --set data.phantom_size=1024

Each way runs `--repeats` times in turn and its median counts, since a shared machine's speed
drifts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import keras
from joblib.externals import loky
from PIL import Image

from cxr_utils import profiles
from cxr_utils.data import dataset, decoding, sources
from cxr_utils.data.decoding import Square
from cxr_utils.data.manifest import read_manifest

CHUNK = 32
OURS = "this project, cold: listed, hashed, decoded, cached"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--size", type=int, default=96, help="side of the squares (px)")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    source = str(Path(asked.source).resolve()) if os.path.lexists(asked.source) else asked.source
    root = sources.fetch(profiles.load("default", asked.set, source).data, progress=True).root
    files = [root / name for name in read_manifest(root).files["path"]]
    square = Square(asked.size)
    ways: dict[str, Callable[[], None]] = {
        "plain libjpeg decoding, one thread per core (the limit)": lambda: decode_plainly(files),
        OURS: lambda: prepare_cold(root, square),
        "the same with joblib's workers (loky), started anew": lambda: prepare_with_joblib(
            root, square
        ),
        "keras.utils.image_dataset_from_directory": lambda: load_with_keras(root, asked.size),
    }
    seconds = measure(ways, asked.repeats)
    prepare_cold(root, square, keep=True)
    started = time.perf_counter()
    dataset.load_pixels(read_manifest(root, [square]), square)
    seconds["this project, second start"] = time.perf_counter() - started
    report(seconds, len(files))


def measure(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way, after one warm-up of the disk's cache."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def decode_plainly(files: list[Path]) -> None:
    """Decode every file at full size with libjpeg-turbo, and throw the pixels away."""

    def decode(part: list[Path]) -> None:
        for file in part:
            with Image.open(file) as image:
                image.load()

    parts = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, parts))


def prepare_cold(root: Path, square: Square, keep: bool = False) -> None:
    """Prepare from nothing, in an empty cache."""
    before = os.environ.get("CXR_CACHE")
    os.environ["CXR_CACHE"] = tempfile.mkdtemp()
    read_manifest(root, [square])
    if keep:
        return
    shutil.rmtree(os.environ.pop("CXR_CACHE"))
    if before is not None:
        os.environ["CXR_CACHE"] = before


def prepare_with_joblib(root: Path, square: Square) -> None:
    """Prepare from nothing on joblib's workers, which a run would have to start as well."""
    own = decoding.in_parallel

    def in_parallel(function, items, title, progress=False):
        workers = joblib.Parallel(os.cpu_count(), batch_size=CHUNK, return_as="generator")
        return workers(joblib.delayed(function)(item) for item in items)

    decoding.in_parallel = in_parallel
    try:
        prepare_cold(root, square)
    finally:
        decoding.in_parallel = own
        loky.get_reusable_executor().shutdown(wait=True)


def load_with_keras(root: Path, size: int) -> None:
    """Read every image once, as the Keras guides do."""
    for split in ("train", "val", "test"):
        if (root / split).is_dir():
            loader = keras.utils.image_dataset_from_directory
            for _ in loader(
                root / split,
                image_size=(size, size),
                color_mode="grayscale",
                batch_size=32,
                verbose=False,
            ):
                pass


def report(seconds: dict[str, float], count: int) -> None:
    """Print seconds and ratios."""
    print(f"{count} files, {os.cpu_count()} cores")
    for name, value in seconds.items():
        share = f"{value / seconds[OURS]:5.2f} of this project's time"
        print(f"  {name:<58} {value:7.2f} s  {count / value:8.0f} files/s  {share}")


if __name__ == "__main__":
    main()
