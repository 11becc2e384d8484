"""Reads one file as the training films were read, or says why it cannot be read."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..files import one_line
from . import decoding, dicom
from .decoding import Square
from .manifest import MOST_BYTES

JPEG = b"\xff\xd8"  # the first bytes of such files
FORMATS = ("JPEG", "PNG", "TIFF")
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", *dicom.SUFFIXES)


class Film(NamedTuple):
    """A film as it was read, or why it was not."""

    path: str  # as it was found
    sha256: str = ""  # of the file; empty where it could not be read
    squares: Sequence[np.ndarray] = ()  # uint8, (size, size), in each way that was asked for
    concern: str = ""  # why no answer for it can be sure
    error: str = ""  # why there are no squares


def is_film(file: Path) -> bool:
    """Tell a film by its ending; where that is none, or a number, by its first bytes."""
    if file.suffix.strip(".0123456789"):
        return file.suffix.lower() in SUFFIXES
    try:
        with file.open("rb") as content:
            return dicom.is_dicom(content.read(dicom.PREAMBLE))
    except OSError:
        return True


def read(path: Path, squares: Sequence[Square]) -> Film:
    """Read a film and make it square in each way that is asked for; never raises."""
    name, digest = str(path).encode(errors="replace").decode(), ""
    try:
        if not path.is_file():
            there = os.path.lexists(path)
            raise ValueError("not a regular file" if there else "there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES / 1e6:.0f} MB: too large to be an X-ray")
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if dicom.is_dicom(content) or path.suffix.lower() in dicom.SUFFIXES:
            image, concern = dicom.read(content)
            return Film(name, digest, [decoding.fitted(image, one) for one in squares], concern)
        if not content.startswith(JPEG):  # the others may hold several pictures
            with Image.open(path, formats=FORMATS) as opened:
                if opened.mode.startswith("I;16") and getattr(opened, "tag_v2", {}).get(262) == 0:
                    raise ValueError("16-bit WhiteIsZero TIFF is not supported; save it as PNG")
                if (pages := getattr(opened, "n_frames", 1)) > 1:
                    raise ValueError(f"{pages} pages or frames; one image per file is needed")
        return Film(name, digest, decoding.read(content, squares).squares)
    except Image.DecompressionBombError:
        error = "too large to be an X-ray"
    except Image.UnidentifiedImageError:
        error = "not an image (JPEG, PNG, TIFF or DICOM)"
    except OSError as failed:
        error = f"cannot be read ({failed.strerror or one_line(failed)})"
    except ValueError as failed:
        error = one_line(str(failed))
    except Exception as failed:  # of many kinds, by decoders: the other films go on
        error = f"cannot be read ({type(failed).__name__})"
    return Film(name, digest, error=error)
