"""What a network still knows where parts of a film are hidden.

Zeiler and Fergus 2014, arXiv:1311.2901, hid one small square at a time; here it is the border, the
middle third or the outer thirds, which stand for rough anatomy in an upright chest X-ray.
"""

import keras
import numpy as np

from ..data.dataset import Pixels
from . import networks

BORDER = 1 / 8  # of the side: markers, collimator edges, hardly any lung
PARTS = ("border", "middle third", "outer thirds")
VIEWS = ("the whole film", *(f"only the {part}" for part in PARTS), *(
    f"without the {part}" for part in PARTS
))  # fmt: skip


def part(name: str, size: int) -> np.ndarray:
    """Return where one of `PARTS` is, which cover a film between them; bool, shape (size, size).

    The ``border`` is the outer eighth on all sides. Of what it encloses, the ``middle third`` of
    the film's width holds spine, heart and the inner part of the lungs, and the ``outer thirds``
    the rest of the lungs.
    """
    place = np.arange(size)
    inside = (place >= round(BORDER * size)) & (place < size - round(BORDER * size))
    enclosed = inside[:, None] & inside[None, :]
    middle = ((place >= size / 3) & (place < 2 * size / 3))[None, :]
    named = {"border": ~enclosed, "middle third": enclosed & middle}
    return named.get(name, enclosed & ~middle)


def seen(pixels: np.ndarray, view: str) -> np.ndarray:
    """Return films as one of `VIEWS` shows them; uint8, shape (n, size, size).

    What is hidden has the mean grey value of what is in view: that of the whole film would tell
    something of the part that is hidden.
    """
    if view == VIEWS[0]:
        return pixels
    how, _, name = view.partition(" the ")
    hidden = part(name, pixels.shape[1]) ^ (how == "only")
    mean = pixels[:, ~hidden].mean(axis=1).round().astype(np.uint8)
    return np.where(hidden, mean[:, None, None], pixels)


def logits(model: keras.Model, pixels: Pixels) -> dict[str, np.ndarray]:
    """Return a network's logits of films in each of `VIEWS`; float64, shape (n,)."""
    films = pixels[:]
    return {view: networks.logits(model, seen(films, view)) for view in VIEWS}
