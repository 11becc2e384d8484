"""Files from the web: checked, on the disk whole or not at all, with one line where they cannot be had."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from . import paths
from .params import UsageError

TIMEOUT = (5, 30)  # seconds to connect, and to wait for the next bytes


def fetch(url: str, checksum: str, target: Path, megabytes: int, progress: bool = False) -> Path:
    """Return a file, downloading it where it is not there yet.

    Parameters
    ----------
    url : str
        Its address.
    checksum : str
        MD5 of its content, in hexadecimal; or SHA-256, where it has 64 digits.
    target : Path
        Where it is kept.
    megabytes : int
        Room that it, and what it is unpacked to, will need.
    progress : bool
        Show a progress bar.

    Raises
    ------
    UsageError
        It cannot be had, is not what was asked for, or the disk is too small.
    """
    with paths.exclusive("downloads"):
        if target.is_file():
            return target
        part = target.parent / ".part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            check_room(target.parent, megabytes)
            _retrieve(url, checksum, part / target.name, progress)
            (part / target.name).replace(target)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
            host = url.split("/")[2]
            if not isinstance(error, OSError):
                reason = "what came is not that file (its checksum differs)"
            else:  # the disk says in words what is wrong; of the network its kind says enough
                reason = one_line(error) if error.errno else type(error).__name__
            raise UsageError(f"{host} did not deliver {target.name}: {reason}; check the network and the disk and run again") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target


def _retrieve(url: str, checksum: str, part: Path, progress: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm would like notebook widgets, which a report cannot show
        import pooch
    pooch.utils.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=progress)
    kind = "sha256" if len(checksum) == 64 else "md5"
    pooch.retrieve(url, f"{kind}:{checksum}", part.name, part.parent, downloader=downloader)


def check_room(folder: Path, megabytes: int) -> None:
    """Raise UsageError where the disk of a folder has less than so many MB free."""
    free = shutil.disk_usage(folder).free / 1e6
    if free < megabytes:
        raise UsageError(
            f"{folder}: {megabytes:,} MB are needed and {free:,.0f} MB are free; make room or set CXR_CACHE to a folder on another disk"
        )


def one_line(error: Exception) -> str:
    """Return an error's kind and message on one line of at most 200 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
