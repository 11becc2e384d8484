import numpy as np
import pytest

from cxr_utils.data import dataset
from cxr_utils.models import networks, robustness


@pytest.fixture(scope="module")
def fold(smoke):
    return dataset.open_data(smoke, smoke.baseline_cnn.image_size).splits["validation"]


def test_shifts_do_what_their_names_say(fold):
    plain = robustness.shifted(fold.pixels[:], "as it is").numpy()
    assert np.abs(plain[..., 0] * 255 - fold.pixels[:]).max() < 0.1
    shifted = {name: robustness.shifted(fold.pixels[:], name).numpy() for name in robustness.SHIFTS}
    assert all(values.min() >= 0 and values.max() <= 1 for values in shifted.values())

    def edges(values):
        return np.abs(np.diff(values, axis=1)).mean()

    assert edges(shifted["blurred"]) < edges(plain) < edges(shifted["sharper"])
    assert shifted["darker, flat"].mean() < plain.mean() < shifted["brighter, hard"].mean()
    assert shifted["gamma up"].mean() < plain.mean() < shifted["gamma down"].mean()
    assert np.abs(shifted["noisy"] - plain).std() > 0.01


@pytest.mark.parametrize(
    ("shift", "width", "height"),
    [("larger", 1, 1), ("smaller", -1, -1), ("wider", 1, -1), ("narrower", -1, 1)],
)
def test_a_square_changes_its_sides_as_the_name_of_the_shift_says(shift, width, height):
    square = np.zeros((1, 48, 48), np.uint8)
    square[:, 14:34, 14:34] = 255
    (changed,) = robustness.shifted(square, shift).numpy()[..., 0]
    assert np.sign(changed[24].sum() - 20) == width and np.sign(changed[:, 24].sum() - 20) == height


def test_mixed_logits_give_every_image_one_of_the_shifts(smoke, fold):
    model = networks.build(smoke.baseline_cnn)
    mixed = robustness.mixed_logits(model, fold)
    names = list(robustness.SHIFTS)
    for row in (0, 1, len(names) - 1, len(fold) - 1):
        alone = robustness.logits(model, fold, np.array([row]), names[row % len(names)])
        if names[row % len(names)] != "noisy":  # noise depends on the place in the batch
            assert mixed[row] == pytest.approx(alone[0], abs=1e-4)
    assert (robustness.mixed_logits(model, fold) == mixed).all()


def test_log_loss_is_the_cross_entropy():
    logit, labels = np.array([2.0, -1.0, 0.5]), np.array([1, 0, 0])
    scores = 1 / (1 + np.exp(-logit))
    assert robustness.log_loss(logit, labels) == pytest.approx(
        -np.mean(np.log(np.where(labels == 1, scores, 1 - scores)))
    )


def test_other_rim_is_that_of_the_other_class(fold):
    rows = np.arange(len(fold))
    mixed, own = robustness.with_other_border(fold, rows), fold.pixels[rows]
    width = round(robustness.BORDER * own.shape[1])
    inner = slice(width, -width)
    assert (mixed[:, inner, inner] == own[:, inner, inner]).all()
    rim = np.ones(own.shape[1:], bool)
    rim[inner, inner] = False
    for row in rows[:20]:
        donors = [other for other in rows if (own[other][rim] == mixed[row][rim]).all()]
        assert donors and all(fold.labels[donor] != fold.labels[row] for donor in donors)
    assert (robustness.with_other_border(fold, rows[3:5]) == mixed[3:5]).all()
