"""Makes a data set ready before notebooks read it: fetched, listed, decoded at every size."""

from ..data import dataset, sources
from ..data.decoding import Square
from ..data.manifest import Manifest, read_manifest
from ..parameters import Params


def squares(params: Params) -> list[Square]:
    """Return the squares that the notebooks of a run ask for."""
    sizes = {dataset.OVERVIEW_SIZE, *(part.image_size for part in params.sections.values())}
    return [Square(size, params.data.fit) for size in sorted(sizes)]


def prepare(params: Params, progress: bool = False) -> tuple[sources.Source, Manifest]:
    """Fetch the data of a run and decode it, so that its notebooks only read; raises UsageError."""
    source = sources.fetch(params.data, progress)
    manifest = read_manifest(source.root, squares(params), progress)
    for square in squares(params):
        dataset.load_pixels(manifest, square, progress)
    return source, manifest
