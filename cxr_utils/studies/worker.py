"""What a Dask worker does for a study: it says what it is, and runs cells."""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import distributed

from .. import paths
from ..files import sha256_of
from ..models import fingerprint
from ..parameters import Params, UsageError
from ..pipeline import preparation, subprocesses

TOPIC = "cxr-losses"  # of what a cell's epochs came to, for a search
MARK = ".mark"  # in the folder of a study: by it a worker knows whether it has that disk
KEPT = ("*.json", "predictions/*.csv", "models/*.json")  # what comes back from another disk

# What decides a cell's numbers; a change of a report or of the engine repeats no cell.
DECIDES = ("data/*.py", "models/*.py", "evaluation/results.py", "evaluation/metrics.py",
           "evaluation/thresholds.py", "evaluation/intervals.py")  # fmt: skip


def code() -> str:
    """Return a digest of the code and the libraries that decide a cell's numbers."""
    files = [file for pattern in DECIDES for file in sorted(paths.PACKAGE.glob(pattern))]
    libraries = fingerprint.versions(fingerprint.LIBRARIES)
    return fingerprint.digest_of([libraries, *map(sha256_of, files)])


def survey(params: Params) -> dict[str, Any]:
    """Prepare the data, and return what makes this worker fit or unfit for a study."""
    found: dict[str, Any] = {"host": socket.gethostname(), "code": code(), "manifest": ""}
    try:
        source, manifest = preparation.prepare(params)
        found |= {"manifest": manifest.digest, "synthetic": source.synthetic, "kind": source.kind}
    except UsageError as error:
        found["wrong"] = str(error)
    return found


def run_cell(
    name: str, commands: list[list[str]], folder: str, mark: str, known: str, watched: bool
) -> dict[str, Any]:
    """Run a cell by each of its `commands`, in `folder` where the disk is shared.

    Returns how it ended (done, pruned, failed or no memory), where it ran and for how long, and its
    files from another disk. Raises `subprocesses.Unlucky`, for Dask to try again. `known` is
    `code` of the study. Of a cell that is `watched` the losses of epochs are told, and it ends
    where it is told to.
    """
    started, place = time.perf_counter(), paths.REPORTS / "studies" / Path(folder).name
    with contextlib.suppress(OSError):
        if (Path(folder) / MARK).read_text() == mark:
            place = Path(folder)
    run = paths.RunFolder(place / "cells" / name)
    told = {"state": "done", "host": socket.gethostname()}
    told["worker"] = distributed.get_worker().address
    try:
        if code() != known:
            raise subprocesses.Failed("the code there is no longer the study's; start it anew")
        hopeless = _teller(name) if watched else None
        for command in commands:
            if not subprocesses.run(command, run, hopeless):
                told["state"] = "pruned"
                break
    except (subprocesses.Failed, MemoryError) as error:  # the same again would not help
        told["state"] = "no memory" if isinstance(error, MemoryError) else "failed"
        told["error"] = str(error)
    files = [] if place == Path(folder) else [file for kind in KEPT for file in run.root.glob(kind)]
    content = {str(file.relative_to(run.root)): file.read_bytes() for file in files}
    return told | {"seconds": round(time.perf_counter() - started, 1), "files": content}


def _teller(name: str) -> Any:
    """Return a function that tells of an epoch's loss, and asks whether the cell is hopeless."""
    stop, worker = distributed.Event(f"stop-{name}"), distributed.get_worker()

    def tell(epoch: int, loss: float) -> bool:
        worker.log_event(TOPIC, json.dumps([name, epoch, loss]))
        return stop.wait(1)

    return tell
