import hashlib

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_utils.data import manifest, phantom


def _bytes(root):
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        phantom.draw_set(tmp_path / name, 120, 64, seed)
    first, again, other = (_bytes(tmp_path / name) for name in "abc")
    assert first == again
    assert {first[name] for name in first if name.endswith(".jpeg")}.isdisjoint(other.values())


def test_layout_balance_and_patients(phantom_root):
    listed = manifest.read_manifest(phantom_root)
    counts = listed.counts()
    assert counts["train"] == {
        "NORMAL": 31,
        "PNEUMONIA": 89,
    }  # 25.7% and 74.3% of 120, as in the real set
    assert counts["val"] == {"NORMAL": 8, "PNEUMONIA": 8}
    assert counts["test"] == {"NORMAL": 11, "PNEUMONIA": 19}
    assert listed.files.groupby("patient")["folder"].nunique().max() == 1
    assert listed.files["patient"].value_counts().max() > 1
    assert set(listed.files["subtype"]) == {"normal", "bacteria", "virus"}


def test_masks_lie_in_the_image_and_mark_every_pneumonia(phantom_root):
    listed = manifest.read_manifest(phantom_root).files
    for row in listed.itertuples():
        mask = (phantom_root / "masks" / row.path).with_suffix(".png")
        assert mask.is_file() == (row.label == "PNEUMONIA")
        if mask.is_file():
            with Image.open(mask) as image:
                assert image.size == (row.width, row.height)
                assert 0 < np.mean(np.asarray(image) > 0) < 0.5


def test_a_consolidation_is_bright_where_its_mask_says():
    """Within the lungs' columns, pixels in the mask are brighter than the same rows of the other
    lung.
    """
    brighter = []
    for patient in range(20):
        pixels, mask, _ = phantom.draw(phantom.Radiograph("", "bacteria", patient, 0), 128, 1)
        mirrored = mask[:, ::-1] & ~mask
        if mirrored.any():
            brighter.append(pixels[mask].mean() > pixels[mirrored].mean())
    assert np.mean(brighter) > 0.8


@pytest.fixture(scope="module")
def shortcuts(tmp_path_factory):
    """Mean, spread, width, height and file bytes of a larger phantom, with labels; train and
    test."""
    root = tmp_path_factory.mktemp("large") / "phantom"
    phantom.draw_set(root, 2000, 128, 1)

    def features(split):
        files = sorted((root / split).glob("*/*.jpeg"))
        rows = []
        for file in files:
            with Image.open(file) as image:
                pixels = np.asarray(image, float)
            rows.append([pixels.mean(), pixels.std(), *pixels.shape, file.stat().st_size])
        return np.array(rows), np.array([file.parent.name == "PNEUMONIA" for file in files])

    return features("train"), features("test")


def test_no_shortcut_in_brightness_spread_size_or_bytes(shortcuts):
    (train, train_labels), (test, test_labels) = shortcuts
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
        train, train_labels
    )
    assert roc_auc_score(test_labels, model.predict_proba(test)[:, 1]) < 0.65
