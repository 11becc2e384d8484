"""Files that are whole or not there: atomic writes, locks of the cache, checked downloads."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from . import paths
from .parameters import UsageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a full disk, quota or limit says
PATIENCE = 2  # seconds of waiting for a lock before saying so
TIMEOUT = (5, 30)  # seconds to connect, and to wait for the next bytes


@contextlib.contextmanager
def exclusive(part: str) -> Iterator[None]:
    """Hold the lock of a part of the cache; its holder may take it again."""
    paths.cache_folder().mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.cache_folder() / f"{part}.lock", is_singleton=True)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        print(f"waiting for another process that holds {lock.lock_file}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object as far as it can be read; a damaged or missing one counts as empty."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def within(tree: Any, *names: str) -> dict[str, Any]:
    """Return the object at a place in nested ones; an empty one where there is none."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content, or an empty string where there is no such file."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to that becomes `path` when all is well, at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def put_in_place(part: Path, path: Path) -> None:
    """Give a file that was written whole its name, and wait until the disk holds both."""
    _settle(part)  # else a power cut may leave the name without the content
    part.replace(path)
    _settle(path.parent)


def part_of(path: Path) -> Path:
    """Return where this process writes a file before it gets its name."""
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def _settle(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` so that a reader sees all of it or what was there before."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def fetch(url: str, checksum: str, target: Path, megabytes: int, progress: bool = False) -> Path:
    """Return the file `target`, downloading it where it is not there yet.

    `checksum` is the MD5 of its content, in hexadecimal, or the SHA-256, where it has 64 digits;
    `megabytes` the room that it, and what it is unpacked to, will need. Raises UsageError where it
    cannot be had, is not what was asked for, or the disk is too small.
    """
    with exclusive("downloads"):
        if target.is_file():
            return target
        part = target.parent / ".part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            check_room(target.parent, megabytes)
            with warnings.catch_warnings():  # tqdm would like widgets, which a report cannot show
                warnings.simplefilter("ignore")
                import pooch
            pooch.utils.get_logger().setLevel("WARNING")
            http = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=progress)
            known = f"{'sha256' if len(checksum) == 64 else 'md5'}:{checksum}"
            pooch.retrieve(url, known, target.name, part, downloader=http)
            (part / target.name).replace(target)
        except OSError as error:  # requests' errors are OSErrors too; their kind says enough
            reason = one_line(error) if error.errno else type(error).__name__
        except ValueError:
            reason = "the downloaded file is not the right one (its checksum differs)"
        else:
            return target
        finally:
            shutil.rmtree(part, ignore_errors=True)
    said = f"{url.split('/')[2]} did not deliver {target.name}: {reason}"
    raise UsageError(f"{said}; check the network and the disk and run again")


def check_room(
    folder: Path, megabytes: int, other: str = "set CXR_CACHE to a folder on another disk"
) -> None:
    """Raise UsageError where the disk of a folder has less than so many MB free."""
    free = shutil.disk_usage(folder).free / 1e6
    if free < megabytes:
        said = f"{megabytes:,} MB are needed and {free:,.0f} MB are free"
        raise UsageError(f"{folder}: {said}; make room or {other}")


def cached_array(part: str, decides: Iterable[str], compute: Callable[[], Any]) -> Any:
    """Return an array of a part of the cache, computed where what `decides` it has changed."""
    key = hashlib.sha256(" ".join(decides).encode()).hexdigest()[:32]
    cached = paths.cache_folder() / part / f"{key}.npy"
    try:
        return np.load(cached)
    except (OSError, ValueError, EOFError):  # there is none, or it is damaged
        found = compute()
        with replacing(cached) as unfinished:
            np.save(unfinished, found)
        return found


@contextlib.contextmanager
def silenced_errors() -> Iterator[None]:
    """Let nothing onto standard error, not even what libraries in C++ say as they start."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def one_line(said: object) -> str:
    """Return a text, or an error's kind and message, for a terminal: on one line, as it reads.

    What would break the line or act on the terminal is escaped, as names of files may hold it.
    """
    if isinstance(said, Exception):
        said = f"{type(said).__name__}: {said}"[:300]
    text = " ".join(str(said).split())
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
