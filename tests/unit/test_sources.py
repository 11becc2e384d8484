import hashlib
import shutil

import keras
import pytest
from PIL import Image

from cxr_utils import models, paths, sources
from cxr_utils.params import Data, UsageError


@pytest.fixture
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("CXR_DATA", raising=False)
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_auto_takes_the_folder_then_kaggle_then_the_phantom(clean, monkeypatch, phantom_root):
    assert sources.plan(Data()).kind == "phantom"
    verified = sources.kaggle_root()
    verified.mkdir(parents=True)
    assert sources.plan(Data()).kind == "phantom"
    (verified / "verified").touch()
    assert sources.plan(Data()) == sources.Source("kaggle", verified)
    folder = shutil.copytree(phantom_root, clean / "mine")
    (folder / "phantom.json").unlink()
    monkeypatch.setenv("CXR_DATA", str(folder))
    assert sources.plan(Data()) == sources.Source("phantom", folder)
    for file in folder.glob("train/*/*.jpeg"):
        Image.open(file).save(file, quality=90, comment=b"")
    assert sources.plan(Data()) == sources.Source("folder", folder)


def test_a_named_source_never_falls_back(clean, monkeypatch):
    monkeypatch.setenv("CXR_DATA", str(clean / "missing"))
    with pytest.raises(UsageError, match="no such folder"):
        sources.plan(Data())
    for name in ("nowhere", "kagle"):
        with pytest.raises(UsageError, match="neither a folder nor one of"):
            sources.plan(Data(source=name))
    with pytest.raises(UsageError, match="no such folder"):
        sources.plan(Data(source=str(clean / "missing")))


def test_a_phantom_by_its_folder_is_still_synthetic(phantom_root):
    assert sources.plan(Data(source=str(phantom_root))).synthetic


def test_a_copy_of_the_phantoms_images_is_still_synthetic(phantom_root, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(phantom_root / split, tmp_path / split)
    assert sources.plan(Data(source=str(tmp_path))).synthetic


@pytest.fixture
def weights_server(clean, monkeypatch, server):
    monkeypatch.setattr(models, "IMAGENET_ADDRESS", server.address)
    return server


def _ask(smoke, weights):
    settings = smoke.resnet50v2.model_copy(update={"backbone": "MobileNetV2", "weights": weights})
    model = models.build(settings)
    return model, models.load_weights(model, settings)


def test_imagenet_weights_are_fetched_and_loaded(smoke, weights_server, monkeypatch):
    donor = next(layer for layer in _ask(smoke, "none")[0].layers if isinstance(layer, keras.Model))
    donor.save_weights(file := paths.cache_folder().parent / "mobile.weights.h5")
    weights_server.files[file.name] = file.read_bytes()
    monkeypatch.setitem(models.IMAGENET, "MobileNetV2", (file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    model, origin = _ask(smoke, "auto")
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    assert origin == "imagenet"
    assert all((a == b).all() for a, b in zip(inner.get_weights(), donor.get_weights(), strict=True))


@pytest.mark.parametrize("content", [None, b"<html>sorry</html>"])
def test_weights_that_cannot_be_had(smoke, weights_server, monkeypatch, content):
    """Auto goes on with random weights and says why; with imagenet it stops; nothing wrong stays in the cache."""
    monkeypatch.setitem(models.IMAGENET, "MobileNetV2", ("mobile.weights.h5", "0" * 32))
    if content:
        weights_server.files["mobile.weights.h5"] = content
    assert _ask(smoke, "auto")[1].startswith("random, as ImageNet weights cannot be had here")
    with pytest.raises(UsageError, match="did not deliver"):
        _ask(smoke, "imagenet")
    assert not list((paths.cache_folder() / "weights").glob("*"))
