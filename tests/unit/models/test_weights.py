"""Weights from a server on 127.0.0.1 and from files, good and bad; and what a training does
with them."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_utils import files, paths
from cxr_utils.data import dataset
from cxr_utils.models import networks, optimizer, training, weights
from cxr_utils.parameters import UsageError


@pytest.fixture
def weights_server(monkeypatch, tmp_path, server):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "TIMEOUT", (2, 1))
    return server


@pytest.fixture(scope="module")
def settings(smoke):
    """A backbone that is small, and still has batch norm."""
    return smoke.resnet50v2.model_copy(
        update={"backbone": "MobileNet", "head_epochs": 3, "tuning_epochs": 1, "average": 0.5}
    )


@pytest.fixture(scope="module")
def donor(settings):
    keras.utils.set_random_seed(5)
    return weights.backbone_of(networks.build(settings))


@pytest.fixture(scope="module")
def file(donor, tmp_path_factory):
    donor.save_weights(saved := tmp_path_factory.mktemp("weights") / "mobile.weights.h5")
    return saved


def _from(settings, server, asked):
    return weights.find(
        settings.model_copy(update={"weights": asked, "weights_address": server.address})
    )


def test_imagenet_weights_are_fetched_checked_and_loaded(
    settings, weights_server, monkeypatch, donor, file
):
    content = file.read_bytes()
    weights_server.files["mobilenet/mobile.weights.h5"] = content
    for checksum in (hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()):
        monkeypatch.setitem(weights.PUBLISHED, "MobileNet", ("mobilenet", file.name, checksum))
        start = _from(settings, weights_server, "auto")
        network = weights.backbone_of(networks.build(settings, weights=start.file))
        assert start.told() == {
            "kind": "imagenet",
            "reason": "",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        assert all(
            (a == b).all() for a, b in zip(network.get_weights(), donor.get_weights(), strict=True)
        )
        start.file.unlink()


@pytest.mark.parametrize("content", [None, b"<html>sorry</html>"])
def test_weights_that_cannot_be_had(settings, weights_server, monkeypatch, content):
    """Auto goes on with random weights and says why; with imagenet it stops; nothing wrong
    stays in the cache."""
    monkeypatch.setitem(
        weights.PUBLISHED, "MobileNet", ("mobilenet", "mobile.weights.h5", "0" * 32)
    )
    if content:
        weights_server.files["mobilenet/mobile.weights.h5"] = content
    start = _from(settings, weights_server, "auto")
    assert (start.kind, start.file, start.digest) == ("random", None, "random")
    assert "did not deliver" in start.reason
    with pytest.raises(UsageError, match="did not deliver"):
        _from(settings, weights_server, "imagenet")
    assert not list((paths.cache_folder() / "weights").glob("*"))
    with pytest.raises(UsageError, match="save some to a file"):
        weights.fetch("MobileNetV3Small", weights_server.address)


def test_published_table_names_backbones_and_checksums():
    """As Keras' own sources have them."""
    sources = "".join(
        file.read_text()
        for file in (Path(keras.__file__).parent / "src" / "applications").glob("*.py")
    )
    for backbone, (folder, name, checksum) in weights.PUBLISHED.items():
        assert hasattr(keras.applications, backbone) and name.endswith("notop.h5")
        assert checksum in sources and f"{folder}/" in sources
    assert len({checksum for _, _, checksum in weights.PUBLISHED.values()}) == len(
        weights.PUBLISHED
    )


@pytest.mark.filterwarnings(
    "ignore:Skipping nested container"
)  # what Keras says of the wrong file, before it refuses it
def test_wrong_weights_are_refused(settings, file, tmp_path):
    with pytest.raises(UsageError, match="does not fit VGG16"):
        networks.check_weights(
            settings.model_copy(update={"backbone": "VGG16", "weights": str(file)})
        )
    networks.check_weights(settings.model_copy(update={"weights": str(file)}))
    (tmp_path / "cut.weights.h5").write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UsageError, match="does not fit MobileNet"):
        networks.check_weights(
            settings.model_copy(update={"weights": str(tmp_path / "cut.weights.h5")})
        )
    for name, content, said in (
        ("a.h5", b"text", "not a weights file"),
        ("a.txt", file.read_bytes(), "not a weights file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=said):
            weights.check_file(tmp_path / name)
    with pytest.raises(UsageError, match="no such file"):
        weights.check_file(tmp_path / "none.h5")


@pytest.fixture(scope="module")
def splits(smoke):
    return dataset.open_data(smoke, 32).splits


def test_the_head_alone_is_trained_on_features_of_the_frozen_backbone(settings, splits, file):
    model, network = (networks.build(settings, weights=file) for _ in range(2))
    network.compile(optimizer.AdamW(1e-3, 0.05), keras.losses.BinaryCrossentropy(from_logits=True))
    before, job = model.get_weights(), SimpleNamespace(model=model, notes={})
    training.train_head(network, job, settings, splits)
    after = network.get_weights()
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert (
        changed == [False] * (len(changed) - 2) + [True, True] and job.notes["head"]["epochs"] == 3
    )
    pixels = splits["validation"].pixels[:5]
    by_hand = networks.features(network, pixels) @ after[-2] + after[-1]
    assert np.allclose(by_hand[:, 0], networks.logits(network, pixels), atol=1e-4)


def test_training_from_weights_tunes_all_layers_but_batch_norm(
    smoke, settings, splits, file, donor, fit
):
    trained = fit(settings, smoke.augmentation, 1, splits, weights.Start("file", file))
    tuned = weights.backbone_of(trained.model)
    assert (
        trained.card["head"]["epochs"] == 3
        and trained.card["start"]["kind"] == "file"
        and len(trained.history) == 1
    )
    for weight, original in zip(tuned.weights, donor.weights, strict=True):
        of_norm = weight.path.endswith(("gamma", "beta", "moving_mean", "moving_variance"))
        assert weight.trainable == (not of_norm), weight.path
        assert np.array_equal(weight.numpy(), original.numpy()) or not of_norm, weight.path
    moved = [
        not np.array_equal(weight.numpy(), original.numpy())
        for weight, original in zip(tuned.weights, donor.weights, strict=True)
    ]
    assert any(moved)


def test_early_layers_learn_less(settings, file):
    network = networks.build(settings, weights=file)
    found = dict(
        zip(
            [weight.path for weight in network.trainable_variables],
            networks.rate_shares(network, 0.1),
            strict=True,
        )
    )
    shares = list(found.values())
    assert shares[0] == pytest.approx(0.1) and shares == sorted(shares) and shares[-1] == 1.0
    assert found["head_logit/kernel"] == 1.0


def test_inference_mode_ignores_the_batch(settings, file):
    """With weights the backbone answers in training as in inference, whatever else is in the
    batch."""
    batch = tf.constant(np.random.default_rng(0).uniform(size=(4, 32, 32, 1)), tf.float32)
    for frozen in (True, False):
        model = networks.build(settings, weights=file if frozen else None)
        pooled = keras.Model(model.inputs, model.get_layer("head_pool").output)
        assert (
            np.allclose(pooled(batch, training=True), pooled(batch, training=False), atol=1e-5)
            == frozen
        )
