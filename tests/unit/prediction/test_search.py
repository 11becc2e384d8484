"""The films that a user names: files, folders, patterns, and names on standard input."""

import itertools
import os

import pytest

from cxr_utils.prediction import search


@pytest.fixture
def tree(tmp_path):
    for name in (
        "a.png",
        "b.JPEG",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "in/c.dcm",
        "in/deep/d.tif",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def _found(asked, tree, listed=()):
    found = search.find([str(one) for one in asked], iter(listed))
    return sorted(os.path.relpath(file, tree) for file in found)


def test_folders_give_their_films(tree):
    assert _found([tree], tree) == ["a.png", "b.JPEG", "in/c.dcm", "in/deep/d.tif"]
    assert _found([tree / "in", tree / "notes.txt"], tree) == [
        "in/c.dcm",
        "in/deep/d.tif",
        "notes.txt",
    ]


def test_patterns(tree):
    assert _found([tree / "*.png"], tree) == ["a.png"]
    assert _found([tree / "in" / "*"], tree) == ["in/c.dcm"]
    assert _found([tree / "*.bmp"], tree) == ["*.bmp"]  # its answer says that there is none
    for name in ("odd1.png", "odd[1].png"):
        (tree / name).write_bytes(b"x")
    assert _found([tree / "odd[1].png"], tree) == ["odd[1].png"]
    assert _found([tree / ("x" * 300)], tree) == ["x" * 300]


def test_names_on_standard_input_are_taken_as_they_come(tree):
    def lines():
        yield f"{tree}/a.png\n"
        yield "\n"
        yield f"{tree}/with space \r\n"
        raise AssertionError("the next line was asked for too early")

    found = search.find(["-"], lines())
    assert [path.name for path in itertools.islice(found, 2)] == ["a.png", "with space "]


def test_loops_of_links_end(tree):
    (tree / "in" / "again").symlink_to(tree)
    (tree / "self").symlink_to(tree / "self")
    assert _found([tree], tree) == ["a.png", "b.JPEG", "in/c.dcm", "in/deep/d.tif"]


def test_a_folder_is_walked_as_its_films_are_used(tree, monkeypatch):
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: opened.append(folder) or scandir(folder))
    (tree / "in" / "e").mkdir()
    next(search.find([str(tree / "in")], iter(())))
    assert len(opened) <= 3


def test_a_folder_that_cannot_be_opened_gets_an_answer(tree, monkeypatch):
    scandir = os.scandir

    def refused(folder):
        if str(folder).endswith("deep"):
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    assert _found([tree], tree) == ["a.png", "b.JPEG", "in/c.dcm", "in/deep"]
