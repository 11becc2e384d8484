"""Every download against a server on 127.0.0.1 that misbehaves."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from cxr_utils import files, paths
from cxr_utils.data import dataset, sources
from cxr_utils.data.manifest import read_manifest
from cxr_utils.data.sources import COUNTS
from cxr_utils.data.splits import breakdown
from cxr_utils.parameters import Data, UsageError
from cxr_utils.profiles import load

FEW = {
    "train": {"NORMAL": 6, "PNEUMONIA": 9},
    "validation": {"NORMAL": 2, "PNEUMONIA": 3},
    "test": {"NORMAL": 4, "PNEUMONIA": 5},
}
FAULTS = {
    "cut": "check the network",
    "stall": "check the network",
    "wrong": "its checksum differs",
    "html": "its checksum differs",
}


@pytest.fixture
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("CXR_DATA", raising=False)
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "TIMEOUT", (2, 1))
    return tmp_path / "cache"


def _left(cache):
    """Everything in the cache but locks and empty folders."""
    return [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


@pytest.fixture
def medmnist(clean, monkeypatch, server):
    """A small SYNTHETIC file in the form of PneumoniaMNIST."""
    rng, arrays = np.random.default_rng(0), {}
    for ours, theirs in sources.MedMnist.theirs.items():
        labels = np.repeat([0, 1], [FEW[ours]["NORMAL"], FEW[ours]["PNEUMONIA"]])[:, None].astype(
            np.uint8
        )
        arrays |= {
            f"{theirs}_labels": labels,
            f"{theirs}_images": rng.integers(0, 256, (len(labels), 28, 28)).astype(np.uint8),
        }
    content = io.BytesIO()
    np.savez(content, **arrays)
    server.files["pneumoniamnist.npz"] = content.getvalue()
    checksum = hashlib.md5(content.getvalue()).hexdigest()
    monkeypatch.setitem(sources.MedMnist.md5, 28, checksum)
    monkeypatch.setattr(sources.MedMnist, "address", server.address)
    monkeypatch.setattr(sources.MedMnist, "counts", FEW)
    server.arrays = arrays
    return server


WANTED = Data(source="medmnist", medmnist_size=28)


def test_medmnist_is_unpacked_with_its_own_validation(medmnist):
    source = sources.fetch(WANTED)
    manifest = read_manifest(source.root)
    assert source.kind == "medmnist" and manifest.counts() == FEW
    first = np.asarray(Image.open(source.root / "test" / "PNEUMONIA" / "medmnist-test-0004.png"))
    assert (first == medmnist.arrays["test_images"][4]).all()
    data = dataset.open_data(load("smoke", ["data.medmnist_size=28"], "medmnist"), 32)
    assert (
        data.unit == "image"
        and set(data.splits) == {"train", "validation", "test"}
        and len(data.splits["validation"]) == 5
    )
    assert (
        breakdown(data.files, "split")["images"] == breakdown(data.files, "split")["patients"]
    ).all()
    assert len(medmnist.asked) == 1  # once for all


def test_medmnist_with_other_counts_is_refused(medmnist, monkeypatch):
    monkeypatch.setattr(sources.MedMnist, "counts", FEW | {"test": {"NORMAL": 3}})
    with pytest.raises(UsageError, match="test/NORMAL holds 4 images instead of 3"):
        sources.fetch(WANTED)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_download_is_one_line_and_leaves_nothing(medmnist, clean, fault):
    medmnist.fault = fault
    with pytest.raises(UsageError, match=FAULTS[fault]) as error:
        sources.fetch(WANTED)
    assert "\n" not in str(error.value) and not _left(clean)
    medmnist.fault = ""
    assert sources.fetch(WANTED).root.is_dir()


def test_offline_says_so(clean, monkeypatch):
    monkeypatch.setattr(sources.MedMnist, "address", "http://127.0.0.1:9/")
    monkeypatch.setattr(sources.Kaggle, "site", "http://127.0.0.1:9")
    for name in ("medmnist", "kaggle"):
        with pytest.raises(UsageError, match="check the network"):
            sources.fetch(Data(source=name))
    assert not _left(clean)


@pytest.mark.parametrize("name", ["medmnist", "kaggle"])
def test_a_disk_too_small_is_known_before(clean, monkeypatch, name, server):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    with pytest.raises(UsageError, match="1 MB are free; make room"):
        sources.fetch(Data(source=name))
    assert not server.asked and not _left(clean)


SCRIPT = """
import resource, sys
from cxr_utils.data import sources
from cxr_utils.parameters import Data, UsageError
address, md5, limit = sys.argv[1:]
medmnist = sources.MedMnist
medmnist.md5[28], medmnist.address, medmnist.counts = md5, address, {counts!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(sources.fetch(Data(source="medmnist", medmnist_size=28)).root)
except UsageError as error:
    print("error:", error)
""".replace("{counts!r}", repr(FEW))


def _fetch_elsewhere(server, limit=10**9):
    command = [sys.executable, "-c", SCRIPT, server.address, sources.MedMnist.md5[28], str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())


def test_a_disk_that_fills_up_leaves_nothing(medmnist, clean):
    printed, _ = _fetch_elsewhere(medmnist, limit=5000).communicate()
    assert (
        printed.startswith("error: 127.0.0.1")
        and "File too large" in printed
        and printed.count("\n") == 1
    )
    assert not _left(clean)


def test_two_processes_at_once_fetch_once(medmnist):
    both = [_fetch_elsewhere(medmnist) for _ in range(2)]
    printed = {process.communicate()[0] for process in both}
    assert len(printed) == 1 and len(medmnist.asked) == 1


def test_a_download_killed_half_way_starts_again(medmnist, clean):
    medmnist.fault = "stall"
    process = _fetch_elsewhere(medmnist)
    while not medmnist.asked:
        pass
    process.kill()
    process.communicate()
    medmnist.fault = ""
    assert sources.fetch(WANTED).root.is_dir()
    assert not list(clean.rglob("*.part")) and not list(clean.rglob(".part/*"))


@pytest.fixture
def kaggle(clean, monkeypatch, server):
    """Kaggle's service on 127.0.0.1, reached by the real kagglehub; the images are empty files."""
    from kagglesdk import kaggle_env

    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.address.rstrip("/")
    )
    monkeypatch.setattr(sources.Kaggle, "site", server.address)
    monkeypatch.setattr(sources.Kaggle, "megabytes", 1)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(clean / "nobody"))
    server.files["archive.zip"] = _archive(COUNTS)
    return server


def _archive(counts, more=()):
    """What Kaggle's zip holds: the set, a second copy of it inside, and a Mac's leavings."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for split, labels in counts.items():
            for label, count in labels.items():
                for place in ("chest_xray/", "chest_xray/chest_xray/", "chest_xray/__MACOSX/"):
                    archive.writestr(f"{place}{split}/{label}/.DS_Store", b"")
                    archive.writestr(f"{place}{split}/{label}/._0.jpeg", b"")
                for number in range(count):
                    archive.writestr(f"chest_xray/{split}/{label}/{number}.jpeg", b"")
        archive.writestr(
            "chest_xray/more.bin", bytes(4_000_000)
        )  # several of the blocks that kagglehub writes at a time
        for name in more:
            archive.writestr(name, b"evil")
    return content.getvalue()


def test_kaggle_is_unpacked_verified_and_kept(kaggle, clean):
    source = sources.fetch(Data(source="kaggle"))
    assert len(list(source.root.glob("train/PNEUMONIA/[!.]*.jpeg"))) == COUNTS["train"]["PNEUMONIA"]
    assert {entry.name for entry in source.root.iterdir()} == {"train", "val", "test", "verified"}
    assert not (clean / "kaggle" / "download").exists()
    asked = len(kaggle.asked)
    sources.fetch(Data(source="kaggle"))
    assert len(kaggle.asked) == asked and sources.plan(Data()).kind == "kaggle"


def test_kaggle_broken_off_goes_on_from_there(kaggle):
    kaggle.fault = "cut"
    with pytest.raises(UsageError, match="it goes on from there"):
        sources.fetch(Data(source="kaggle"))
    kaggle.fault = ""
    sources.fetch(Data(source="kaggle"))
    assert any(asked.startswith("bytes=") and asked != "bytes=0-" for _, _, asked in kaggle.asked)


def test_kaggle_that_stalls_does_not_wait_for_ever(kaggle):
    kaggle.fault = "stall"
    with pytest.raises(UsageError, match="check the network"):
        sources.fetch(Data(source="kaggle"))


@pytest.mark.parametrize("spoil", ["truncated", "html", "counts"])
def test_kaggle_that_is_no_use_is_removed(kaggle, clean, spoil):
    if spoil == "truncated":
        kaggle.files["archive.zip"] = kaggle.files["archive.zip"][:-5000]
    elif spoil == "html":
        kaggle.fault = "html"
    else:
        kaggle.files["archive.zip"] = _archive(COUNTS | {"val": {"NORMAL": 7, "PNEUMONIA": 8}})
    with pytest.raises(UsageError, match="what came cannot be used and was removed") as error:
        sources.fetch(Data(source="kaggle"))
    assert (
        "\n" not in str(error.value) and not _left(clean) and sources.plan(Data()).kind == "phantom"
    )
    kaggle.fault, kaggle.files["archive.zip"] = "", _archive(COUNTS)
    assert sources.fetch(Data(source="kaggle")).root.is_dir()


class Ours(sources.Download):
    """What a third downloaded source takes: its facts, and how its images are had."""

    kind = "ours"
    version = "7"
    checks = licence = citation = address = "for a test"
    counts: ClassVar = {"test": {"NORMAL": 1, "PNEUMONIA": 1}}

    def obtain(self, data, folder, progress):
        checksum = hashlib.sha256(self.archive).hexdigest()
        file = files.fetch(f"{self.address}ours.zip", checksum, folder / "ours.zip", 1, progress)
        shutil.unpack_archive(file, folder)
        return folder


def test_a_new_source_is_one_class(clean, monkeypatch, server):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for split in ("train", "test"):
            for label in ("NORMAL", "PNEUMONIA"):
                archive.writestr(f"set/{split}/{label}/1.png", b"")
    Ours.archive = server.files["ours.zip"] = content.getvalue()
    monkeypatch.setattr(Ours, "address", server.address)
    asked = Data(source="ours")
    assert not sources.plan(asked).root.exists() and not server.asked
    source = sources.fetch(asked)
    assert source == sources.plan(asked) and (source.root / "test" / "NORMAL" / "1.png").is_file()
    assert source.ready and sources.plan(Data()).kind == "phantom" and source.standing == ""
    sources.fetch(asked)
    assert len(server.asked) == 1


def test_names_in_an_archive_cannot_leave_its_folder(kaggle, clean, tmp_path):
    outside = tmp_path / "absolute.txt"
    kaggle.files["archive.zip"] = _archive(COUNTS, ["../../../../../../climbed.txt", str(outside)])
    sources.fetch(Data(source="kaggle"))
    assert not outside.exists() and not list(tmp_path.rglob("climbed.txt"))
    assert not (paths.ROOT / "climbed.txt").exists()
