import numpy as np
import pytest
from PIL import Image

from cxr_utils import images


def _save(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_grey_modes_agree(tmp_path):
    """The same picture in every mode decodes to the same grey."""
    grey = Image.fromarray(np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8))
    expected = np.asarray(grey, int)
    for mode in ("RGB", "RGBA", "LA", "P"):
        found = images.decode(_save(tmp_path, grey.convert(mode), f"{mode}.png"), 64)
        assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 1, mode
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.abs(images.decode(_save(tmp_path, deep, "deep.png"), 64) - expected).max() <= 1
    cmyk = images.decode(_save(tmp_path, grey.convert("CMYK"), "cmyk.jpeg", quality=100), 64)
    assert np.abs(cmyk - expected).mean() < 3


def test_transparent_pixels_turn_black(tmp_path):
    layers = np.full((32, 32, 4), 255, np.uint8)
    layers[:, :16, 3] = 0
    found = images.decode(_save(tmp_path, Image.fromarray(layers)), 32)
    assert found[:, :14].max() == 0 and found[:, 18:].min() == 255


def test_image_is_squashed_whole(tmp_path):
    wide = np.zeros((50, 200), np.uint8)
    wide[:, :100] = 200
    found = images.decode(_save(tmp_path, Image.fromarray(wide)), 40)
    assert found.shape == (40, 40) and found[:, :18].min() > 190 and found[:, 22:].max() < 10


def test_decoders_own_scaling_changes_little(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 15), np.uint8).astype(np.uint8))
    file = _save(tmp_path, coarse.resize((1500, 1200), Image.Resampling.BICUBIC), "large.jpeg", quality=95)
    with Image.open(file) as image:
        whole = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR), int)
    assert np.abs(images.decode(file, 96) - whole).mean() < 2


def test_folds_hold_the_files_pixels_and_labels(smoke):
    data = images.open_data(smoke, 48)
    assert set(data.folds) == {"train", "validation", "val", "test"}
    for fold in data.folds.values():
        assert fold.pixels.shape == (len(fold), 48, 48)
        assert (fold.labels == (fold.files["label"] == "PNEUMONIA")).all()
    row = data.folds["test"].files.iloc[7]
    assert (data.folds["test"].pixels[7] == images.decode(data.manifest.root / row["path"], 48)).all()


def test_second_start_reads_the_cache(smoke, monkeypatch):
    images.open_data(smoke, 48)
    monkeypatch.setattr(images, "decode", lambda *_: pytest.fail("decoded again"))
    images.open_data(smoke, 48)
