"""What a network still knows where parts of the film are hidden, which needs no map of evidence.

Zeiler and Fergus 2014, arXiv:1311.2901, hid a small square at a time; here it is what an upright
chest X-ray holds by rough anatomy.
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
    the film's width holds spine, heart and large vessels, and the ``outer thirds`` most of the
    lungs.
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


def logits(model: keras.Model, pixels: Pixels, flips: bool = False) -> dict[str, np.ndarray]:
    """Return a network's logits of films in each of `VIEWS`; float64, shape (n,)."""
    films = pixels[:]
    return {view: networks.logits(model, seen(films, view), flips=flips) for view in VIEWS}
