"""Finds the films that a user names, one at a time."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from ..data.films import is_film


def find(asked: Iterable[str], listed: TextIO) -> Iterator[Path]:
    """Yield the files that are named: as such, in folders, by patterns, or in `listed` for ``-``.

    Folders are walked as the files are used, in the file system's order; links to folders are not
    followed, and files that are no films by their names are passed over. What cannot be found or
    opened is yielded as well, for its answer to say so.
    """
    for name in asked:
        if name == "-":
            yield from (Path(line.rstrip("\r\n")) for line in listed if line.strip())
        elif Path(name).is_dir():
            yield from _below(Path(name))
        else:
            yield from _matching(name) if glob.has_magic(name) else [Path(name)]


def _below(folder: Path) -> Iterator[Path]:
    try:
        entries = os.scandir(folder)
    except OSError:
        yield folder
        return
    with entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _below(path)
            elif not entry.name.startswith(".") and path.is_file() and is_film(path):
                yield path


def _matching(pattern: str) -> Iterator[Path]:
    """Files that match a pattern; the pattern itself where there are none."""
    found = (Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207
    files = (path for path in found if not path.is_dir())
    yield next(files, Path(pattern))
    yield from files
