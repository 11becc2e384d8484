import shutil

import pytest
from PIL import Image

from cxr_utils.data import sources
from cxr_utils.parameters import Data, UsageError


@pytest.fixture
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("CXR_DATA", raising=False)
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_auto_takes_the_folder_then_kaggle_then_the_phantom(clean, monkeypatch, phantom_root):
    assert sources.plan(Data()).kind == "phantom"
    verified = sources.Kaggle.locate(Data()).root
    verified.mkdir(parents=True)
    assert sources.plan(Data()).kind == "phantom"
    (verified / "verified").touch()
    assert sources.plan(Data()) == sources.Kaggle(verified)
    folder = shutil.copytree(phantom_root, clean / "mine")
    (folder / "phantom.json").unlink()
    monkeypatch.setenv("CXR_DATA", str(folder))
    assert sources.plan(Data()) == sources.Phantom(folder)
    for file in folder.glob("train/*/*.jpeg"):
        Image.open(file).save(file, quality=90, comment=b"")
    assert sources.plan(Data()) == sources.Folder(folder)


def test_a_named_source_never_falls_back(clean, monkeypatch):
    monkeypatch.setenv("CXR_DATA", str(clean / "missing"))
    with pytest.raises(UsageError, match="no such folder"):
        sources.plan(Data())
    for name in ("nowhere", "kagle"):
        with pytest.raises(UsageError, match="no such folder, nor a source of that name"):
            sources.plan(Data(source=name))
    with pytest.raises(UsageError, match="no such folder"):
        sources.plan(Data(source=str(clean / "missing")))


def test_a_phantom_by_its_folder_is_still_synthetic(phantom_root):
    assert sources.plan(Data(source=str(phantom_root))).synthetic


def test_a_copy_of_the_phantoms_images_is_still_synthetic(phantom_root, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(phantom_root / split, tmp_path / split)
    assert sources.plan(Data(source=str(tmp_path))).synthetic
