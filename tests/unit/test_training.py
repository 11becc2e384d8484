import keras
import numpy as np
import pytest

from cxr_utils import checkpoint, images, models, optimizer, params, paths, training
from cxr_utils.params import UsageError


@pytest.fixture(scope="module")
def learner():
    return params.load("smoke", ["data.source=phantom", "data.phantom_images=500", "baseline_cnn.epochs=8", "baseline_cnn.image_size=64"])


@pytest.fixture(scope="module")
def learner_data(learner):
    return images.open_data(learner, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paths.RunFolder(tmp_path_factory.mktemp("run")).make()


@pytest.fixture(scope="module")
def trained(learner, learner_data, folder):
    return training.fit_or_load("baseline_cnn", learner, learner_data.manifest.digest, learner_data.folds, folder)


def test_training_learns(trained, learner_data):
    """AUROC well over chance on test patients it has never seen."""
    from sklearn.metrics import roc_auc_score

    test = learner_data.folds["test"]
    assert roc_auc_score(test.labels, models.logits(trained.model, test.pixels)) > 0.75
    assert trained.history["loss"].iloc[-1] < 0.8 * trained.history["loss"].iloc[0]


def test_saved_model_answers_as_the_one_in_memory(trained, learner_data, folder):
    pixels = learner_data.folds["test"].pixels
    loaded = keras.models.load_model(folder.model("baseline_cnn"), compile=False, safe_mode=True)
    assert (models.logits(loaded, pixels) == models.logits(trained.model, pixels)).all()


def test_same_training_is_not_done_twice(trained, learner, learner_data, folder, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    again = training.fit_or_load("baseline_cnn", learner, learner_data.manifest.digest, learner_data.folds, folder)
    assert again.history.equals(trained.history)


def test_training_key_follows_what_decides_the_weights(learner):
    key = training.training_key("baseline_cnn", learner, "digest")
    assert training.training_key("baseline_cnn", learner, "other") != key
    for change, same in (
        ("baseline_cnn.epochs=9", False),
        ("augmentation.zoom=0.2", False),
        ("seed=1", False),
        ("resnet50v2.epochs=9", True),
        ("evaluation.resamples=300", True),
    ):
        overrides = ["data.phantom_images=500", "baseline_cnn.epochs=8", "baseline_cnn.image_size=64", change]
        assert (training.training_key("baseline_cnn", params.load("smoke", overrides), "digest") == key) == same, change


def test_same_seed_same_weights(smoke):
    data = images.open_data(smoke, smoke.baseline_cnn.image_size)
    runs = [training.fit(smoke.baseline_cnn, smoke.augmentation, 3, data.folds) for _ in range(2)]
    for first, second in zip(runs[0].model.get_weights(), runs[1].model.get_weights(), strict=True):
        assert (first == second).all()


@pytest.mark.parametrize("name", ["baseline_cnn", "resnet50v2"])
def test_a_stopped_training_ends_with_the_same_weights(smoke, tmp_path, monkeypatch, name):
    """Stopped after its first epoch and started again, with dropout and batch norm: equal to one left alone, to the last digit."""
    data = images.open_data(smoke, 32)
    settings = getattr(smoke, name).model_copy(update={"epochs": 2, "image_size": 32})
    if name == "resnet50v2":
        settings = settings.model_copy(update={"backbone": "MobileNetV2"})  # smaller, behind the same head
    alone = training.fit(settings, smoke.augmentation, 3, data.folds)
    kept = checkpoint.Checkpoint(tmp_path / "kept", "key")

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        save = kept.save
        patch.setattr(kept, "save", lambda *state: (save(*state), kill()))
        training.fit(settings, smoke.augmentation, 3, data.folds, kept)
    keras.utils.clear_session()
    resumed = training.fit(settings, smoke.augmentation, 3, data.folds, kept)
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


def test_fused_adamw_is_keras_adamw():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(20, 4, 3)).astype("float32")
    ours, theirs = keras.Variable(start), keras.Variable(start)
    fused = optimizer.AdamW([ours.value], weight_decay=0.1)
    keras_own = keras.optimizers.AdamW(0.01, weight_decay=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    for gradient in gradients:
        fused.apply([keras.ops.convert_to_tensor(gradient)], keras.ops.convert_to_tensor(0.01))
        keras_own.apply([keras.ops.convert_to_tensor(gradient)], [theirs])
    assert np.allclose(ours.numpy(), theirs.numpy(), atol=1e-5) and not np.allclose(ours.numpy(), start, atol=0.05)


def test_learning_rate_rises_then_falls(smoke):
    settings = smoke.baseline_cnn.model_copy(update={"epochs": 10, "warmup_epochs": 2.0, "learning_rate": 0.1})
    rates = optimizer.learning_rates(settings, steps=5)
    assert len(rates) == 50 and rates.argmax() == 9 and rates.max() == pytest.approx(0.1)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[10:]) < 0).all() and rates[-1] < 1e-3


def test_nan_loss_stops_with_a_remedy(smoke):
    data = images.open_data(smoke, smoke.baseline_cnn.image_size)
    settings = smoke.baseline_cnn.model_copy(update={"learning_rate": float("nan")})
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        training.fit(settings, smoke.augmentation, 1, data.folds)


def test_bfloat16_trains_and_scores_in_float32(smoke):
    data = images.open_data(smoke, smoke.baseline_cnn.image_size)
    settings = smoke.baseline_cnn.model_copy(update={"precision": "bfloat16", "epochs": 1})
    trained = training.fit(settings, smoke.augmentation, 1, data.folds)
    assert trained.card["precision"] == "bfloat16" and trained.model.dtype_policy.name == "float32"
    assert np.isfinite(models.logits(trained.model, data.folds["test"].pixels)).all()


def test_batch_larger_than_the_data_stops(smoke):
    data = images.open_data(smoke, smoke.baseline_cnn.image_size)
    with pytest.raises(UsageError, match="take a smaller batch"):
        training.fit(smoke.baseline_cnn.model_copy(update={"batch_size": 1024}), smoke.augmentation, 1, data.folds)


@pytest.mark.parametrize("backbone", ["MobileNetV2", "VGG16", "DenseNet121", "EfficientNetV2B0"])
def test_other_backbones_answer(smoke, backbone):
    settings = smoke.resnet50v2.model_copy(update={"backbone": backbone, "weights": "none"})
    model = models.build(settings)
    assert model(np.random.default_rng(0).uniform(size=(2, 32, 32, 1)).astype("float32")).shape == (2, 1)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # what Keras says of the wrong file, before it refuses it
def test_weights_file_is_loaded_and_a_wrong_one_refused(smoke, tmp_path):
    settings = smoke.resnet50v2.model_copy(update={"backbone": "MobileNetV2", "weights": str(tmp_path / "w.weights.h5")})
    donor = next(layer for layer in models.build(settings).layers if isinstance(layer, keras.Model))
    donor.save_weights(tmp_path / "w.weights.h5")
    model = models.build(settings)
    assert models.load_weights(model, settings) == settings.weights
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    assert all((a == b).all() for a, b in zip(inner.get_weights(), donor.get_weights(), strict=True))
    other = settings.model_copy(update={"backbone": "VGG16"})
    with pytest.raises(UsageError, match="does not fit VGG16"):
        models.load_weights(models.build(other), other)
    (tmp_path / "w.weights.h5").write_bytes(b"damaged")
    with pytest.raises(UsageError, match="does not fit MobileNetV2"):
        models.load_weights(models.build(settings), settings)


def test_image_under_the_minimum_stops(smoke):
    settings = smoke.resnet50v2.model_copy(update={"backbone": "InceptionV3", "image_size": 32})
    with pytest.raises(UsageError, match="take a larger one"):
        models.build(settings)
