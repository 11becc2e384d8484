"""Where X-rays come from: a folder, the Kaggle data set, PneumoniaMNIST, or the phantom."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import files, paths, profiles
from ..files import exclusive
from ..parameters import Data, UsageError
from . import phantom
from .manifest import IMAGE_SUFFIXES, LABELS, check_layout

CITATION = (
    "Kermany, Zhang, Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for "
    "Classification. Mendeley Data, doi:10.17632/rscbjbr9sj. Cell 172(5), 2018. CC BY 4.0."
)

# Images of Kaggle's paultimothymooney/chest-xray-pneumonia, by published folder.
COUNTS = {
    "train": {"NORMAL": 1341, "PNEUMONIA": 3875},
    "val": {"NORMAL": 8, "PNEUMONIA": 8},
    "test": {"NORMAL": 234, "PNEUMONIA": 390},
}

REAL_RUN = "python run_all.py --data kaggle --run real"
REAL_RUN_COST = "a download of 2.3 GB, then about half an hour on 2 cores"
KAGGLE_SITE = "https://www.kaggle.com"
KAGGLE_MEGABYTES = 5500  # the 2.3 GB zip and the 2.4 GB it unpacks to, and some air
# MD5 sums by image size, as the package medmnist 3.0.2 lists them.
MEDMNIST_MD5 = {
    28: "28209eda62fecd6e6a2d98b1501bb15f",
    64: "8f4eceb4ccffa70c672198ea285246c6",
    128: "05b46931834c231683c68f40c47b2971",
    224: "d6a3c71de1b945ea11211b03746c1fe1",
}
MEDMNIST_SPLITS = {
    "train": "train",
    "val": "validation",
    "test": "test",
}  # its val has 524 images and is a true validation split


@dataclass(frozen=True)
class Origin:
    """A row of the table of sources.

    Parameters
    ----------
    address : str
        Where it is fetched from: a handle or a URL.
    version : str
        The one that is pinned.
    checks : str
        What is verified after the download.
    counts : dict or None
        Split -> class -> images; None where it is not fixed.
    licence : str
        Under which the images may be used.
    citation : str
        What to cite.
    """

    address: str
    version: str
    checks: str
    counts: dict[str, dict[str, int]] | None
    licence: str
    citation: str


ORIGINS = {
    "kaggle": Origin(
        "paultimothymooney/chest-xray-pneumonia",
        "2",
        "the server's MD5 and the counts",
        COUNTS,
        "CC BY 4.0",
        CITATION,
    ),
    "medmnist": Origin(
        "https://zenodo.org/records/10519652/files/",
        "10519652",
        "an MD5 for each size, and the counts",
        {
            "train": {"NORMAL": 1214, "PNEUMONIA": 3494},
            "validation": {"NORMAL": 135, "PNEUMONIA": 389},
            "test": {"NORMAL": 234, "PNEUMONIA": 390},
        },
        "CC BY 4.0",
        "Yang et al.: MedMNIST v2. Scientific Data 10:41, 2023, doi:10.1038/s41597-022-01721-8; "
        + CITATION,
    ),
    "folder": Origin(
        "your own, in the Kaggle layout",
        "by its digest",
        "every file is decoded",
        None,
        "its owner's",
        "its owner's",
    ),
    "phantom": Origin(
        "drawn by this project: SYNTHETIC",
        "by its seed",
        "drawn anew for each version",
        None,
        "MIT",
        "this project",
    ),
}
NAMES = ("auto", "kaggle", "medmnist", "phantom")


@dataclass(frozen=True)
class Source:
    """A data set on disk.

    Parameters
    ----------
    kind : str
        ``folder``, ``kaggle``, ``medmnist`` or ``phantom``.
    root : Path
        Folder in the Kaggle layout; it may not exist yet where the source is only planned.
    """

    kind: str
    root: Path

    @property
    def origin(self) -> Origin:
        """Its row in the table of sources."""
        return ORIGINS[self.kind]

    @property
    def synthetic(self) -> bool:
        """Whether the X-rays are drawings of the phantom."""
        return self.kind == "phantom"


def plan(data: Data) -> Source:
    """Return what `data.source` stands for, without network, drawing or download.

    ``auto`` takes the first of ``$CXR_DATA``, a verified Kaggle copy in the cache, and the phantom. A
    source that is named never falls back to another.

    Raises
    ------
    UsageError
        The source is neither a known name nor a folder in the Kaggle layout.
    """
    name = data.source
    if name == "auto":
        chosen = os.environ.get("CXR_DATA")
        if chosen:
            return _folder(paths.from_root(chosen))
        name = "kaggle" if _verified(kaggle_root()) else "phantom"
    if name == "phantom":
        return Source("phantom", phantom.cached_at(data))
    if name == "kaggle":
        return Source("kaggle", kaggle_root())
    if name == "medmnist":
        return Source(
            "medmnist",
            paths.cache_folder() / "medmnist" / f"{ORIGINS[name].version}-{data.medmnist_size}",
        )
    if "/" not in name and os.sep not in name and not paths.from_root(name).exists():
        raise UsageError(
            f"data.source {name!r}: neither a folder nor one of {', '.join(NAMES)}{profiles.nearest(name, NAMES)}"
        )
    return _folder(paths.from_root(name))


def fetch(data: Data, progress: bool = False) -> Source:
    """Return the data set that `data` names, drawing or downloading it where it is not on disk yet.

    Raises
    ------
    UsageError
        The source is unknown, its folder has not the Kaggle layout, or the download failed.
    """
    source = plan(data)
    if source.kind == "phantom":
        phantom.fetch(data, progress)
    if source.kind == "kaggle" and not _verified(source.root):
        _fetch_kaggle(source.root)
    if source.kind == "medmnist" and not _verified(source.root):
        _fetch_medmnist(source.root, data.medmnist_size, progress)
    return source


def name_of(source: Source, data: Data) -> str:
    """Return what a notebook is to be given as its ``source``: a kind that stands for this very folder, or the folder."""
    known = (
        source.kind != "folder"
        and plan(data.model_copy(update={"source": source.kind})).root == source.root
    )
    return source.kind if known else str(source.root.resolve())


def _folder(root: Path) -> Source:
    check_layout(root)
    return Source("phantom" if phantom.is_drawn(root) else "folder", root)


def kaggle_root() -> Path:
    """Return where the Kaggle set lies once it was downloaded and verified."""
    return paths.cache_folder() / "kaggle" / f"version{ORIGINS['kaggle'].version}"


def _verified(root: Path) -> bool:
    return (root / "verified").is_file()


def _fetch_kaggle(target: Path) -> None:
    """Download and unpack the Kaggle set; a download that broke off goes on, a spoilt one is removed."""
    try:
        import kagglehub
        import requests
    except ImportError:
        raise UsageError(
            "data kaggle: kagglehub is not installed; run: pip install 'cxr-utils[kaggle]'"
        ) from None
    unpacked = target.parent / "kagglehub"
    with exclusive("downloads"):
        if _verified(target):
            return
        unpacked.mkdir(parents=True, exist_ok=True)
        files.check_room(target.parent, KAGGLE_MEGABYTES)
        os.environ["KAGGLEHUB_CACHE"] = str(unpacked)
        handle = f"{ORIGINS['kaggle'].address}/versions/{ORIGINS['kaggle'].version}"
        try:
            with _time_limits():
                requests.head(KAGGLE_SITE)
                downloaded = Path(kagglehub.dataset_download(handle))
            _take_over(find_root(downloaded), target)
        except OSError as error:  # requests' errors are OSErrors too
            raise UsageError(
                f"data kaggle: the download broke off ({files.one_line(error)}); check the network and the disk and run again, "
                "it goes on from there"
            ) from None
        except Exception as error:  # kagglehub and zipfile raise many kinds; whatever it is, what came is of no use
            shutil.rmtree(unpacked, ignore_errors=True)
            reason = str(error) if isinstance(error, UsageError) else files.one_line(error)
            raise UsageError(
                f"data kaggle: what came cannot be used and was removed ({reason}); run again"
            ) from None
        shutil.rmtree(unpacked, ignore_errors=True)


@contextlib.contextmanager
def _time_limits() -> Iterator[None]:
    """Give every request a time limit; kagglehub 1.0 sends its own without one and would wait for ever."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def limited(self, request, stream=False, timeout=None, **options):
        return send(self, request, stream=stream, timeout=timeout or files.TIMEOUT, **options)

    HTTPAdapter.send = limited  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]


def find_root(folder: Path) -> Path:
    """Return the folder in the Kaggle layout at `folder` or at most two levels below it.

    The published zip holds the set twice, one copy nested in the other, and ``__MACOSX`` beside it.
    """
    level = [folder]
    for _ in range(3):
        for candidate in level:
            if (candidate / "train").is_dir() and (candidate / "test").is_dir():
                return candidate
        level = sorted(
            child
            for parent in level
            for child in parent.iterdir()
            if child.is_dir() and child.name != "__MACOSX"
        )
    raise UsageError(
        f"data {folder}: no train and test folders in it or two levels down; fetch it again"
    )


def _take_over(root: Path, target: Path) -> None:
    """Move the splits of a download to `target` once their counts are the published ones."""
    _check_counts(root, "kaggle")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for split in COUNTS:
        shutil.move(root / split, target / split)
    (target / "verified").touch()


def _check_counts(root: Path, kind: str) -> None:
    for split, labels in (ORIGINS[kind].counts or {}).items():
        for label, expected in labels.items():
            found = sum(
                file.suffix in IMAGE_SUFFIXES for file in (root / split / label).glob("[!.]*")
            )
            if found != expected:
                raise UsageError(
                    f"data {kind}: {split}/{label} holds {found} images instead of {expected}; fetch it again"
                )


def _fetch_medmnist(target: Path, size: int, progress: bool) -> None:
    """Download PneumoniaMNIST and unpack its arrays into the Kaggle layout, as PNG files."""
    origin = ORIGINS["medmnist"]
    megabytes = (
        2
        * sum(sum(labels.values()) for labels in (origin.counts or {}).values())
        * size**2
        // 10**6
        + 50
    )
    name = "pneumoniamnist.npz" if size == 28 else f"pneumoniamnist_{size}.npz"
    with exclusive("downloads"):
        if _verified(target):
            return
        file = files.fetch(
            f"{origin.address}{name}?download=1",
            MEDMNIST_MD5[size],
            target.parent / name,
            megabytes,
            progress,
        )
        part = target.with_name(".unpacked")
        shutil.rmtree(part, ignore_errors=True)
        try:
            with np.load(file) as arrays:
                for theirs, split in MEDMNIST_SPLITS.items():
                    _unpack(
                        arrays[f"{theirs}_images"],
                        arrays[f"{theirs}_labels"],
                        part / split,
                        progress,
                    )
            _check_counts(part, "medmnist")
            (part / "verified").touch()
            part.replace(target)
        except OSError as error:
            raise UsageError(
                f"data medmnist: cannot be unpacked ({files.one_line(error)}); check the disk and run again"
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        file.unlink()


def _unpack(pictures: np.ndarray, answers: np.ndarray, folder: Path, progress: bool) -> None:
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    rows = zip(pictures, answers[:, 0], strict=True)
    for number, (picture, answer) in enumerate(
        tqdm(rows, folder.name, len(pictures), disable=None if progress else True, unit="image")
    ):
        Image.fromarray(picture).save(
            folder / LABELS[int(answer)] / f"medmnist-{folder.name}-{number:04d}.png"
        )
