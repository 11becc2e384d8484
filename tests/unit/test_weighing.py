"""Weights that take from looks what they say of the label: on SYNTHETIC phantoms with a planted shortcut."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxr_utils import calibration, images, params, shortcuts, weighing


@pytest.fixture(scope="module")
def plain():
    return images.open_data(params.load("smoke", ["data.source=phantom", "data.phantom_images=300"]), 64)


@pytest.fixture
def darkened(plain, tmp_path):
    """Most PNEUMONIA images are made darker, and few NORMAL ones: brightness says a lot of the label."""
    rng = np.random.default_rng(0)
    for file in plain.manifest.files.itertuples():
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(Image.open(plain.manifest.root / file.path).convert("L"), np.float32)
        dark = rng.random() < (0.8 if file.label == "PNEUMONIA" else 0.2)
        Image.fromarray((grey * (0.7 if dark else 1.0)).astype(np.uint8)).save((tmp_path / file.path).with_suffix(".png"))
    return images.open_data(params.load("smoke", [], str(tmp_path)), 64)


def _reach(data, fold, trait, weighed):
    rows = (data.files["fold"] == fold).to_numpy()
    weights = data.folds[fold].weights if weighed else None
    return roc_auc_score(data.folds[fold].labels, shortcuts.traits(data)[trait][rows], sample_weight=weights)


def test_weights_take_the_shortcut_away(darkened):
    data = weighing.weigh(darkened, 10.0)
    assert _reach(data, "train", "brightness", weighed=False) < 0.3
    assert 0.35 < _reach(data, "train", "brightness", weighed=True) < 0.65
    table = weighing.reach_of_looks(data).set_index("trait")
    assert table.loc["brightness", "as it is"] == _reach(data, "train", "brightness", weighed=False)
    assert table.loc["brightness", "weighed"] == _reach(data, "train", "brightness", weighed=True)


def test_classes_keep_their_share_and_test_is_never_weighed(darkened):
    data = weighing.weigh(darkened, 10.0)
    for name, fold in data.folds.items():
        for label in (0, 1):
            assert fold.weights[fold.labels == label].mean() == pytest.approx(1)
        assert (fold.weights == 1).all() == (name in ("test", "val"))
    assert data.folds["train"].weights.max() < 20


def test_who_asks_for_none_gets_none(darkened, smoke):
    assert weighing.weigh(darkened, 0) is darkened
    few = images.open_data(params.load("smoke", ["data.source=phantom", "data.validation_fraction=0.4"]), 64)
    assert weighing.weigh(few, 6.0).folds.keys() == few.folds.keys()


def test_choices_follow_the_weights():
    """A weight of two is as good as the image twice."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    logits = 2 * labels - 1 + rng.normal(size=200) * 1.5
    weights = rng.integers(1, 4, 200)
    again = np.repeat(np.arange(200), weights)
    assert calibration.fit_temperature(logits, labels, weights) == pytest.approx(calibration.fit_temperature(logits[again], labels[again]))
    scores = calibration.calibrated(logits, 1.0)
    assert calibration.thresholds(labels, scores, 0.9, weights) == pytest.approx(calibration.thresholds(labels[again], scores[again], 0.9))
