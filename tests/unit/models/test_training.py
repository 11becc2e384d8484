import json

import keras
import numpy as np
import pytest

from cxr_utils import paths, profiles
from cxr_utils.data import dataset
from cxr_utils.files import sha256_of
from cxr_utils.models import (
    checkpoint,
    fingerprint,
    hardware,
    networks,
    optimizer,
    training,
    weights,
)
from cxr_utils.parameters import UsageError

RANDOM = weights.Start(None, "random")


@pytest.fixture(scope="module")
def learner():
    asked = [
        "data.source=phantom",
        "data.phantom_images=500",
        "baseline_cnn.epochs=8",
        "baseline_cnn.image_size=64",
    ]
    return profiles.load("smoke", [*asked, "baseline_cnn.precision=float32"])


@pytest.fixture(scope="module")
def learner_data(learner):
    return dataset.open_data(learner, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paths.RunFolder(tmp_path_factory.mktemp("run")).make()


@pytest.fixture(scope="module")
def trained(learner, learner_data, folder):
    return training.fit_or_load(
        "baseline_cnn", learner, learner_data.manifest.digest, learner_data.splits, folder
    )


def test_training_learns(trained, learner_data):
    """AUROC well over chance on test patients it has never seen."""
    from sklearn.metrics import roc_auc_score

    test = learner_data.splits["test"]
    assert roc_auc_score(test.labels, networks.logits(trained.model, test.pixels)) > 0.75
    assert trained.history["loss"].iloc[-1] < 0.8 * trained.history["loss"].iloc[0]


def test_saved_model_answers_as_the_one_in_memory(trained, learner_data, folder):
    pixels = learner_data.splits["test"].pixels
    loaded = keras.models.load_model(folder.model("baseline_cnn"), compile=False, safe_mode=True)
    assert (networks.logits(loaded, pixels) == networks.logits(trained.model, pixels)).all()


def test_same_training_is_not_done_twice(trained, learner, learner_data, folder, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    again = training.fit_or_load(
        "baseline_cnn", learner, learner_data.manifest.digest, learner_data.splits, folder
    )
    assert again.history.equals(trained.history)


def test_training_key_follows_what_decides_the_weights(learner):
    key = fingerprint.training_key("baseline_cnn", learner, "digest", "random")
    assert fingerprint.training_key("baseline_cnn", learner, "other", "random") != key
    assert fingerprint.training_key("baseline_cnn", learner, "digest", "weights") != key
    for change, same in (
        ("baseline_cnn.epochs=9", False),
        ("augmentation.zoom=0.2", False),
        ("seed=1", False),
        ("data.validation=val", False),
        ("resnet50v2.epochs=9", True),
        ("evaluation.resamples=300", True),
    ):
        overrides = [
            "data.phantom_images=500",
            "baseline_cnn.epochs=8",
            "baseline_cnn.image_size=64",
            change,
        ]
        overrides.append("baseline_cnn.precision=float32")
        assert (
            fingerprint.training_key(
                "baseline_cnn", profiles.load("smoke", overrides), "digest", "random"
            )
            == key
        ) == same, change


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_weights(smoke, precision):
    data = dataset.open_data(smoke, 32)
    settings = smoke.baseline_cnn.model_copy(update={"image_size": 32, "precision": precision})
    runs = [training.fit(settings, smoke.augmentation, 3, data.splits) for _ in range(2)]
    for first, second in zip(runs[0].model.get_weights(), runs[1].model.get_weights(), strict=True):
        assert (first == second).all()


@pytest.mark.parametrize(
    "kind", ["baseline", "bfloat16", "float16", "backbone", "backbone from weights"]
)
def test_a_stopped_training_ends_with_the_same_weights(smoke, tmp_path, monkeypatch, kind):
    """Stopped after its first epoch and started again, with dropout and batch norm: equal to one left alone, to the last digit."""
    data = dataset.open_data(smoke, 32)
    settings = smoke.resnet50v2 if "backbone" in kind else smoke.baseline_cnn
    settings = settings.model_copy(
        update={"epochs": 2, "image_size": 32, "average": 0.9, "precision": "float32"}
    )
    if kind.endswith("float16"):
        monkeypatch.setattr(networks, "WIDTHS", (4, 8))  # few, as a CPU may be slow in it
        settings = settings.model_copy(update={"precision": kind})
    if "backbone" in kind:
        settings = settings.model_copy(
            update={"backbone": "MobileNetV2", "tuning_epochs": 2, "head_epochs": 2}
        )  # smaller, behind the same head
    if "weights" in kind:
        weights.backbone_of(networks.build(settings)).save_weights(tmp_path / "w.weights.h5")
        settings = settings.model_copy(update={"weights": str(tmp_path / "w.weights.h5")})
    alone = training.fit(settings, smoke.augmentation, 3, data.splits)
    kept = checkpoint.Checkpoint(tmp_path / "kept", "key")

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        save = kept.save
        patch.setattr(kept, "save", lambda *state: (save(*state), kill()))
        training.fit(settings, smoke.augmentation, 3, data.splits, checkpoint=kept)
    keras.utils.clear_session()
    resumed = training.fit(settings, smoke.augmentation, 3, data.splits, checkpoint=kept)
    for first, second in zip(alone.model.get_weights(), resumed.model.get_weights(), strict=True):
        assert (first == second).all()
    assert resumed.history.drop(columns="seconds").equals(alone.history.drop(columns="seconds"))


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_taken(tmp_path):
    kept = checkpoint.Checkpoint(tmp_path / "kept", "key")
    assert kept.load() is None
    kept.save([np.arange(3), np.float32(2)], [{"epoch": 1}])
    arrays, notes = checkpoint.Checkpoint(tmp_path / "kept", "key").load()
    assert (arrays[0] == np.arange(3)).all() and notes == [{"epoch": 1}]
    assert checkpoint.Checkpoint(tmp_path / "kept", "other").load() is None
    kept.path.write_bytes(kept.path.read_bytes()[:-40])
    assert kept.load() is None
    kept.discard()
    assert not list(tmp_path.iterdir())


def test_nan_loss_stops_with_a_remedy(smoke):
    data = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    settings = smoke.baseline_cnn.model_copy(update={"learning_rate": float("nan")})
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(FloatingPointError, match="smaller learning_rate"),
    ):
        training.fit(settings, smoke.augmentation, 1, data.splits)


def test_auto_falls_back_to_float32_where_bfloat16_diverges(smoke, tmp_path, monkeypatch, capsys):
    """The result is that of float32 to the last digit, also where it was stopped in between; who asked for bfloat16 is told."""
    data = dataset.open_data(smoke, 32)
    asked = smoke.baseline_cnn.model_copy(update={"image_size": 32, "epochs": 2})
    expected = training.fit(
        asked.model_copy(update={"precision": "float32"}), smoke.augmentation, 3, data.splits
    )
    monkeypatch.setattr(
        hardware, "precision", lambda precision: "bfloat16" if precision == "auto" else precision
    )
    run_epoch = training._run_epoch

    def diverging(made, *where):
        if made.about == "bfloat16":
            raise FloatingPointError("the loss is nan in epoch 1; take a smaller learning_rate")
        return run_epoch(made, *where)

    monkeypatch.setattr(training, "_run_epoch", diverging)
    kept = checkpoint.Checkpoint(tmp_path / "kept", "key")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        save = kept.save
        patch.setattr(
            kept, "save", lambda *state: (save(*state), (_ for _ in ()).throw(KeyboardInterrupt()))
        )
        training.fit(asked, smoke.augmentation, 3, data.splits, checkpoint=kept)
    assert (
        "in bfloat16 the loss is nan in epoch 1: the training starts again in float32"
        in capsys.readouterr().out
    )
    for trained in (training.fit(asked, smoke.augmentation, 3, data.splits, checkpoint=kept),
                    training.fit(asked, smoke.augmentation, 3, data.splits)):  # fmt: skip
        assert trained.card["precision"] == "float32"
        for first, second in zip(
            expected.model.get_weights(), trained.model.get_weights(), strict=True
        ):
            assert (first == second).all()
    with pytest.raises(FloatingPointError):
        training.fit(
            asked.model_copy(update={"precision": "bfloat16"}), smoke.augmentation, 3, data.splits
        )


def test_bfloat16_trains_and_scores_in_float32(smoke):
    data = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    settings = smoke.baseline_cnn.model_copy(update={"precision": "bfloat16", "epochs": 1})
    trained = training.fit(settings, smoke.augmentation, 1, data.splits)
    assert trained.card["precision"] == "bfloat16" and trained.model.dtype_policy.name == "float32"
    assert np.isfinite(networks.logits(trained.model, data.splits["test"].pixels)).all()


def test_batch_larger_than_the_data_stops(smoke):
    data = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    with pytest.raises(UsageError, match="take a smaller batch"):
        training.fit(
            smoke.baseline_cnn.model_copy(update={"batch_size": 1024}),
            smoke.augmentation,
            1,
            data.splits,
        )


def test_test_time_flips_average_an_image_and_its_mirror_image(smoke):
    model, pixels = (
        networks.build(smoke.baseline_cnn),
        np.random.default_rng(0).integers(0, 256, (5, 48, 48)).astype(np.uint8),
    )
    both = [networks.logits(model, pixels), networks.logits(model, pixels[:, :, ::-1])]
    assert np.abs(both[0] - both[1]).max() > 1e-4
    assert np.allclose(networks.logits(model, pixels, flips=True), np.mean(both, axis=0), atol=1e-5)


@pytest.mark.parametrize("backbone", ["MobileNetV2", "VGG16", "DenseNet121", "EfficientNetV2B0"])
def test_other_backbones_answer(smoke, backbone):
    settings = smoke.resnet50v2.model_copy(update={"backbone": backbone, "weights": "none"})
    model = networks.build(settings)
    assert model(np.random.default_rng(0).uniform(size=(2, 32, 32, 1)).astype("float32")).shape == (
        2,
        1,
    )


def test_counts_among_the_weights_have_no_average(smoke):
    """EfficientNet keeps the number of images it was normalised with, an integer."""
    network = networks.build(
        smoke.resnet50v2.model_copy(update={"backbone": "EfficientNetB0", "weights": "none"})
    )
    average = optimizer.Average(network, 0.9)
    assert any(not kept.dtype.is_floating for kept in average.state)
    average.follow(0)
    network.set_weights(average.weights())


def test_image_under_the_minimum_stops(smoke):
    settings = smoke.resnet50v2.model_copy(update={"backbone": "InceptionV3", "image_size": 32})
    with pytest.raises(UsageError, match="take a larger one"):
        networks.build(settings)


def test_training_stops_when_nothing_improves(smoke, monkeypatch, capsys):
    """The best of the epochs before is kept."""
    losses = iter([0.5, 0.4, 0.45, 0.6, 0.1])
    monkeypatch.setattr(
        training,
        "_validate",
        lambda *_: {
            "validation_loss": 1.0,
            "stress_loss": next(losses),
            "validation_accuracy": 0.5,
        },
    )
    data = dataset.open_data(smoke, 32)
    settings = smoke.baseline_cnn.model_copy(update={"epochs": 5, "patience": 2, "image_size": 32})
    trained = training.fit(settings, smoke.augmentation, 1, data.splits)
    assert (
        len(trained.history) == 4
        and trained.card["best_epoch"] == 2
        and "no better epoch for 2" in capsys.readouterr().out
    )


def test_the_original_protocol_chooses_on_val(smoke):
    """Profile seed: all training images are trained on, and the published val folder takes the place of validation."""
    seed = profiles.load(
        "seed", ["data.source=phantom", "data.phantom_images=120", "data.phantom_size=64"]
    )
    data = dataset.open_data(seed, 32)
    assert set(data.splits) == {"train", "val", "test"} and data.chosen_on == "val"
    assert len(data.splits["train"]) == sum(data.manifest.counts()["train"].values())
    settings = seed.baseline_cnn.model_copy(update={"image_size": 32, "epochs": 1})
    trained = training.fit(settings, seed.augmentation, 1, data.splits)
    assert trained.card["chosen_by"] == "validation_loss" and "stress_loss" not in trained.history
    unscaled = trained.model.get_layer("unscaled")
    assert unscaled(np.ones((1, 2, 2, 1), "float32")).numpy().max() == 255


@pytest.mark.parametrize(
    ("weights_asked", "start", "taken"),
    [
        ("none", "random", True),
        ("none", "0" * 64, False),
        ("auto", "random", True),
        ("auto", "0" * 64, True),
        ("imagenet", "0" * 64, True),
    ],
)
def test_what_auto_came_to_is_part_of_the_model(tmp_path, weights_asked, start, taken):
    """A model is taken as it was trained, whether or not ImageNet weights could be had now; nothing is fetched to tell."""
    asked = profiles.load(
        "smoke",
        [f"resnet50v2.weights={weights_asked}", "resnet50v2.weights_address=http://127.0.0.1:9"],
    )
    run = paths.RunFolder(tmp_path).make()
    run.model("resnet50v2").write_bytes(b"a model")
    key = fingerprint.training_key("resnet50v2", asked, "digest", start)
    card = {
        "training_key": key,
        "start": start,
        "sha256": sha256_of(run.model("resnet50v2")),
        "history": [],
    }
    run.model_card("resnet50v2").write_text(json.dumps(card))
    assert fingerprint.is_trained("resnet50v2", asked, "digest", run) == taken
    assert not fingerprint.is_trained("resnet50v2", asked, "other", run)
    run.model("resnet50v2").write_bytes(b"another one")
    assert not fingerprint.is_trained("resnet50v2", asked, "digest", run)
