"""Where X-rays come from: a folder, the Kaggle data set, or the phantom."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from . import paths, phantom
from .manifest import LABELS, check_layout
from .params import Data, UsageError, nearest
from .published import COUNTS

KAGGLE_HANDLE = "paultimothymooney/chest-xray-pneumonia"
KAGGLE_VERSION = 2
KAGGLE_BYTES = 5_500_000_000  # the 2.3 GB zip and the 2.4 GB it unpacks to, and some air
REAL_RUN = "python run_all.py --data kaggle --run real"
REAL_RUN_COST = "a download of 2.3 GB, then about 40 minutes on 2 cores"
NAMES = ("auto", "kaggle", "phantom")


@dataclass(frozen=True)
class Source:
    """A data set on disk.

    Parameters
    ----------
    kind : str
        ``folder``, ``kaggle`` or ``phantom``.
    root : Path
        Folder in the Kaggle layout; it may not exist yet where the source is only planned.
    """

    kind: str
    root: Path

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
    if "/" not in name and os.sep not in name and not paths.from_root(name).exists():
        raise UsageError(f"data.source {name!r}: neither a folder nor one of {', '.join(NAMES)}{nearest(name, NAMES)}")
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
        _download_kaggle(source.root)
    return source


def _folder(root: Path) -> Source:
    check_layout(root)
    return Source("phantom" if phantom.is_drawn(root) else "folder", root)


def kaggle_root() -> Path:
    """Return where the Kaggle set lies once it was downloaded and verified."""
    return paths.cache_folder() / "kaggle" / f"version{KAGGLE_VERSION}"


def _verified(root: Path) -> bool:
    return (root / "verified").is_file()


def _download_kaggle(target: Path) -> None:
    try:
        import kagglehub
    except ImportError:
        raise UsageError("data kaggle: kagglehub is not installed; run: pip install 'cxr-utils[kaggle]'") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if _verified(target):
            return
        free = shutil.disk_usage(target.parent).free
        if free < KAGGLE_BYTES:
            raise UsageError(
                f"data kaggle: needs {KAGGLE_BYTES / 1e9:.1f} GB in {target.parent}, {free / 1e9:.1f} GB are free; "
                "make room or set CXR_CACHE to another disk"
            )
        os.environ["KAGGLEHUB_CACHE"] = str(target.parent / "kagglehub")
        try:
            downloaded = Path(kagglehub.dataset_download(f"{KAGGLE_HANDLE}/versions/{KAGGLE_VERSION}"))
        except Exception as error:  # kagglehub and requests raise many kinds; each means: no data
            raise UsageError(
                f"data kaggle: the download failed ({' '.join(str(error).split())[:300]}); check the network and run again"
            ) from None
        _take_over(find_root(downloaded), target)


def find_root(folder: Path) -> Path:
    """Return the folder in the Kaggle layout at `folder` or at most two levels below it.

    The published zip holds the set twice, one copy nested in the other, and ``__MACOSX`` beside it.
    """
    level = [folder]
    for _ in range(3):
        for candidate in level:
            if (candidate / "train").is_dir() and (candidate / "test").is_dir():
                return candidate
        level = sorted(child for parent in level for child in parent.iterdir() if child.is_dir() and child.name != "__MACOSX")
    raise UsageError(f"data {folder}: no train and test folders in it or two levels down; fetch it again")


def _take_over(root: Path, target: Path) -> None:
    """Move the three splits of a download to `target` once their counts are the published ones."""
    for split, labels in COUNTS.items():
        for label in LABELS:
            found = len(list((root / split / label).glob("*.jpeg")))
            if found != labels[label]:
                raise UsageError(
                    f"data kaggle: {split}/{label} holds {found} images instead of {labels[label]}; delete {target.parent} and run again"
                )
    target.mkdir(exist_ok=True)
    for split in COUNTS:
        shutil.rmtree(target / split, ignore_errors=True)
        shutil.move(root / split, target / split)
    (target / "verified").touch()
