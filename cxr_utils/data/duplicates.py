"""Films that a data set holds more than once: identical files, and files of the same picture."""

from typing import NamedTuple

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

HASH_SIDE = 16  # a perceptual hash has its square of bits
# Of 256 bits; a film saved again in JPEG differs in fewer, and two of the real set in 34 or more.
NEAR_BITS = 20


class Duplicates(NamedTuple):
    """Groups of rows of the manifest, int, two rows or more in each."""

    exact: list[np.ndarray]  # identical to the byte
    near: list[np.ndarray]  # one picture in files that differ
    alike: list[np.ndarray]  # either


def find(files: pd.DataFrame, stored: np.ndarray) -> Duplicates:
    """Group the files that hold the same film; `stored` are their squares, uint8, (n, size, size).

    Pictures are compared by a perceptual hash of 256 bits: the signs of the low frequencies of
    their cosine transform (Zauner 2010, *Implementation and benchmarking of perceptual image hash
    functions*). Films that were cropped or mirrored are not found.
    """
    hashes = [imagehash.phash(Image.fromarray(picture), HASH_SIDE).hash for picture in stored]
    bits = np.array(hashes, np.float32).reshape(len(stored), -1)
    # The squared distance of two hashes is the number of bits in which they differ.
    alike = coo_array(radius_neighbors_graph(bits, np.sqrt(NEAR_BITS + 0.5)))
    exact = files.groupby("sha256", sort=False).ngroup().to_numpy()
    differ = exact[alike.row] != exact[alike.col]
    near = coo_array((alike.data[differ], (alike.row[differ], alike.col[differ])), alike.shape)
    return Duplicates(_groups(exact), *(_groups(connected_components(g)[1]) for g in (near, alike)))


def _groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Rows of equal number, two at least."""
    return [rows for rows in pd.Series(numbers).groupby(numbers).indices.values() if len(rows) > 1]
