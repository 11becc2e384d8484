"""One run at a time in a folder: says who works there, and cleans up after runs that were killed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from .. import paths
from ..files import read_json, write_atomically
from ..parameters import UsageError

PREFIX = "cxr-"
LONGEST = (
    70  # bytes of the name of a folder for sockets, of the 107 that a socket's whole name may have
)


@contextlib.contextmanager
def alone_in(folder: paths.RunFolder) -> Iterator[Path]:
    """Hold a run's folder, and yield a folder for temporary files that goes when the run ends.

    Parameters
    ----------
    folder : RunFolder
        The run; its folders are made.

    Yields
    ------
    Path
        A folder that only this user can read.

    Raises
    ------
    UsageError
        The folder cannot be written, or another run is at work in it.
    """
    if len(os.fsencode(tempfile.gettempdir())) + len(PREFIX) + 13 > LONGEST:
        raise UsageError(
            f"{tempfile.gettempdir()}: too long a name for sockets to lie there; set TMPDIR to a folder with a shorter one"
        )
    lock = FileLock(folder.lock)
    try:
        folder.make()
        lock.acquire(timeout=0)
        temporary = _settle_in(folder)
    except Timeout:
        raise UsageError(
            f"{folder.root}: {_holder(folder)} is at work there; wait for it or give another --run NAME"
        ) from None
    except OSError as error:
        lock.release()
        raise UsageError(
            f"{folder.root}: cannot be written ({error.strerror}); give another folder with --out"
        ) from None
    try:
        temporary.mkdir(mode=0o700)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        folder.holder.unlink(missing_ok=True)
        lock.release()


def _settle_in(folder: paths.RunFolder) -> Path:
    """Clean up after a run that was killed, and say who is here now; returns where temporary files will lie.

    They are named before they are made, so that the next run finds them whenever this one is killed.
    """
    left = str(read_json(folder.holder).get("files", ""))
    folder.holder.unlink(missing_ok=True)
    temporary = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(6)}"
    about = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": f"{datetime.now():%Y-%m-%d %H:%M}",
        "files": str(temporary),
    }
    write_atomically(folder.holder, json.dumps(about))
    _clean(folder, Path(left))
    return temporary


def _holder(folder: paths.RunFolder) -> str:
    """Say which run holds the lock; one that has just begun has not said so yet."""
    known = read_json(folder.holder)
    said = {"process", "host", "since"} <= set(known)
    return (
        f"process {known['process']} on {known['host']}, since {known['since']},"
        if said
        else "another run"
    )


def _clean(folder: paths.RunFolder, left: Path) -> None:
    """Remove what a run that was killed left unfinished, here and among the temporary files."""
    for part in list(folder.parts()):
        part.unlink(missing_ok=True)
    ours = left.parent == Path(tempfile.gettempdir()) and left.name.startswith(PREFIX)
    if ours and left.is_dir() and left.stat().st_uid == os.getuid():
        shutil.rmtree(left, ignore_errors=True)
