"""One film in one file: made square as the training films were, or an error in its place."""

import hashlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxr_utils.data import decoding, films
from cxr_utils.data.decoding import Square

SQUARES = [Square(48), Square(32, "pad")]


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)


@pytest.mark.parametrize("name", ["film.png", "film.tif", "film.TIFF", "film.jpeg"])
def test_a_film_is_made_square_as_the_training_films_are(tmp_path, grey, name):
    file = tmp_path / name
    Image.fromarray(grey).save(file)
    film = films.read(file, SQUARES)
    assert film.path == str(file) and film.error == film.concern == ""
    assert film.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    for made, square in zip(film.squares, SQUARES, strict=True):
        assert np.array_equal(made, decoding.decode(file.read_bytes(), square))


def test_deep_greys_and_colours(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "film.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save(tmp_path / "deep.tif")
    Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(tmp_path / "colour.png")
    made = [films.read(file, SQUARES).squares for file in sorted(tmp_path.iterdir())]
    assert all(np.array_equal(made[0][n], other[n]) for other in made for n in (0, 1))


def _huge(file):
    """A PNG that says it has 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(100))):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    file.write_bytes(content)


def _pages(file):
    pages = [Image.new("L", (60, 60), grey) for grey in (0, 99)]
    pages[0].save(file, format="TIFF", save_all=True, append_images=pages[1:])


def _bitmap(file):
    Image.new("L", (60, 60)).save(file, format="BMP")


def _white_is_zero(file):
    Image.new("I;16", (60, 60)).save(file, format="TIFF", tiffinfo={262: 0})


BAD = [
    ("there is no such file", lambda file: None),
    ("not a regular file", lambda file: file.mkdir()),
    ("not a regular file", os.mkfifo),
    ("not a regular file", lambda file: file.symlink_to(file)),
    ("not an image", lambda file: file.write_bytes(b"")),
    ("not an image", lambda file: file.write_text("a page of text")),
    ("not an image", _bitmap),
    ("16-bit WhiteIsZero TIFF", _white_is_zero),
    ("too large to be an X-ray", _huge),
    ("2 pages or frames", _pages),
    ("no pixel data", lambda file: file.write_bytes(bytes(128) + b"DICM" + bytes(40))),
]


@pytest.mark.parametrize(("said", "make"), BAD)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, said, make):
    file = tmp_path / "film.tif"
    make(file)
    film = films.read(file, SQUARES)
    assert said in film.error and "\n" not in film.error and not film.squares


def test_a_film_that_is_cut_short(tmp_path, grey):
    file = tmp_path / "film.jpeg"
    Image.fromarray(grey).save(file)
    file.write_bytes(file.read_bytes()[:1200])
    assert films.read(file, SQUARES).error.startswith("cannot be read (")


def test_a_name_that_is_not_utf8_can_be_written(tmp_path, grey):
    file = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.fromarray(grey).save(file)
    film = films.read(file, SQUARES)
    assert not film.error and film.path.encode() and film.path.endswith("caf?.png")


def test_films_are_known_by_name_or_by_their_first_bytes(tmp_path):
    (tmp_path / "README").write_text("no film")
    for name in ("IM0001", "1.2.840.113619.2"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    names = ("IM0001", "1.2.840.113619.2", "README", "a.DCM", "a.txt")
    known = [films.is_film(tmp_path / name) for name in names]
    assert known == [True, True, False, True, False]
