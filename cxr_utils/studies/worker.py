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

    Returns where and for how long it ran, and its files from another disk. `known` is `plan.code`
    of the study. Of one that is `watched` the epochs are told, and it ends where it is told to.
    Raises what `subprocesses.run` does.
    """
    if plan.code() != known:
        raise subprocesses.Failed(f"{socket.gethostname()}: the code changed; start the study anew")
    started, shared = time.perf_counter(), _shares(folder, mark)
    cells = (Path(folder) if shared else paths.REPORTS / "studies" / Path(folder).name) / "cells"
    run, place = paths.RunFolder(cells / name), [f"--run={name}", f"--out={cells}"]
    over = _Watch(name, run).over if watched else lambda: False
    whole = all(subprocesses.run([*command, *place], over) for command in commands)
    files = [file for kind in KEPT for file in run.root.glob(kind)] * (not shared)
    return {
        "host": socket.gethostname(),
        "worker": distributed.get_worker().address,
        "seconds": round(time.perf_counter() - started, 1),
        "pruned": not whole,
        "files": {str(file.relative_to(run.root)): file.read_bytes() for file in files},
    }


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
