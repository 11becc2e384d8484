import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_utils.data import dataset, decoding, phantom
from cxr_utils.data.decoding import Square
from cxr_utils.data.manifest import read_manifest
from cxr_utils.parameters import UsageError


def _save(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def _decode(file, size, fit="squash"):
    return decoding.decode(file.read_bytes(), Square(size, fit))


def _squares(manifest, square):
    """The files of a manifest made square, past the cache."""
    contents = ((manifest.root / name).read_bytes() for name in manifest.files["path"])
    return np.stack([decoding.decode(content, square) for content in contents])


def test_grey_modes_agree(tmp_path):
    """The same picture in every mode decodes to the same grey."""
    grey = Image.fromarray(np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8))
    expected = np.asarray(grey, int)
    for mode in ("RGB", "RGBA", "LA", "P"):
        found = _decode(_save(tmp_path, grey.convert(mode), f"{mode}.png"), 64)
        assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 1, mode
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.abs(_decode(_save(tmp_path, deep, "deep.png"), 64) - expected).max() <= 1
    twelve = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16)
    assert np.abs(_decode(_save(tmp_path, twelve, "twelve.png"), 64) - expected).max() <= 1
    cmyk = _decode(_save(tmp_path, grey.convert("CMYK"), "cmyk.jpeg", quality=100), 64)
    assert np.abs(cmyk - expected).mean() < 3


def test_transparent_pixels_turn_black(tmp_path):
    layers = np.full((32, 32, 4), 255, np.uint8)
    layers[:, :16, 3] = 0
    found = _decode(_save(tmp_path, Image.fromarray(layers)), 32)
    assert found[:, :14].max() == 0 and found[:, 18:].min() == 255


def test_image_is_squashed_whole(tmp_path):
    wide = np.zeros((50, 200), np.uint8)
    wide[:, :100] = 200
    found = _decode(_save(tmp_path, Image.fromarray(wide)), 40)
    assert found.shape == (40, 40) and found[:, :18].min() > 190 and found[:, 22:].max() < 10


def test_decoders_own_scaling_changes_little(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 15), np.uint8).astype(np.uint8))
    file = _save(
        tmp_path, coarse.resize((1500, 1200), Image.Resampling.BICUBIC), "large.jpeg", quality=95
    )
    with Image.open(file) as image:
        whole = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR), int)
    assert np.abs(_decode(file, 96) - whole).mean() < 2


def test_splits_hold_the_files_pixels_and_labels(smoke):
    data = dataset.open_data(smoke, 48)
    assert set(data.splits) == {"train", "validation", "val", "test"}
    for split in data.splits.values():
        assert split.pixels.shape == (len(split), 48, 48)
        assert (split.labels == (split.files["label"] == "PNEUMONIA")).all()
    row = data.splits["test"].files.iloc[7]
    assert (data.splits["test"].pixels[7] == _decode(data.manifest.root / row["path"], 48)).all()


def test_second_start_reads_the_cache(smoke, monkeypatch):
    dataset.open_data(smoke, 48)
    monkeypatch.setattr(decoding, "read", lambda *_: pytest.fail("decoded again"))
    dataset.open_data(smoke, 48)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_fit_keeps_what_it_promises(tmp_path, fit):
    """A wide film with a mark at its left border and a disc in its middle."""
    down, across = np.mgrid[:100, :200]
    film = np.where(np.hypot(down - 50, across - 100) < 30, 200, 50).astype(np.uint8)
    film[:, :20] = 255
    found = _decode(_save(tmp_path, Image.fromarray(film)), 60, fit)
    disc = (found > 150) & (found < 230)
    height, width = np.ptp(np.nonzero(disc)[0]), np.ptp(np.nonzero(disc[25:35, 10:])[1])
    assert (found[20:40, :3] > 240).all() == (fit != "crop")
    assert (found[:10] == 0).all() == (fit == "pad")
    assert abs(height / width - {"squash": 2, "crop": 1, "pad": 1}[fit]) < 0.25


def test_exif_rotation_is_done(tmp_path):
    upright = np.zeros((40, 40), np.uint8)
    upright[:20] = 200
    turned = Image.fromarray(np.rot90(upright))  # as a camera held sideways stores it
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("x.jpeg", "x.png"):
        found = _decode(_save(tmp_path, turned, name, exif=exif), 40)
        assert found[:18].min() > 180 and found[22:].max() < 20, name


def test_an_animation_counts_by_its_first_picture(tmp_path):
    first, second = (Image.fromarray(np.full((32, 32), value, np.uint8)) for value in (200, 10))
    file = _save(tmp_path, first, "moving.png", save_all=True, append_images=[second])
    assert (_decode(file, 32) == 200).all()


def test_more_squares_at_once_are_those_made_alone(tmp_path):
    rng = np.random.default_rng(0)
    file = _save(
        tmp_path, Image.fromarray(rng.integers(0, 255, (500, 700)).astype(np.uint8)), "film.jpeg"
    )
    both = decoding.read(file.read_bytes(), [Square(200), Square(48)])
    assert (both.width, both.height, both.mode) == (700, 500, "L")
    assert (both.squares[0] == _decode(file, 200)).all() and (
        both.squares[1] == _decode(file, 48)
    ).all()


@pytest.mark.parametrize(
    "spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-100])]
)
def test_a_spoilt_cache_is_made_again(smoke, spoil):
    before = dataset.open_data(smoke, 40)
    expected = _squares(before.manifest, Square(40))
    spoil(decoding.cached_at(before.manifest.digest, Square(40)))
    assert (dataset.open_data(smoke, 40).stored == expected).all()


def test_squares_of_one_pass_are_those_of_each_alone(planted):
    """With a file left out in the middle, after which the others move up."""
    (planted / "train" / "NORMAL" / "A.jpeg").write_bytes(b"damaged")
    manifest = read_manifest(planted, [Square(24), Square(36, "crop")])
    for square in (Square(24), Square(36, "crop")):
        stored = np.fromfile(decoding.cached_at(manifest.digest, square), np.uint8).reshape(
            -1, square.size, square.size
        )
        assert (stored == _squares(manifest, square)).all()


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_results_come_in_order_and_errors_come_through(monkeypatch, workers):
    if workers == "threads":
        monkeypatch.setattr(decoding.sys, "platform", "elsewhere")
    assert list(decoding.in_parallel(str, range(200), "")) == [str(number) for number in range(200)]
    with pytest.raises(ZeroDivisionError):
        list(decoding.in_parallel((1).__truediv__, [1, 0], ""))


def test_a_file_that_changes_meanwhile_does_not_spoil_the_cache(planted):
    manifest = read_manifest(planted)
    file = planted / manifest.files["path"][3]
    content = file.read_bytes()
    file.write_bytes((planted / manifest.files["path"][4]).read_bytes())
    with pytest.raises(UsageError, match="changed while the data was read; run again"):
        dataset.load_pixels(manifest, Square(33))
    file.write_bytes(content)
    assert (dataset.load_pixels(manifest, Square(33))[3] == _decode(file, 33)).all()


PREPARE = """
import sys
from cxr_utils import cli
sys.exit(cli.guarded(cli.main, ["data", sys.argv[1]]))
"""


def _prepare(root, cache):
    command = [sys.executable, "-c", PREPARE, str(root)]
    environment = os.environ | {"CXR_CACHE": str(cache)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def test_two_processes_prepare_at_once(phantom_root, tmp_path):
    both = [_prepare(phantom_root, tmp_path) for _ in range(2)]
    printed = {process.communicate(timeout=300)[0] for process in both}
    assert len(printed) == 1 and all(process.returncode == 0 for process in both)
    assert len(list((tmp_path / "pixels").iterdir())) == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Takes long enough to prepare that it can be stopped meanwhile."""
    phantom.draw_set(root := tmp_path_factory.mktemp("drawn") / "large", 400, 256, 1)
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGKILL", -9)])
def test_no_worker_outlives_a_preparation_that_was_stopped(large, tmp_path, name, code):
    process = _prepare(large, tmp_path / "cache")
    while not list((tmp_path / "cache").glob("pixels/*.part")) and process.poll() is None:
        time.sleep(0.01)
    if name == "SIGTERM":
        os.killpg(process.pid, signal.SIGTERM)  # the whole group, as batch systems do
    else:
        process.kill()
    process.communicate(timeout=60)
    assert process.returncode == code
    deadline = time.monotonic() + 10
    while _of_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _of_session(process.pid)
    done = _prepare(large, tmp_path / "cache")
    done.communicate(timeout=300)
    assert done.returncode == 0 and not list((tmp_path / "cache").glob("pixels/*.part"))


def _of_session(session):
    """Processes of a session that are still alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = entry.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(entry.parent.name)
    return found


MEASURE = """
import resource, sys
from cxr_utils import profiles
from cxr_utils.data import dataset
asked = ["data.phantom_size=64", "data.phantom_images=" + sys.argv[1]]
data = dataset.open_data(profiles.load("default", asked, "phantom"), 224)
everyone = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
peak = max(resource.getrusage(who).ru_maxrss for who in everyone)
def held():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
before = held()
for split in data.splits.values():
    for start in range(0, len(split), 32):
        split.pixels[start : start + 32].sum()
print(peak, before, held())
"""


def _memory(images_drawn):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(images_drawn)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(kilobytes) for kilobytes in done.stdout.split()]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_images():
    """Ten times as many: 131 MB of pixels more. Neither preparing nor reading them holds them in
    memory.
    """
    few, many = _memory(230), _memory(2300)
    assert many[0] <= 1.2 * few[0]
    assert many[2] - many[1] < 10_000  # kB, while every image is read once
