import numpy as np
import pytest
import tensorflow as tf

from cxr_utils.data import dataset
from cxr_utils.models import augmentation
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

    def epoch(batches, number):
        batches.begin(number)
        assert len(batches) == len(train) // 8
        shown = []
        for images, labels in batches:
            grey = np.rint(images[..., 0] * 255).astype(np.uint8)
            shown += [(image.tobytes(), label) for image, label in zip(grey, labels, strict=True)]
        return shown

    off = Augmentation(**OFF)
    batches = augmentation.Batches(train, 8, off, seed=1)
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert first != second == epoch(augmentation.Batches(train, 8, off, seed=1), 1)
    assert all(label_of[image] == label for image, label in first + second)
    assert len({image for image, _ in first}) >= 0.95 * len(first)  # the phantom may repeat one


def test_changes_differ_from_step_to_step_and_follow_the_seed(smoke):
    train = dataset.open_data(smoke, 32).splits["train"]
    seeds = [augmentation.Batches(train, 8, Augmentation(), seed)[0][0] for seed in (1, 1, 2)]
    assert (seeds[0] == seeds[1]).all() and not (seeds[0] == seeds[2]).all()
    weights = augmentation.Batches(train, 8, Augmentation(), 1).class_weight
    positive = train.labels.mean()
    assert weights[0] * (1 - positive) == pytest.approx(weights[1] * positive)
