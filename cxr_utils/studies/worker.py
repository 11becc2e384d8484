"""What a Dask worker does for a study: it says what it is, and runs cells."""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import distributed

from .. import paths
from ..files import read_json
from ..parameters import Params, UsageError
from ..pipeline import preparation, subprocesses
from . import plan

TOPIC = "cxr-losses"  # of what a cell's epochs came to, for a search
MARK = ".mark"  # in the folder of a study: by it a worker knows whether it has that disk
KEPT = ("*.json", "predictions/*.csv", "models/*.json")  # what comes back from another disk


def _shares(folder: str, mark: str) -> bool:
    with contextlib.suppress(OSError):
        return (Path(folder) / MARK).read_text() == mark
    return False


def survey(params: Params) -> dict[str, Any]:
    """Prepare the data, and return what makes this worker fit or unfit for a study."""
    found: dict[str, Any] = {"host": socket.gethostname(), "code": plan.code(), "manifest": ""}
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
    `plan.code` of the study. Of one that is `watched` the epochs are told, and it ends where it is
    told to.
    """
    started, shared = time.perf_counter(), _shares(folder, mark)
    cells = (Path(folder) if shared else paths.REPORTS / "studies" / Path(folder).name) / "cells"
    run, place = paths.RunFolder(cells / name), [f"--run={name}", f"--out={cells}"]
    over = _Watch(name, run).over if watched else lambda: False
    told: dict[str, Any] = {"state": "done", "host": socket.gethostname()}
    told["worker"] = distributed.get_worker().address
    try:
        if plan.code() != known:
            raise subprocesses.Failed("the code there is no longer the study's; start it anew")
        if not all(subprocesses.run([*command, *place], over) for command in commands):
            told["state"] = "pruned"
    except (subprocesses.Failed, MemoryError) as error:  # trying again would not help, here
        told["state"] = "no memory" if isinstance(error, MemoryError) else "failed"
        told["error"] = str(error)
    told["seconds"] = round(time.perf_counter() - started, 1)
    files = [file for kind in KEPT for file in run.root.glob(kind)] * (not shared)
    told["files"] = {str(file.relative_to(run.root)): file.read_bytes() for file in files}
    return told


class _Watch:
    """Tells of each epoch's loss, and asks whether the run is to end."""

    def __init__(self, name: str, run: paths.RunFolder) -> None:
        self.name, self.run, self.told = name, run, 0
        self.stop = distributed.Event(f"stop-{name}")

    def over(self) -> bool:
        for file in self.run.progress("x").parent.glob("*.progress.json"):
            for loss in read_json(file).get("losses", [])[self.told :]:
                self.told += 1
                said = json.dumps([self.name, self.told, loss])
                distributed.get_worker().log_event(TOPIC, said)
        return bool(self.told) and self.stop.is_set()
