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
    followed; hidden files and folders, and files that are no films by their names, are passed over.
    What cannot be found or opened is yielded as well, for its answer to say so.
    """
    for name in asked:
        if name == "-":
            yield from (Path(line.rstrip("\r\n")) for line in listed if line.strip())
        elif os.path.isdir(name):  # noqa: PTH112  # unlike Path's, it never raises
            yield from _below(name)
        elif glob.has_magic(name) and not os.path.lexists(name):
            files = (Path(match) for match in glob.iglob(name) if not os.path.isdir(match))  # noqa: PTH112, PTH207
            yield next(files, Path(name))
            yield from files
        else:
            yield Path(name)


def _below(folder: str) -> Iterator[Path]:
    folders = [folder]
    while folders:
        try:
            entries = os.scandir(folder := folders.pop())
        except OSError:
            yield Path(folder)
            continue
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif os.path.isfile(entry.path) and is_film(Path(entry.path)):  # noqa: PTH113
                    yield Path(entry.path)
