"""Where X-rays come from: one class for each source, in one registry that everything else asks."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self
from unittest import mock

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import files, paths, profiles
from ..parameters import Data, UsageError
from . import phantom
from .manifest import IMAGE_SUFFIXES, LABELS, SPLITS, check_layout, find_root

CITATION = (
    "Kermany, Zhang, Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images "
    "for Classification. Mendeley Data, doi:10.17632/rscbjbr9sj. Cell 172(5), 2018. CC BY 4.0."
)
# Images of Kaggle's paultimothymooney/chest-xray-pneumonia, by published folder.
COUNTS = {
    "train": {"NORMAL": 1341, "PNEUMONIA": 3875},
    "val": {"NORMAL": 8, "PNEUMONIA": 8},
    "test": {"NORMAL": 234, "PNEUMONIA": 390},
}
REAL_RUN = "python run_all.py --data kaggle --run real"
REAL_RUN_COST = "a download of 2.3 GB, then about 25 minutes on 2 cores"
SOURCES: dict[str, type["Source"]] = {}  # by kind; a subclass enters itself


@dataclass(frozen=True)
class Source:
    """A data set on disk; a subclass is a kind of source, and its fields are facts about it."""

    root: Path  # in the Kaggle layout; it may not exist yet where the source is only planned
    kind: ClassVar[str]  # as in data.source and in metrics.json
    address: ClassVar[str]  # where it is fetched from
    version: ClassVar[str]  # the one that is pinned
    checks: ClassVar[str]  # what is verified
    licence: ClassVar[str]
    citation: ClassVar[str]
    counts: ClassVar[dict[str, dict[str, int]]] = {}  # folder -> class -> images, where fixed
    standing: ClassVar[str] = ""  # to the published set, where counts are not to decide it
    synthetic: ClassVar[bool] = False  # whether its X-rays are drawings

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            SOURCES[cls.kind] = cls

    @classmethod
    def locate(cls, data: Data) -> "Source":
        """Return where what `data` describes lies, or will lie, without drawing or download."""
        return cls(paths.cache_folder() / cls.kind / f"version{cls.version}")

    @property
    def ready(self) -> bool:
        """Whether it has been downloaded: it is in the cache, whole and verified."""
        return (self.root / "verified").is_file()

    def fetch(self, data: Data, progress: bool = False) -> None:
        """Draw or download it where it is not on disk yet."""


class Folder(Source):
    """A user's own folder."""

    kind = "folder"
    address = "your own, in the Kaggle layout"
    version = "by its digest"
    checks = "every file is decoded"
    licence = citation = "its owner's"

    @classmethod
    def locate(cls, data: Data) -> Source:
        """Return the folder that is named, by $CXR_DATA for auto; the phantom where it is drawn."""
        name = os.environ["CXR_DATA"] if data.source == "auto" else data.source
        root = paths.from_root(name)
        if not root.is_dir():
            said = f"data {name}: there is no such folder, nor a source of that name"
            remedy = f"give a folder in the Kaggle layout or one of {', '.join(NAMES)}"
            raise UsageError(f"{said}; {remedy}{profiles.nearest(name, NAMES)}")
        check_layout(root)
        return Phantom(root) if phantom.is_drawn(root) else cls(root)


class Download(Source):
    """A source that is downloaded once, checked, and kept; a subclass says how to obtain it."""

    def obtain(self, data: Data, folder: Path, progress: bool) -> Path:
        """Download into `folder`, where an earlier try may have left its part; return the images'.

        After an OSError what came is kept for the next try; after another error it is removed.
        """
        raise NotImplementedError

    def fetch(self, data: Data, progress: bool = False) -> None:
        """Download it where it is not in the cache, and say in one line what stands against it."""
        folder = self.root.parent / "download"
        with files.exclusive("downloads"):
            if self.ready:
                return
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._take_over(find_root(self.obtain(data, folder, progress)))
            except UsageError:
                raise
            except OSError as error:  # as requests' errors are
                said = f"data {self.kind}: the download was interrupted ({files.one_line(error)})"
                remedy = "check the network and the disk and run again, it goes on from there"
                raise UsageError(f"{said}; {remedy}") from None
            except Exception as error:  # of many kinds, by libraries that unpack
                shutil.rmtree(folder, ignore_errors=True)
                said = f"what came cannot be used and was removed ({files.one_line(error)})"
                raise UsageError(f"data {self.kind}: {said}; run again") from None
            shutil.rmtree(folder, ignore_errors=True)

    def _take_over(self, came: Path) -> None:
        """Move the folders of a download to the cache once their counts are right."""
        for split, labels in self.counts.items():
            for label, expected in labels.items():
                images = (came / split / label).glob("[!.]*")
                found = sum(file.suffix in IMAGE_SUFFIXES for file in images)
                if found != expected:
                    raise ValueError(f"{split}/{label} holds {found} images instead of {expected}")
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        for folder in filter(Path.is_dir, map(came.joinpath, SPLITS)):
            shutil.move(folder, self.root)
        (self.root / "verified").touch()


class Kaggle(Download):
    """The published set, from Kaggle."""

    kind = "kaggle"
    address = "paultimothymooney/chest-xray-pneumonia"
    version = "2"
    checks = "the server's MD5 and the counts"
    licence = "CC BY 4.0"
    citation = CITATION
    counts = COUNTS
    site = "https://www.kaggle.com"
    megabytes = 5500  # the 2.3 GB zip and the 2.4 GB it unpacks to, and some air

    def obtain(self, data: Data, folder: Path, progress: bool) -> Path:
        """Download by kagglehub, which goes on where it broke off, and needs no account."""
        try:
            import kagglehub
            import requests
        except ImportError:
            remedy = "run: pip install 'cxr-utils[kaggle]'"
            raise UsageError(f"data kaggle: kagglehub is not installed; {remedy}") from None
        files.check_room(folder, self.megabytes)
        os.environ["KAGGLEHUB_CACHE"] = str(folder)
        send = requests.adapters.HTTPAdapter.send

        def limited(self, request, **options):
            options["timeout"] = options.get("timeout") or files.TIMEOUT
            return send(self, request, **options)

        # kagglehub 1.0 sets no limit and would wait for ever.
        with mock.patch.object(requests.adapters.HTTPAdapter, "send", limited):
            requests.head(self.site)  # says at once where there is no network
            return Path(kagglehub.dataset_download(f"{self.address}/versions/{self.version}"))


class MedMnist(Download):
    """PneumoniaMNIST, unpacked into PNG files."""

    kind = standing = "medmnist"
    address = "https://zenodo.org/records/10519652/files/"
    version = "10519652"
    checks = "an MD5 for each size, and the counts"
    licence = Kaggle.licence
    paper = "Yang et al.: MedMNIST v2. Scientific Data 10:41, 2023, doi:10.1038/s41597-022-01721-8"
    citation = f"{paper}; {CITATION}"
    counts: ClassVar = {
        "train": {"NORMAL": 1214, "PNEUMONIA": 3494},
        "validation": {"NORMAL": 135, "PNEUMONIA": 389},
        "test": {"NORMAL": 234, "PNEUMONIA": 390},
    }
    theirs: ClassVar = {"train": "train", "validation": "val", "test": "test"}  # a true validation
    # MD5 sums by image size, as the package medmnist 3.0.2 lists them.
    md5: ClassVar = {
        28: "28209eda62fecd6e6a2d98b1501bb15f",
        64: "8f4eceb4ccffa70c672198ea285246c6",
        128: "05b46931834c231683c68f40c47b2971",
        224: "d6a3c71de1b945ea11211b03746c1fe1",
    }

    @classmethod
    def locate(cls, data: Data) -> Self:
        """Return where the images of the size that is asked for lie."""
        return cls(paths.cache_folder() / cls.kind / f"{cls.version}-{data.medmnist_size}")

    def obtain(self, data: Data, folder: Path, progress: bool) -> Path:
        """Download the file of one size and write its pictures as files."""
        size, unpacked, hidden = data.medmnist_size, folder / "unpacked", None if progress else True
        name = "pneumoniamnist.npz" if size == 28 else f"pneumoniamnist_{size}.npz"
        images = sum(sum(labels.values()) for labels in self.counts.values())
        megabytes = 2 * images * size**2 // 10**6 + 50
        address = f"{self.address}{name}?download=1"
        file = files.fetch(address, self.md5[size], folder / name, megabytes, progress)
        shutil.rmtree(unpacked, ignore_errors=True)
        with np.load(file) as arrays:
            for split, theirs in self.theirs.items():
                for label in LABELS:
                    (unpacked / split / label).mkdir(parents=True)
                labels = arrays[f"{theirs}_labels"][:, 0]
                pictures = tqdm(arrays[f"{theirs}_images"], split, unit="image", disable=hidden)
                for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
                    target = unpacked / split / LABELS[label]
                    Image.fromarray(picture).save(target / f"medmnist-{split}-{number:04d}.png")
        return unpacked


class Phantom(Source):
    """Radiographs that the package draws."""

    kind = "phantom"
    standing = "synthetic"
    synthetic = True
    address = "drawn by this project: SYNTHETIC"
    version = "by its seed"
    checks = "drawn anew for each version"
    licence = "MIT"
    citation = "this project"

    @classmethod
    def locate(cls, data: Data) -> Self:
        """Return where these drawings lie, or will lie; other code draws elsewhere."""
        asked = f"images{data.phantom_images}-size{data.phantom_size}-seed{data.phantom_seed}"
        code = files.sha256_of(Path(phantom.__file__))[:8]
        return cls(paths.cache_folder() / cls.kind / f"{asked}-{code}")

    def fetch(self, data: Data, progress: bool = False) -> None:
        """Draw it, unless that is done or these are someone's copies."""
        with files.exclusive("phantom"):
            if not self.root.is_dir():
                part, images = self.root.with_name(".part"), data.phantom_images
                shutil.rmtree(part, ignore_errors=True)
                phantom.draw_set(part, images, data.phantom_size, data.phantom_seed, progress)
                part.rename(self.root)


NAMES = ("auto", *(kind for kind in SOURCES if kind != Folder.kind))


def plan(data: Data) -> Source:
    """Return what `data.source` stands for, without network, drawing or download.

    A source that is named never falls back to another; what is none raises UsageError.
    """
    if data.source != "auto":
        return SOURCES.get(data.source, Folder).locate(data)
    if os.environ.get("CXR_DATA"):
        return Folder.locate(data)
    kaggle = Kaggle.locate(data)
    return kaggle if kaggle.ready else Phantom.locate(data)


def fetch(data: Data, progress: bool = False) -> Source:
    """Return what `data` names, drawn or downloaded where it is not on disk; raises UsageError."""
    source = plan(data)
    source.fetch(data, progress)
    return source


def name_of(source: Source, data: Data) -> str:
    """Return what a notebook is given as ``source``: the kind that stands for it, or its folder."""
    known = source.kind in NAMES and source.locate(data) == source
    return source.kind if known else str(source.root.resolve())
