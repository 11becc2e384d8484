"""Grad-CAM against what the phantom knows: where it drew a consolidation."""

import keras
import numpy as np
import pytest
from PIL import Image

from cxr_utils import profiles
from cxr_utils.data import dataset, phantom
from cxr_utils.models import explanation, networks, weights
from cxr_utils.parameters import Resnet50v2


@pytest.fixture(scope="module")
def data():
    settings = profiles.load(
        "smoke", ["data.source=phantom", "data.phantom_images=800", "data.phantom_size=96"]
    )
    return dataset.open_data(settings, 96)


@pytest.fixture(scope="module")
def trained(data, fit):
    """With few changes to the images and without an average it learns fast."""
    settings = profiles.load(
        "default",
        ["baseline_cnn.epochs=12", "baseline_cnn.average=0", "baseline_cnn.precision=float32"],
    )
    still = dict.fromkeys(
        ("rotation", "stretch", "brightness", "contrast", "gamma", "sharpness", "noise", "rim"), 0.0
    )
    few = settings.augmentation.model_copy(update=still | {"zoom": 0.1})
    return fit(settings.baseline_cnn, few, 1, data.splits).model


def test_no_fixed_place_hits_many_consolidations():
    """Else a map that never looks at its image would pass for one that does."""
    drawn = [phantom.draw(phantom.Radiograph("", "bacteria", n, 0), 96, 1)[1] for n in range(500)]
    masks = [Image.fromarray(mask).resize((96, 96)) for mask in drawn]
    assert (
        explanation.grown(np.array(masks), 8).mean(axis=0).max() <= 0.4
    )  # half of a cell of 6 x 6


def _called(model, data):
    return networks.logits(model, data.splits["test"].pixels) >= 0


@pytest.mark.long
def test_the_peak_is_in_the_consolidation(trained, data):
    """In 80% and more, far more often than the best fixed place."""
    found = explanation.check_on_phantom(trained, data, _called(trained, data))
    print(found)
    assert found.cases >= 40 and found.inside / found.cases >= max(0.8, found.fixed + 0.3)
    assert found.random < found.swapped < found.fixed < 0.5


@pytest.mark.long
def test_shuffled_weights_lose_it(trained, data):
    """The same images, the same layers, each layer's weights in another order: hardly better than
    a peak at random or the maps of other cases."""
    shuffled, pointing = keras.models.clone_model(trained), 0.0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = [rng.permutation(w.ravel()).reshape(w.shape) for w in trained.get_weights()]
        shuffled.set_weights(order)
        found = explanation.check_on_phantom(shuffled, data, _called(trained, data))
        print(found)
        assert found.inside / found.cases <= max(found.random, found.swapped) + 0.1
        pointing += found.swapped
    assert pointing > 0  # a network whose maps are empty would prove nothing


def test_one_map_for_all_images_is_found_out():
    """A map that does not look at its image gains nothing over another case's, however often it
    is inside."""
    maps = np.zeros((50, 6, 6))
    maps[:, 2, 2] = 1.0
    masks = np.zeros((50, 96, 96), bool)
    masks[:40, 36:44, 36:44] = masks[40:, 80:88, 80:88] = True
    found = explanation.check(maps, masks)
    assert found.inside == 40 and found.swapped == pytest.approx(0.8)


def test_the_map_is_the_gradient_times_the_maps(smoke, data):
    """After the last stage of the baseline come the mean over the map and a weighted sum, whose
    weights are the slopes."""
    keras.utils.set_random_seed(0)
    network = networks.build(smoke.baseline_cnn.model_copy(update={"image_size": 96}))
    picture = data.splits["test"].pixels[[0]]
    split = explanation.with_maps(network, explanation.stage)
    maps, logit = split(picture[..., None] / np.float32(255), training=False)
    assert logit.numpy()[:, 0] == pytest.approx(networks.logits(network, picture), abs=1e-4)
    kernel = network.get_layer("head_logit").kernel.numpy()[:, 0]
    expected = np.maximum((maps.numpy()[0] * kernel).sum(axis=-1) / maps.shape[1] ** 2, 0)
    assert expected.any()
    assert explanation.grad_cam(network, picture)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "backbone, size, side",
    [
        ("ResNet50V2", 96, 6),
        ("ResNet50V2", 224, 7),
        ("MobileNetV2", 96, 6),
        ("DenseNet121", 96, 6),
        ("ConvNeXtTiny", 96, 6),
        ("ResNet50V2", 32, 8),
    ],
)
def test_the_stage_is_the_last_that_is_large_enough_and_whole(backbone, size, side):
    """Its map is the smallest of at least 6 x 6 cells, and no path goes around it."""
    model = networks.build(Resnet50v2(backbone=backbone, image_size=size))
    inner = weights.backbone_of(model)
    stage = explanation.stage(inner)
    assert stage.output.shape[1:3] == (side, side)
    if stage is not inner.operations[-1]:
        keras.Model(stage.output, inner.output)  # raises where a path goes around it


def test_a_nested_backbone_is_explained(data):
    model = networks.build(Resnet50v2(backbone="MobileNetV2", image_size=96))
    pixels = data.splits["test"].pixels[:3]
    found = explanation.grad_cam(model, pixels)
    assert found.shape == (3, 6, 6) and np.isfinite(found).all() and (found >= 0).all()
    split = explanation.with_maps(model, explanation.stage)
    assert split(pixels[..., None] / np.float32(255), training=False)[1].numpy()[
        :, 0
    ] == pytest.approx(networks.logits(model, pixels), abs=1e-3)


def test_a_network_without_a_whole_map_of_that_size():
    """NASNet's cells read the last two maps, so no layer has everything pass through it: the
    last map of that size is taken."""
    inner = weights.backbone_of(networks.build(Resnet50v2(backbone="NASNetMobile", image_size=96)))
    assert min(explanation.stage(inner).output.shape[1:3]) in range(6, 12)


def test_places_by_hand():
    maps = np.zeros((4, 6, 6))
    maps[0, 2, 2] = maps[1, 3, 3] = maps[2, 0, 0] = maps[3, 2, 4] = 1.0
    found, chance = explanation.places(maps)
    assert found.tolist() == [0.5, 0.25] and chance == pytest.approx([1 / 3, 20 / 36])


def test_peaks_by_hand():
    maps = np.zeros((3, 6, 6), np.float32)
    maps[0, 1, 1] = maps[1, 5, 5] = 1.0
    masks = np.zeros((3, 96, 96), bool)
    masks[:, 30:44, 30:44] = True
    # The middle of cell (1, 1) is at pixel 24, less than half a cell of 16 px from the mask. Cell
    # (5, 5) is farther; the last map is empty.
    assert (
        explanation.check(maps, masks).inside == 1
        and explanation.check(maps[:1], masks[:1]).inside == 1
    )
    assert explanation.grown(masks, 16)[0].sum() == 46**2
    large = explanation.enlarged(maps, 96)
    assert large.shape == (3, 96, 96) and large[0].argmax() in {
        24 * 96 + 24,
        23 * 96 + 23,
        23 * 96 + 24,
        24 * 96 + 23,
    }
