import json
import random

import keras
import numpy as np
import pytest
from cells import train_of

from cxr_utils import paths, profiles
from cxr_utils.data import dataset
from cxr_utils.files import sha256_of
from cxr_utils.models import (
    callbacks,
    explanation,
    fingerprint,
    hardware,
    networks,
    robustness,
    training,
    weights,
)
from cxr_utils.parameters import UsageError

RANDOM = weights.Start("random")
LONG = pytest.mark.long
BACKBONES = ("backbone", "weights")
ASKED = [
    "data.source=phantom",
    "data.phantom_images=800",
    "baseline_cnn.epochs=8",
    "baseline_cnn.image_size=64",
    "baseline_cnn.precision=float32",
]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """What is built here has two stages; only the network of `trained` is whole."""
    monkeypatch.setattr(networks, "STAGES", 2)


@pytest.fixture(scope="module")
def learner():
    return profiles.load("smoke", ASKED)


@pytest.fixture(scope="module")
def learner_data(learner):
    return dataset.open_data(learner, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paths.RunFolder(tmp_path_factory.mktemp("run")).make()


@pytest.fixture(scope="module")
def trained(learner, learner_data, folder):
    section = learner.baseline_cnn
    train = train_of(section, learner.augmentation, learner.seed, learner_data.splits, folder)
    return training.train_or_load(train, section, learner, learner_data, folder)


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
    section = learner.baseline_cnn
    train = train_of(section, learner.augmentation, learner.seed, learner_data.splits, folder)
    again = training.train_or_load(train, section, learner, learner_data, folder)
    assert again.history.equals(trained.history)


def test_an_ensemble_is_the_mean_of_trainings_from_the_seeds_after_its_own(tmp_path, monkeypatch):
    """Each member is what its seed gives alone, on the split of the first; a file holds all."""
    small = ["data.source=phantom", "baseline_cnn.image_size=32", "evaluation.members=2"]
    asked = profiles.load("smoke", small)
    data, section = dataset.open_data(asked, 32), asked.baseline_cnn
    run = paths.RunFolder(tmp_path / "run").make()
    train = train_of(section, asked.augmentation, asked.seed, data.splits, run)
    trained = training.train_or_load(train, section, asked, data, run)
    pixels = data.splits["test"].pixels
    alone = [networks.logits(one, pixels) for one in networks.members(trained.model)]
    assert len(alone) == 2 == trained.card["members"]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    assert networks.logits(trained.model, pixels) == pytest.approx(np.mean(alone, axis=0), abs=1e-5)
    maps = [explanation.grad_cam(one, pixels[:2]) for one in networks.members(trained.model)]
    assert explanation.grad_cam(trained.model, pixels[:2]) == pytest.approx(np.mean(maps, axis=0))
    start, saved = RANDOM, callbacks.Saved(tmp_path / "again", "key")
    second = training.fit(train, section, asked.seed + 1, data.splits, start, saved)
    assert (networks.logits(second.model, pixels) == alone[1]).all()
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    loaded = training.train_or_load(train, section, asked, data, run)
    assert (networks.logits(loaded.model, pixels) == networks.logits(trained.model, pixels)).all()
    kept = [networks.logits(one, pixels) for one in networks.members(loaded.model)]
    assert all((one == two).all() for one, two in zip(kept, alone, strict=True))
    assert explanation.grad_cam(loaded.model, pixels[:2]) == pytest.approx(np.mean(maps, axis=0))
    run.model("baseline_cnn").unlink()  # the members are there still
    again = training.train_or_load(train, section, asked, data, run)
    assert (networks.logits(again.model, pixels) == networks.logits(loaded.model, pixels)).all()


def test_members_share_one_arithmetic(tmp_path, monkeypatch):
    """Where one falls back to float32, all are trained in it; what was asked for is remembered."""
    small = ["data.source=phantom", "baseline_cnn.image_size=32", "evaluation.members=2"]
    asked, done = profiles.load("smoke", small), []

    def fit(_, section, seed, *others):
        done.append((seed - asked.seed, section.precision))
        fell = "bfloat16" if done[-1] == (1, "auto") else None
        told = {"precision": {"used": "float32", "fell_back_from": fell}, "seconds": 1.0}
        return training.Trained(networks.build(section), told | {"history": []})

    monkeypatch.setattr(training, "fit", fit)
    data, section = dataset.open_data(asked, 32), asked.baseline_cnn
    run = paths.RunFolder(tmp_path / "run").make()
    train = train_of(section, asked.augmentation, asked.seed, data.splits, run)
    trained = training.train_or_load(train, section, asked, data, run)
    assert done == [(0, "auto"), (1, "auto"), (0, "float32"), (1, "float32")]
    assert trained.card["precision"]["fell_back_from"] == "bfloat16"
    assert len(networks.members(trained.model)) == trained.card["members"] == 2
    again = training.train_or_load(train, section, asked, data, run)
    assert len(done) == 4 and again.card == trained.card


def test_training_key_follows_what_decides_the_weights(learner):
    def key(params=learner, digest="digest", start="random", recipe="recipe"):
        return fingerprint.training_key(params.baseline_cnn, params, digest, start, recipe)

    assert key(digest="other") != key() != key(start="weights")
    assert key(recipe="another") != key()
    for change, same in (
        ("baseline_cnn.epochs=9", False),
        ("augmentation.zoom=0.2", False),
        ("seed=1", False),
        ("data.validation=val", False),
        ("resnet50v2.epochs=9", True),
        ("evaluation.resamples=300", True),
        ("evaluation.members=2", False),
    ):
        assert (key(profiles.load("smoke", [*ASKED, change])) == key()) == same, change


def test_the_recipe_follows_the_code_that_trains_and_nothing_else(tmp_path):
    """What ``train`` uses counts, in the file as in the running notebook.

    Comments, parameters and other cells do not.
    """

    def recipe(*cells):
        file = tmp_path / "n.ipynb"
        parts = [{"cell_type": "code", "source": cell} for cell in cells]
        file.write_text(json.dumps({"cells": parts}))
        live = {"In": ["", *cells, "epochs = 3", "broken("]}
        exec(train, live)
        assert fingerprint.recipe_of(live["train"]) == fingerprint.recipe_in(file)
        return fingerprint.recipe_in(file)

    helper = (
        "class Loss:\n    weight = 0.1\n\n@cached\ndef rate(loss=Loss):\n    return TOP * half(1)"
    )
    constants, train = (
        "TOP = 0.1\nhalf = lambda x: x / 2",
        "def train(job):\n    return rate() + epochs",
    )
    plot, loud = "def plot():\n    pass", train.replace("return", "# why\n    return")
    cells = [constants, helper, train]
    assert recipe(*cells) == recipe(
        plot, constants, helper, loud, "epochs = 1", "%matplotlib inline"
    )
    for number, old, changed in (
        (0, "0.1", "0.2"),
        (0, "/ 2", "/ 3"),
        (1, "weight = 0.1", "weight = 2"),
    ):
        other = list(cells)
        other[number] = cells[number].replace(old, changed)
        assert recipe(*other) != recipe(*cells), changed
    timed = {"In": ["%%time\n" + train]}
    exec(train, timed)
    with pytest.raises(UsageError, match="without magics"):
        fingerprint.recipe_of(timed["train"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_weights(smoke, fit, precision):
    data = dataset.open_data(smoke, 32)
    settings = smoke.baseline_cnn.model_copy(update={"image_size": 32, "precision": precision})
    runs = [fit(settings, smoke.augmentation, 3, data.splits) for _ in range(2)]
    for first, second in zip(runs[0].model.get_weights(), runs[1].model.get_weights(), strict=True):
        assert (first == second).all()


class Killed(BaseException):
    """A training that ends in the middle."""


def killed_after_its_first_epoch(saved, monkeypatch):
    save = saved.save

    def once(*state):
        save(*state)
        raise Killed

    monkeypatch.setattr(saved, "save", once)


@pytest.mark.parametrize(
    "kind",
    ["baseline", "bfloat16", "no average", *(pytest.param(k, marks=LONG) for k in BACKBONES)],
)
def test_a_stopped_training_ends_with_the_same_weights(smoke, fit, tmp_path, monkeypatch, kind):
    """Stopped after its first epoch and started again, with dropout and batch norm: equal to
    the last digit."""
    data, start = dataset.open_data(smoke, 32), RANDOM
    backbone = kind in ("backbone", "weights")
    settings = smoke.resnet50v2 if backbone else smoke.baseline_cnn
    changes = {"epochs": 3, "image_size": 32, "average": 0.0 if kind == "no average" else 0.9}
    changes["precision"] = "bfloat16" if kind == "bfloat16" else "float32"
    if backbone:  # a smaller one behind the same head
        changes |= {"backbone": "MobileNet", "tuning_epochs": 2, "head_epochs": 2}
    settings = settings.model_copy(update=changes)
    if kind == "weights":
        file = tmp_path / "w.weights.h5"
        backbone_of_it = weights.backbone_of(networks.build(settings))
        large = [w * 1.5 if w.ndim == 4 else w for w in backbone_of_it.get_weights()]
        backbone_of_it.set_weights(large)  # else its features are as small as denormal numbers
        backbone_of_it.save_weights(file)
        start = weights.Start("file", file)
    alone = fit(settings, smoke.augmentation, 3, data.splits, start)
    random.seed()  # as another process would have it
    saved = callbacks.Saved(tmp_path / "kept", "key")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after_its_first_epoch(saved, patch)
        fit(settings, smoke.augmentation, 3, data.splits, start, saved)
    keras.utils.clear_session()
    resumed = fit(settings, smoke.augmentation, 3, data.splits, start, saved)
    for first, second in zip(alone.model.get_weights(), resumed.model.get_weights(), strict=True):
        assert (first == second).all()
    assert resumed.history.drop(columns="seconds").equals(alone.history.drop(columns="seconds"))
    assert resumed.card["epochs"] == alone.card["epochs"]


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_taken(tmp_path):
    kept = callbacks.Saved(tmp_path / "kept", "key")
    assert kept.notes == {}
    kept.save([np.arange(3), np.float32(2)], {"rows": [{"epoch": 1}]})
    again = callbacks.Saved(tmp_path / "kept", "key")
    assert (again.arrays()[0] == np.arange(3)).all() and again.notes == {"rows": [{"epoch": 1}]}
    assert callbacks.Saved(tmp_path / "kept", "other").notes == {}
    kept.path.write_bytes(kept.path.read_bytes()[:-40])
    assert kept.notes == {}
    kept.discard()
    assert not list(tmp_path.iterdir())


def test_nan_loss_stops_with_a_remedy(smoke, fit, monkeypatch):
    """At once, not after an epoch and its validation."""
    monkeypatch.setattr(networks, "logits", lambda *_: pytest.fail("scored at the end of an epoch"))
    data = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    changes = {"learning_rate": float("nan"), "precision": "float32"}
    settings = smoke.baseline_cnn.model_copy(update=changes)
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(FloatingPointError, match="smaller learning_rate"),
    ):
        fit(settings, smoke.augmentation, 1, data.splits)


def test_auto_falls_back_to_float32_where_bfloat16_diverges(
    smoke, fit, tmp_path, monkeypatch, capsys
):
    """Equal to float32 to the last digit, also where it was stopped in between."""
    data = dataset.open_data(smoke, 32)
    asked = smoke.baseline_cnn.model_copy(update={"image_size": 32, "epochs": 2})
    plain = asked.model_copy(update={"precision": "float32"})
    expected = fit(plain, smoke.augmentation, 3, data.splits)
    monkeypatch.setattr(hardware, "precision", lambda kind, _: {"auto": "bfloat16"}.get(kind, kind))
    loss = robustness.log_loss
    network_of = training.Job

    class Diverging(network_of):
        """In bfloat16 every loss is NaN."""

        def __init__(self, precision, *others):
            super().__init__(precision, *others)
            broken = precision == "bfloat16"
            monkeypatch.setattr(
                robustness, "log_loss", (lambda *_: float("nan")) if broken else loss
            )

    monkeypatch.setattr(training, "Job", Diverging)
    saved = callbacks.Saved(tmp_path / "kept", "key")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after_its_first_epoch(saved, patch)
        fit(asked, smoke.augmentation, 3, data.splits, saved=saved)
    assert "in epoch 1: the training starts again in float32" in capsys.readouterr().out
    resumed = fit(asked, smoke.augmentation, 3, data.splits, saved=saved)
    for trained in (resumed, fit(asked, smoke.augmentation, 3, data.splits)):
        told = trained.card["precision"]
        assert (told["used"], told["fell_back_from"]) == ("float32", "bfloat16")
        pairs = zip(expected.model.get_weights(), trained.model.get_weights(), strict=True)
        assert all((first == second).all() for first, second in pairs)
    with pytest.raises(FloatingPointError):
        named = asked.model_copy(update={"precision": "bfloat16"})
        fit(named, smoke.augmentation, 3, data.splits)


def test_bfloat16_trains_and_scores_in_float32(smoke, fit):
    data = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    settings = smoke.baseline_cnn.model_copy(update={"precision": "bfloat16", "epochs": 1})
    trained = fit(settings, smoke.augmentation, 1, data.splits)
    assert trained.card["precision"]["used"] == "bfloat16"
    assert trained.model.dtype_policy.name == "float32"
    assert np.isfinite(networks.logits(trained.model, data.splits["test"].pixels)).all()


def test_batch_larger_than_the_data_stops(smoke, fit):
    data = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    settings = smoke.baseline_cnn.model_copy(update={"batch_size": 1024})
    with pytest.raises(UsageError, match="take a smaller batch"):
        fit(settings, smoke.augmentation, 1, data.splits)


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


def test_training_stops_when_nothing_improves(smoke, fit, monkeypatch):
    """The best of the epochs before is kept, also where it is started again after its end."""
    losses = iter([9, 0.5, 9, 0.4, 9, 0.45, 9, 0.6, 9, 0.1])  # plain and stressed, in turn
    monkeypatch.setattr(robustness, "log_loss", lambda *_: next(losses))
    data = dataset.open_data(smoke, 32)
    settings = smoke.baseline_cnn.model_copy(update={"epochs": 5, "patience": 2, "image_size": 32})
    trained = fit(settings, smoke.augmentation, 1, data.splits)
    assert trained.card["epochs"] == {"planned": 5, "done": 4, "best": 2}


def test_the_original_protocol_chooses_on_val(fit):
    """Profile seed: all training images are trained on, and the published val folder takes the
    place of validation."""
    seed = profiles.load(
        "seed", ["data.source=phantom", "data.phantom_images=120", "data.phantom_size=64"]
    )
    data = dataset.open_data(seed, 32)
    assert set(data.splits) == {"train", "val", "test"} and data.chosen_on == "val"
    assert len(data.splits["train"]) == sum(data.manifest.counts()["train"].values())
    settings = seed.baseline_cnn.model_copy(update={"image_size": 32, "epochs": 1})
    trained = fit(settings, seed.augmentation, 1, data.splits)
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
    """A model is taken as it was trained, whether or not ImageNet weights could be had now;
    nothing is fetched to tell."""
    asked = profiles.load(
        "smoke",
        [f"resnet50v2.weights={weights_asked}", "resnet50v2.weights_address=http://127.0.0.1:9"],
    )
    run, section = paths.RunFolder(tmp_path).make(), asked.resnet50v2
    run.model("resnet50v2").write_bytes(b"a model")
    card = {
        "training_key": fingerprint.training_key(section, asked, "digest", start, "recipe"),
        "start": {"sha256": start},
        "sha256": sha256_of(run.model("resnet50v2")),
        "history": [],
    }
    run.model_card("resnet50v2").write_text(json.dumps(card))

    def is_trained(digest="digest", recipe="recipe"):
        return fingerprint.is_trained(section, asked, digest, recipe, run)

    assert is_trained() == taken and not is_trained("other") and not is_trained(recipe="other")
    run.model("resnet50v2").write_bytes(b"another one")
    assert not is_trained()
