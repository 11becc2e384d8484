import hashlib
import http.server
import shutil
import sys
import threading
import types

import keras
import pytest
from PIL import Image

from cxr_utils import models, paths, sources
from cxr_utils.params import Data, UsageError
from cxr_utils.published import COUNTS


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


def _nested_download(folder, counts):
    """What Kaggle's zip unpacks to: the set, a second copy of it inside, and a Mac's leavings."""
    root = folder / "chest_xray"
    for split, labels in counts.items():
        for label, count in labels.items():
            for place in (root, root / "chest_xray", root / "__MACOSX"):
                (place / split / label).mkdir(parents=True)
            for number in range(count):
                (root / split / label / f"{number}.jpeg").touch()
            (root / split / label / ".DS_Store").touch()
    return folder


def _fake_kagglehub(monkeypatch, download):
    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=download))


def test_kaggle_download_is_unpacked_verified_and_kept(clean, monkeypatch):
    asked = []
    _fake_kagglehub(monkeypatch, lambda handle: asked.append(handle) or str(_nested_download(clean / "download", COUNTS)))
    source = sources.fetch(Data(source="kaggle"))
    assert asked == ["paultimothymooney/chest-xray-pneumonia/versions/2"]
    assert len(list(source.root.glob("train/PNEUMONIA/*.jpeg"))) == COUNTS["train"]["PNEUMONIA"]
    assert not (source.root / "chest_xray").exists()
    sources.fetch(Data(source="kaggle"))
    assert len(asked) == 1 and sources.plan(Data()).kind == "kaggle"


def test_kaggle_download_with_other_counts_is_refused(clean, monkeypatch):
    short = {split: labels | {"NORMAL": labels["NORMAL"] - 1} for split, labels in COUNTS.items()}
    _fake_kagglehub(monkeypatch, lambda _: str(_nested_download(clean / "download", short)))
    with pytest.raises(UsageError, match="train/NORMAL holds 1340 images instead of 1341"):
        sources.fetch(Data(source="kaggle"))
    assert sources.plan(Data()).kind == "phantom"


def test_kaggle_without_network_or_room_is_one_line(clean, monkeypatch):
    def offline(_):
        raise ConnectionError("no route\nto host")

    _fake_kagglehub(monkeypatch, offline)
    with pytest.raises(UsageError, match="the download failed \\(no route to host\\)"):
        sources.fetch(Data(source="kaggle"))
    monkeypatch.setattr(sources, "KAGGLE_BYTES", 10**18)
    with pytest.raises(UsageError, match="make room"):
        sources.fetch(Data(source="kaggle"))


@pytest.fixture
def weights_server(clean, monkeypatch):
    """Serve a folder on 127.0.0.1 in place of the address of the ImageNet weights."""
    folder = clean / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(models, "IMAGENET_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()
    server.server_close()


def _ask(smoke, weights):
    settings = smoke.resnet50v2.model_copy(update={"backbone": "MobileNetV2", "weights": weights})
    model = models.build(settings)
    return model, models.load_weights(model, settings)


def test_imagenet_weights_are_fetched_and_loaded(smoke, weights_server, monkeypatch):
    donor = next(layer for layer in _ask(smoke, "none")[0].layers if isinstance(layer, keras.Model))
    file = weights_server / "mobile.weights.h5"
    donor.save_weights(file)
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
        (weights_server / "mobile.weights.h5").write_bytes(content)
    assert _ask(smoke, "auto")[1].startswith("random, as ImageNet weights cannot be had here")
    with pytest.raises(UsageError, match="did not deliver"):
        _ask(smoke, "imagenet")
    assert not list((paths.cache_folder() / "weights").glob("*"))
