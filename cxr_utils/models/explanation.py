"""Where a network sees PNEUMONIA, and what it still knows where parts of a film are hidden.

Grad-CAM is by Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74. Zeiler and Fergus 2014,
arXiv:1311.2901, hid one small square at a time; here it is the border, the middle third or the
outer thirds, which stand for rough anatomy in an upright chest X-ray.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy.ndimage import maximum_filter, zoom

from ..data import phantom
from ..data.dataset import Dataset, Pixels
from ..data.decoding import Square
from .augmentation import to_float
from .networks import logits, members
from .weights import backbone_of

LEAST_MAP = 6  # cells; a coarser map says little of where
NO_MAPS = (keras.layers.InputLayer, keras.layers.ZeroPadding2D)
BATCH = 32
DEALS = 100  # of maps to other cases
BORDER = 1 / 8  # of the side: markers, collimator edges, hardly any lung
PARTS = ("border", "middle third", "outer thirds")
VIEWS = ("the whole film", *(f"only the {part}" for part in PARTS), *(
    f"without the {part}" for part in PARTS
))  # fmt: skip


def grad_cam(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Return what speaks for PNEUMONIA in a network's last stage that has 6 x 6 cells or more.

    Of grey images, uint8 of shape (n, size, size): float32, shape (n, height, width), in units of
    the logit, shared among cells and channels; 0 where nothing speaks for PNEUMONIA. That of an
    ensemble is the mean of its members'.
    """
    return np.mean([_grad_cam(network, pixels) for network in members(model)], axis=0)


def _grad_cam(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    maps_and_logit, found = with_maps(model, stage), []
    for start in range(0, len(pixels), BATCH):
        batch = to_float(tf.constant(pixels[start : start + BATCH]))
        with tf.GradientTape() as tape:
            tape.watch(batch)
            maps, logit = maps_and_logit(batch, training=False)
        slopes = tf.reduce_mean(tape.gradient(logit, maps), axis=(1, 2), keepdims=True)
        found.append(tf.nn.relu(tf.reduce_sum(slopes * maps, axis=-1)).numpy())
    return np.concatenate(found)


def with_maps(
    model: keras.Model, choose: Callable[[keras.Model], keras.Operation | list[keras.Operation]]
) -> keras.Model:
    """Return a model that gives the maps of chosen operations beside the logit.

    They are chosen in the network of keras.applications, where the model is built around one.
    """
    nested = any(isinstance(layer, keras.Model) for layer in model.layers)
    inner = backbone_of(model) if nested else model
    maps = keras.tree.map_structure(lambda step: step.output, choose(inner))
    if not nested:
        return keras.Model(model.input, [maps, model.output])
    place = model.layers.index(inner)
    found, x = keras.Model(inner.input, [maps, inner.output])(model.layers[place - 1].output)
    for layer in model.layers[place + 1 :]:
        x = layer(x)
    return keras.Model(model.input, [found, x])


def stage(model: keras.Model) -> keras.Operation:
    """Return the last operation with a map of at least 6 x 6 cells through which everything passes.

    Where no map is that large, it is the largest one's.
    """
    last = stages(model)
    return last[min((size for size in last if size >= LEAST_MAP), default=max(last))]


def stages(model: keras.Model) -> dict[int, keras.Operation]:
    """Return the last operation with a map of each size (cells) through which everything passes.

    A layer inside one branch of a residual block would tell a part of the story only; it is taken
    where a network has no other map of that size.
    """
    steps = model.operations  # in the order of the graph
    made_by = {id(step.output): place for place, step in enumerate(steps)}
    last_use = list(range(len(steps)))
    for place, step in enumerate(steps):
        for tensor in keras.tree.flatten(step.input):
            last_use[made_by[id(tensor)]] = place
    found: dict[int, keras.Operation] = {}
    whole: dict[int, keras.Operation] = {}
    reach = 0
    for place, step in enumerate(steps):
        shape = step.output.shape
        if len(shape) == 4 and not isinstance(step, NO_MAPS):
            found[min(shape[1:3])] = step
            if reach <= place:
                whole[min(shape[1:3])] = step
        reach = max(reach, last_use[place])
    return found | whole


def enlarged(maps: np.ndarray, size: int) -> np.ndarray:
    """Return maps as large as images, linear between centres of cells; shape (n, size, size)."""
    factors = (1, size / maps.shape[1], size / maps.shape[2])
    return zoom(maps, factors, order=1, mode="nearest", grid_mode=True)


def scaled(maps: np.ndarray, size: int) -> np.ndarray:
    """Return maps as large as images with a peak of 1 each, to be shown; shape (n, size, size)."""
    large = enlarged(maps, size)
    return large / np.maximum(large.max(axis=(1, 2), keepdims=True), 1e-12)


class Checked(NamedTuple):
    """How often Grad-CAM's peak lies in the finding, beside maps that know less; shares in 0..1."""

    cases: int  # findings that the model called PNEUMONIA
    inside: int  # peaks in their masks, grown by half a cell of the map: no peak is finer
    random: float  # the share that a peak at random would have inside: mean area of grown masks
    swapped: float  # with the maps dealt out to other cases: they know where findings usually are
    fixed: float  # of the best single place for all cases, chosen with the truth in hand


def check_on_phantom(model: keras.Model, data: Dataset, called: np.ndarray) -> Checked | None:
    """Hold Grad-CAM against the masks of the phantom's bacterial test images called PNEUMONIA.

    `called`, bool of shape (n,), tells which test images those are. None where there are no masks,
    as of real X-rays.
    """
    test, root = data.splits["test"], data.source.root
    outlined = [phantom.mask_of(root, name).is_file() for name in test.files["path"]]
    rows = np.flatnonzero((test.files["subtype"] == "bacteria").to_numpy() & outlined & called)
    if not len(rows):
        return None
    square = Square(test.pixels.shape[1], data.asked.fit)
    masks = phantom.masks(root, test.files["path"].iloc[rows], square)
    return check(grad_cam(model, test.pixels[rows]), masks)


def check(maps: np.ndarray, masks: np.ndarray) -> Checked:
    """Hold maps, as `grad_cam` returns them, against masks; an empty map points nowhere."""
    count, size = len(maps), masks.shape[1]
    large = grown(masks, size / min(maps.shape[1:]) / 2)
    hits, peaks, each = large.reshape(count, -1), _peaks(maps, size), np.arange(count)
    pointing = maps.max(axis=(1, 2)) > 0
    rng = np.random.default_rng(0)
    deals = [rng.permutation(count) for _ in range(DEALS)]
    swapped = [np.mean(hits[each, peaks[deal]] & pointing[deal]) for deal in deals]
    return Checked(
        cases=count,
        inside=int((hits[each, peaks] & pointing).sum()),
        random=float(large.mean()),
        swapped=float(np.mean(swapped)),
        fixed=float(large.mean(axis=0).max()),
    )


def grown(masks: np.ndarray, reach: float) -> np.ndarray:
    """Return masks grown by so many pixels to each side; bool, shape (n, size, size)."""
    side = 2 * round(reach) + 1
    return maximum_filter(masks, size=(1, side, side))


def _peaks(maps: np.ndarray, size: int) -> np.ndarray:
    """Where each map, as large as an image, is largest: int, shape (n,), counted row by row."""
    return enlarged(maps, size).reshape(len(maps), -1).argmax(axis=1)


def places(maps: np.ndarray) -> np.ndarray:
    """Return how many maps peak in the middle third of the width, and how many near a side.

    In an upright chest X-ray the middle third holds the spine, the heart and the large vessels, and
    the outer eighth hardly any lung. Shares in 0..1, shape (2, 2); rows: found, and by chance,
    where each cell of the map is the peak as often as any other; columns: middle, outer.
    """
    height, width = maps.shape[1:]
    return np.stack([_places(maps), _places(np.eye(height * width).reshape(-1, height, width))])


def _places(maps: np.ndarray) -> list[float]:
    side = 96
    rows, columns = np.divmod(_peaks(maps, side), side)
    middle = (columns >= side / 3) & (columns < 2 * side / 3)
    outer = (np.minimum(rows, columns) < side / 8) | (np.maximum(rows, columns) >= side * 7 / 8)
    return [float(middle.mean()), float(outer.mean())]


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


def occluded_logits(model: keras.Model, pixels: Pixels, flips: bool) -> dict[str, np.ndarray]:
    """Return a network's logits of films in each of `VIEWS`; float64, shape (n,).

    With `flips` they are averaged over mirror images, as `networks.logits` does.
    """
    films = pixels[:]
    return {view: logits(model, seen(films, view), flips=flips) for view in VIEWS}
