import dataclasses

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from cxr_utils.data import dataset
from cxr_utils.models import augmentation, training
from cxr_utils.models.augmentation import augment, to_float
from cxr_utils.parameters import Augmentation

KINDS = [name for name in Augmentation.model_fields if name not in ("flip", "rim")]
OFF = {"flip": False, "rim": 0.0} | dict.fromkeys(KINDS, 0.0)


@pytest.fixture(scope="module")
def batch():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 24, 24)).astype(np.uint8)
    return to_float(tf.constant(pixels))


def test_all_off_changes_nothing(batch):
    assert np.allclose(augment(batch, Augmentation(**OFF), [1, 2]), batch, atol=2e-4)


def test_range_and_shape_are_kept(batch):
    wild = Augmentation(
        flip=True,
        rotation=45.0,
        shift=0.5,
        zoom=0.5,
        stretch=0.5,
        brightness=1.0,
        contrast=0.9,
        gamma=0.9,
        sharpness=1.0,
        noise=0.5,
        rim=1.0,
    )
    changed = augment(batch, wild, [1, 2]).numpy()
    assert (
        changed.shape == batch.shape
        and changed.min() >= 0
        and changed.max() <= 1
        and np.isfinite(changed).all()
    )


def test_flip_mirrors_about_half_of_the_images(batch):
    changed = augment(batch, Augmentation(**OFF | {"flip": True}), [1, 2]).numpy()
    same = np.isclose(changed, batch, atol=2e-4).all(axis=(1, 2, 3))
    mirrored = np.isclose(changed, batch[:, :, ::-1], atol=2e-4).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all() and 16 < mirrored.sum() < 48


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_images(batch, kind):
    changed = augment(batch, Augmentation(**OFF | {kind: 0.3}), [1, 2]).numpy()
    moved = np.abs(changed - batch).reshape(64, -1).max(axis=1) > 1e-4
    assert moved.mean() > 0.9


def test_same_seed_same_changes(batch):
    first, again, other = (
        augment(batch, Augmentation(), seed).numpy() for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert (first == again).all() and (first != other).any()


def test_rims_come_from_the_image_before(batch):
    """The middle stays, some of the rim is another image's, pixel for pixel; about the share
    that was asked for is changed."""
    changed = augment(batch, Augmentation(**OFF | {"rim": 1.0}), [1, 2]).numpy()[..., 0]
    own = batch.numpy()[..., 0]
    other = np.roll(own, 1, axis=0)
    assert np.allclose(changed[:, 6:-6, 6:-6], own[:, 6:-6, 6:-6], atol=2e-4)
    assert (np.isclose(changed, own, atol=2e-4) | np.isclose(changed, other, atol=2e-4)).all()
    assert (np.abs(changed - own).max(axis=(1, 2)) > 0.01).all()
    half = augment(batch, Augmentation(**OFF | {"rim": 0.5}), [1, 2]).numpy()[..., 0]
    assert 16 < (np.abs(half - own).max(axis=(1, 2)) > 0.01).sum() < 48


def test_an_epoch_shows_each_image_once_with_its_label(smoke):
    """Full batches in an order of each epoch's own; a label that comes with an image is that
    image's."""
    train = dataset.open_data(smoke, 32).splits["train"]
    keys = [image.tobytes() for image in train.pixels[:]]
    label_of = dict(zip(keys, train.labels, strict=True))

    def epoch(seed, number):
        shown = []
        off = Augmentation(**OFF)
        for images, labels in augmentation.batches(train, 8, off, seed, range(number, number + 1)):
            grey = np.rint(images[..., 0] * 255).astype(np.uint8)
            shown += [(image.tobytes(), int(n)) for image, n in zip(grey, labels, strict=True)]
        assert len(shown) == len(train) // 8 * 8
        return shown

    first, second = epoch(1, 0), epoch(1, 1)
    assert first != second == epoch(1, 1) != epoch(2, 1)
    assert all(label_of[image] == label for image, label in first + second)
    assert len({image for image, _ in first}) >= 0.95 * len(first)  # the phantom may repeat one


def test_changes_differ_from_epoch_to_epoch_and_follow_the_seed(smoke):
    """An epoch is the same whether it comes first, after a stop, or after others."""
    train = dataset.open_data(smoke, 32).splits["train"]
    steps = len(train) // 8

    def shown(seed, *epochs):
        found = augmentation.batches(train, 8, Augmentation(), seed, range(*epochs))
        return np.stack([images for images, _ in found])

    whole = shown(1, 0, 2)
    assert len(whole) == 2 * steps and (whole[steps:] == shown(1, 1, 2)).all()
    assert not (whole == shown(2, 0, 2)).all()


def test_class_weights_let_both_classes_weigh_alike(smoke):
    train = dataset.open_data(smoke, 32).splits["train"]
    weights, positive = training.class_weight(train), train.labels.mean()
    assert weights[0] * (1 - positive) == pytest.approx(weights[1] * positive)


@pytest.mark.parametrize(
    ("times", "expected"), [(5, [1, 3, 5, 1]), (2, [1, 1, 2, 1]), (1, [1] * 4)]
)
def test_films_that_look_like_the_other_class_are_shown_more_often(times, expected):
    """By P(own class): sure, doubtful, contradicting, not known."""
    files = pd.DataFrame({"label": "NORMAL", "own_class": [0.9, 0.7, 0.3, np.nan]})
    stored = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    split = dataset.split_of(
        files.set_axis([2, 3, 4, 5]).reindex(range(6)), stored, np.arange(2, 6)
    )
    found = augmentation.oversampled(split, times)
    assert found.files["own_class"].value_counts(dropna=False, sort=False).tolist() == expected
    assert len(found) == len(found.pixels) == sum(expected)
    seen = dict(zip(found.pixels[:][:, 0, 0].tolist(), found.files["own_class"], strict=True))
    assert seen == pytest.approx({2: 0.9, 3: 0.7, 4: 0.3, 5: np.nan}, nan_ok=True)


@pytest.mark.parametrize("step", ["baseline_cnn", "resnet50v2"])
def test_notebooks_show_them_so(smoke, fit, monkeypatch, step):
    """The training of both is fed with what `oversampled` returns."""
    section = smoke.sections[step].model_copy(update={"oversampling": 3})
    splits, fed = dataset.open_data(smoke, section.image_size).splits, []
    files = splits["train"].files.assign(own_class=0.1)
    splits = splits | {"train": dataclasses.replace(splits["train"], files=files)}

    def stop(split, *_):
        fed.append(len(split))
        raise InterruptedError

    monkeypatch.setattr(augmentation, "batches", stop)
    with pytest.raises(InterruptedError):
        fit(section, smoke.augmentation, 1, splits)
    assert fed == [3 * len(splits["train"])]
