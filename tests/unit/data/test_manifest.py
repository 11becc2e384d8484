import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_utils import paths
from cxr_utils.data import decoding, manifest
from cxr_utils.data.manifest import parse_name, read_manifest
from cxr_utils.parameters import UsageError


@pytest.mark.parametrize(
    ("stem", "label", "patient", "subtype"),
    [
        ("person12_bacteria_47", "PNEUMONIA", "person12_bacteria", "bacteria"),
        ("person12_virus_47", "PNEUMONIA", "person12_virus", "virus"),
        ("person124_virus_238_1", "PNEUMONIA", "person124_virus", "virus"),
        ("IM-0429-0001-0002", "NORMAL", "IM-0429", "normal"),
        ("NORMAL2-IM-0429-0001", "NORMAL", "NORMAL2-IM-0429", "normal"),
        ("BACTERIA-1008087-0001", "PNEUMONIA", "BACTERIA-1008087", "bacteria"),
        ("NORMAL-1008087-0001", "NORMAL", "NORMAL-1008087", "normal"),
        ("my child", "PNEUMONIA", "my child", "unknown"),
    ],
)
def test_names_carry_patient_and_subtype(stem, label, patient, subtype):
    assert parse_name(stem, label) == (patient, subtype)


def test_unusable_files_are_left_out_and_named(planted):
    normal = planted / "train" / "NORMAL"
    good = next(normal.glob("*.jpeg"))
    (normal / ".DS_Store").write_bytes(b"\0" * 10)
    (normal / "empty.jpeg").touch()
    (normal / "text.jpeg").write_text("not an image")
    (normal / "cut.jpeg").write_bytes(good.read_bytes()[:400])
    (normal / "notes.txt").write_text("by hand")
    (normal / "loop.jpeg").symlink_to("loop.jpeg")
    (normal / "line\rbreak.jpeg").write_bytes(b"")
    (normal / os.fsdecode(b"bad\xff.jpeg")).write_bytes(good.read_bytes())
    before = manifest.read_manifest(planted).left_out.set_index("path")["problem"]
    expected = {
        ".DS_Store",
        "empty.jpeg",
        "text.jpeg",
        "cut.jpeg",
        "notes.txt",
        "loop.jpeg",
        "line\rbreak.jpeg",
        "bad\ufffd.jpeg",
    }
    assert {path.removeprefix("train/NORMAL/") for path in before.index} == expected
    assert before["train/NORMAL/.DS_Store"] == "hidden file"
    again = manifest.read_manifest(planted).left_out.set_index("path")["problem"]
    assert again.equals(before)


def _png_header(side):
    """A PNG that claims to be side x side pixels and holds none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\0\0\0\0IDAT"
    )


def test_odd_files_are_read_right_or_left_out(planted):
    """What users' folders hold: none crashes, none gets another label, and what is left out is
    named.
    """
    sick = planted / "train" / "PNEUMONIA"
    with Image.open(min(sick.glob("*.jpeg"))) as image:
        grey = image.convert("L")
    readable = {
        "cmyk.jpeg": "CMYK",
        "rgba.png": "RGBA",
        "palette.png": "P",
        "deep.png": "I;16",
        "bits.png": "1",
    }
    for name, mode in readable.items():
        grey.convert(mode).save(sick / name)
    odd = [
        "<script>alert(1)</script>.jpeg".replace("/", "-"),
        "two words.jpeg",
        "Lungenentzündung 肺炎.jpeg",
        "line\nbreak.jpeg",
    ]
    for name in odd:
        grey.save(sick / name)
    (sick / "bomb.png").write_bytes(_png_header(30_000))
    (sick / "large.png").write_bytes(_png_header(11_000))
    (sick / "__MACOSX").mkdir()
    (sick / "._person1.jpeg").write_bytes(b"\0\5\x16\7")
    (sick / "loop").symlink_to("loop")
    os.mkfifo(sick / "pipe.jpeg")
    (planted / "__MACOSX" / "train").mkdir(parents=True)
    found = read_manifest(planted)
    used = found.files.set_index("path")
    for name in (*readable, *odd):
        assert used.loc[f"train/PNEUMONIA/{name}", "label"] == "PNEUMONIA", name
    assert used.loc[[f"train/PNEUMONIA/{name}" for name in readable], "mode"].tolist() == list(
        readable.values()
    )
    problems = found.left_out.set_index("path")["problem"]
    assert {path.removeprefix("train/PNEUMONIA/") for path in problems.index} == {
        "bomb.png",
        "large.png",
        "__MACOSX",
        "._person1.jpeg",
        "loop",
        "pipe.jpeg",
    }
    assert (
        problems["train/PNEUMONIA/__MACOSX"] == "folder"
        and "too large" in problems["train/PNEUMONIA/large.png"]
    )
    again = read_manifest(planted)
    assert again.digest == found.digest and again.files.equals(found.files)


def test_a_folder_that_cannot_be_read_stops(planted, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(manifest.os, "scandir", refuse)
    with pytest.raises(
        UsageError,
        match="train/NORMAL: cannot be read \\(Permission denied\\); give yourself access",
    ):
        read_manifest(planted)


def test_too_many_unusable_files_stop(planted):
    for file in sorted((planted / "train" / "NORMAL").glob("*.jpeg"))[:15]:
        file.write_bytes(b"")
    with pytest.raises(UsageError, match="15 of 166 files are unusable"):
        read_manifest(planted)


def test_a_class_without_images_stops(planted):
    for file in (planted / "test" / "NORMAL").glob("*.jpeg"):
        file.unlink()
    with pytest.raises(UsageError, match="no usable image in test/NORMAL"):
        read_manifest(planted)


def test_wrong_folders_stop(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read_manifest(tmp_path / "missing")
    with pytest.raises(UsageError, match="train/NORMAL is missing"):
        read_manifest(tmp_path)


def test_half_a_val_folder_stops(planted):
    shutil.rmtree(planted / "val" / "PNEUMONIA")
    with pytest.raises(UsageError, match="val/PNEUMONIA is missing"):
        read_manifest(planted)


def test_val_may_be_missing(planted):
    shutil.rmtree(planted / "val")
    assert set(read_manifest(planted).counts()) == {"train", "test"}


def test_two_damaged_files_in_a_small_set_are_passed_over(planted):
    for file in sorted((planted / "val" / "NORMAL").glob("*.jpeg"))[:2]:
        file.write_bytes(b"")
    assert len(read_manifest(planted).left_out) == 2


def test_a_changed_file_changes_the_digest(planted):
    before = read_manifest(planted)
    file = next((planted / "train" / "NORMAL").glob("*.jpeg"))
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(file)
    after = read_manifest(planted)
    assert before.digest != after.digest and len(before.files) == len(after.files)


def test_a_rewritten_file_is_read_again(planted):
    """Of the same size, with its time set back; and through a link."""
    file = min((planted / "train" / "NORMAL").glob("*.jpeg"))
    linked = planted.parent / "elsewhere.jpeg"
    shutil.move(file, linked)
    file.symlink_to(linked)
    before, state, content = read_manifest(planted), linked.stat(), linked.read_bytes()
    linked.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    os.utime(linked, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert read_manifest(planted).digest != before.digest


@pytest.mark.parametrize(
    "spoil", [lambda text: "", lambda text: "".join(text.splitlines(keepends=True)[:-3])]
)
def test_a_damaged_list_in_the_cache_is_made_again(planted, spoil, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    before = read_manifest(planted)
    (cached,) = (tmp_path / "cache" / "manifests").glob("*.csv")
    cached.write_text(spoil(cached.read_text()))
    assert read_manifest(planted).digest == before.digest


def test_only_what_has_changed_is_read_again(planted, monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    before, asked = read_manifest(planted), []
    in_parallel = decoding.in_parallel
    monkeypatch.setattr(
        decoding,
        "in_parallel",
        lambda work, items, *rest: asked.extend(items) or in_parallel(work, items, *rest),
    )
    changed, removed, touched = sorted((planted / "train" / "NORMAL").glob("*.jpeg"))[3:6]
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(changed)
    removed.unlink()
    touched.touch()
    after = read_manifest(planted)
    assert [Path(name).name for name in asked] == [changed.name, touched.name]
    assert set(before.files["path"]) - set(after.files["path"]) == {f"train/NORMAL/{removed.name}"}
    same = before.files.merge(after.files, how="inner")
    assert len(same) == len(before.files) - 2  # the removed and the changed one
    shutil.rmtree(paths.cache_folder() / "manifests")
    assert read_manifest(planted).files.equals(after.files)
