"""What a Dask worker does for a study: it says what it is, and runs cells."""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import distributed

from .. import paths
from ..data import dataset
from ..parameters import Params, UsageError
from ..pipeline import subprocesses, validity

MARK = ".mark"  # in the folder of a study: by it a worker knows whether it has that disk
KEPT = ("*.json", "predictions/*.csv", "models/*.json")  # what comes back from another disk


def survey(params: Params, steps: list[str]) -> dict[str, Any]:
    """Prepare the data, and return what makes this worker fit or unfit for a study."""
    code = validity.numbers_digest(steps)
    found: dict[str, Any] = {"host": socket.gethostname(), "code": code, "manifest": ""}
    try:
        source, manifest = dataset.prepare(params)
        dataset.split_files(manifest, params)  # raises where it cannot be
        found |= {"manifest": manifest.digest, "synthetic": source.synthetic, "kind": source.kind}
    except UsageError as error:
        found["wrong"] = str(error)
    return found


def run_cell(
    name: str, sets: list[str], steps: list[str], folder: str, mark: str, code: str, watched: bool
) -> dict[str, Any]:
    """Run the `steps` of a cell with the parameters `sets`, in `folder` where the disk is shared.

    Returns how it ended (done, pruned, failed or no memory), where it ran and for how long, and its
    files from another disk. Raises `subprocesses.Unlucky`, for Dask to try again. `code` is the
    study's `validity.numbers_digest`. One that is `watched` tells of its epochs, and can be ended.
    """
    started, place = time.perf_counter(), paths.REPORTS / "studies" / Path(folder).name
    with contextlib.suppress(OSError):
        if (Path(folder) / MARK).read_text() == mark:
            place = Path(folder)
    run = paths.RunFolder(place / "cells" / name)
    told = {"state": "done", "host": socket.gethostname()}
    told["worker"] = distributed.get_worker().address
    try:
        if validity.numbers_digest(steps) != code:
            raise subprocesses.Failed("the code there is no longer the study's; start it anew")
        hopeless = _teller(name, mark) if watched else None
        if not all(subprocesses.run([*sets, f"--only={n}"], run, hopeless) for n in steps):
            told["state"] = "pruned"
    except (subprocesses.Failed, MemoryError) as error:  # the same again would not help
        told["state"] = "no memory" if isinstance(error, MemoryError) else "failed"
        told["error"] = str(error)
    files = [] if place == Path(folder) else [file for kind in KEPT for file in run.root.glob(kind)]
    content = {str(file.relative_to(run.root)): file.read_bytes() for file in files}
    return told | {"seconds": round(time.perf_counter() - started, 1), "files": content}


def _teller(name: str, mark: str) -> Any:
    """Return a function that tells of an epoch's loss, and asks whether the cell is hopeless."""
    stop, worker = distributed.Event(f"stop-{mark}-{name}"), distributed.get_worker()

    def tell(epoch: int, loss: float) -> bool:
        worker.log_event(mark, json.dumps([name, epoch, loss]))
        return stop.wait(0.5)

    return tell
