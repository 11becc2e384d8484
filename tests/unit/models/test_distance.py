"""Films unlike the training films are known, and others are not taken for such."""

import numpy as np
import pytest
from PIL import Image
from sklearn.covariance import ledoit_wolf

from cxr_utils.models import distance
from cxr_utils.models.distance import CHANGES, TrainingFilms


def _features(films):
    """Stands for a network's: means over blocks of the film, of two sizes."""
    parts = [films.reshape(len(films), n, 64 // n, n, 64 // n).mean((2, 4)) for n in (4, 2)]
    return np.hstack([part.reshape(len(films), -1) for part in parts]).astype(np.float32) / 255


@pytest.fixture(scope="module")
def films():
    """SYNTHETIC: two dark lungs beside a bright spine, each a little elsewhere."""
    rng, rows = np.random.default_rng(0), np.arange(64)
    y, x = np.meshgrid(rows, rows, indexing="ij")
    made = []
    for _ in range(500):
        (dy, dx), wide = rng.normal(0, 2, 2), rng.normal(9, 1)
        lungs = sum(
            np.exp(-(((x - 32 - dx - side) / wide) ** 2) - ((y - 26 - dy) / 18) ** 2)
            for side in (-14, 14)
        )
        film = 190 - 130 * lungs + 40 * (y > 54 + dy) + rng.normal(0, 6, (64, 64))
        made.append(np.clip(film, 0, 255))
    return np.array(made, np.uint8)


@pytest.fixture(scope="module")
def fitted(films):
    train, validation = films[:300], films[300:400]
    known = [(part, _features(part)) for part in (train, validation)]
    return TrainingFilms.fit(known[0], known[1], [16, 4])


def _doubts(fitted, films):
    films = np.ascontiguousarray(films)
    tiny = distance.small(films)
    far = fitted.distance(tiny, _features(films))
    return fitted.doubts(films, tiny, far), far


def test_unseen_films_are_taken_for_films(fitted, films):
    doubts, far = _doubts(fitted, films[400:])
    assert np.mean([doubt != "" for doubt in doubts]) <= 0.06
    assert 0.3 < np.median(far) < 1


@pytest.mark.parametrize("change", list(CHANGES)[1:])
def test_a_changed_film_is_doubted_and_the_change_is_named(fitted, films, change):
    doubts, _ = _doubts(fitted, CHANGES[change](films[400:]))
    assert np.mean([doubt != "" for doubt in doubts]) >= 0.95
    if change not in ("only its left half", "only its right half"):  # mirror images here
        assert np.mean([change in doubt for doubt in doubts]) > 0.8


def test_other_pictures_are_unlike(fitted):
    noise = np.random.default_rng(1).integers(0, 256, (20, 64, 64), np.uint8)
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (20, 64, 1))
    for pictures in (noise, ramp):
        doubts, far = _doubts(fitted, pictures)
        assert all(doubt.startswith(distance.UNLIKE) for doubt in doubts) and far.min() > 1
    assert _doubts(fitted, np.full((1, 64, 64), 80, np.uint8))[0] == ["blank"]


def test_what_is_saved_judges_alike(fitted, films, tmp_path):
    fitted.save(tmp_path / "films.npz")
    doubts, far = _doubts(TrainingFilms.load(tmp_path / "films.npz"), films[380:])
    expected = _doubts(fitted, films[380:])
    assert doubts == expected[0] and np.array_equal(far, expected[1])


def test_the_distance_is_mahalanobis(films):
    features = _features(films[:300])
    one = distance.Gaussian.fit(features)
    gap = features[7] - features.mean(axis=0)
    shrunk = ledoit_wolf(features)[0]
    squared, log_det = gap @ np.linalg.inv(shrunk) @ gap, np.linalg.slogdet(shrunk)[1]
    assert one.distance(features[7:8])[0] == pytest.approx(np.sqrt(squared), rel=1e-3)
    assert one.log_det == pytest.approx(log_det)


def test_small_films_are_standardised(films):
    tiny = distance.small(films[:5])
    assert tiny.shape == (5, 256) and np.abs(tiny.mean(axis=1)).max() < 1e-4
    darker = distance.small((films[:5] * 0.5).astype(np.uint8))
    assert np.abs(darker - tiny).max() < 0.1
    box = np.asarray(Image.fromarray(films[0]).reduce(4), np.float32)
    assert np.corrcoef(box.ravel(), tiny[0])[0, 1] > 0.999
