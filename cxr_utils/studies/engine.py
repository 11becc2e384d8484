"""Runs a study's cells on the workers of a Dask cluster, until each has ended once."""

import contextlib
import json
import queue
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
from tqdm import tqdm

from ..files import one_line, read_json, within, write_atomically
from ..models import fingerprint
from ..pipeline import record, validity
from ..study_plan import Cell, Study
from . import cluster, worker
from .search import Search

CUT = (distributed.CancelledError, distributed.comm.CommClosedError)  # the scheduler is gone
TRIES = 4  # of a cell that lacks memory
PAUSE = 1.0  # seconds of waiting for a cell before a look at the cluster
WRITTEN_EVERY = 2.0  # seconds between two states of study.json


class Engine:
    """A study that is being run; `told` is what `cluster.survey` says of the workers."""

    def __init__(
        self, study: Study, steps: list[str], folder: Path, client: distributed.Client,
        told: dict[str, dict[str, Any]], work: Callable = worker.run_cell,
    ) -> None:  # fmt: skip
        self.study, self.steps, self.folder, self.client = study, steps, folder, client
        self.work, self.mark, first = work, secrets.token_hex(8), next(iter(told.values()))
        self.about = {"data": {name: first[name] for name in ("manifest", "synthetic", "kind")},
                      "workers": {name: about["host"] for name, about in told.items()}}  # fmt: skip
        self.code, self.manifest = validity.numbers_digest(steps), first["manifest"]
        self.cells: dict[str, dict[str, Any]] = {}  # of study.json
        self.events: queue.Queue = queue.Queue()  # cells that ended, and losses of epochs
        self.running: dict[distributed.Future, Cell] = {}
        self.tight: dict[str, int] = {}  # how often cells that are not done lacked memory
        self.rooms, self.written = cluster.rooms(client), 0.0
        write_atomically(folder / worker.MARK, self.mark)
        self.search = None
        if sample := study.asked.sample:
            self.search = Search(study, sample, folder, self.code + self.manifest)
            client.subscribe_topic(self.mark, lambda event: self.events.put(event[1]))

    @property
    def room(self) -> int:
        """For cells at a time."""
        return max(1, sum(self.rooms.values()) - sum(self.tight.values()))

    def run(self) -> None:
        """Run all cells, as many at a time as there is room for; goes on where it was stopped."""
        planned, again = self.study.cells(), deque[Cell]()
        coming = self.search.cells() if self.search else iter(planned)
        with tqdm(total=len(planned) or self.study.asked.count, unit=" cells", disable=None) as bar:
            while True:
                while len(self.running) < self.room:
                    if not (cell := again.popleft() if again else next(coming, None)):
                        break
                    known = read_json(self._folder(cell) / "cell.json")
                    if known.get("key") == self._key(cell):
                        self._end(cell, known, bar)
                    else:
                        self._submit(cell)
                if not self.running:
                    break
                try:
                    event = self.events.get(timeout=PAUSE)
                except queue.Empty:
                    self._look_at_cluster(bar)
                    continue
                if isinstance(event, str):
                    self._judge(*json.loads(event))
                elif told := self._outcome(cell := self.running.pop(event), event):
                    self._end(cell, told, bar)
                else:
                    again.append(cell)
        self._write()

    def _folder(self, cell: Cell) -> Path:
        return self.folder / "cells" / cell.name

    def _key(self, cell: Cell) -> str:
        params = cell.params.model_dump(exclude={"data": {"source"}})
        return fingerprint.digest_of([params, self.manifest, self.code])

    def _submit(self, cell: Cell) -> None:
        self._wait_for_scheduler()
        (self._folder(cell) / "cell.json").unlink(missing_ok=True)  # not for other results
        tries = self.cells.get(cell.name, {}).get("tries", 0) + 1
        self.cells[cell.name] = {**cell.about, "state": "running", "tries": tries}
        # All by value: a worker's own profiles, or an edit of them, change nothing.
        sets = [
            f"--set={part}={json.dumps(value)}" for part, value in cell.params.model_dump().items()
        ]
        asked = (cell.name, sets, self.steps, str(self.folder), self.mark, self.code)
        key = f"{cell.name}-{self.mark}-{tries}"
        how: dict[str, Any] = {"key": key, "resources": {cluster.ROOM: 1}, "retries": 2}
        prunes = bool(self.search and self.search.prunes)
        future = self.client.submit(self.work, *asked, prunes, **how)
        self.running[future] = cell
        future.add_done_callback(self.events.put)
        self._write(WRITTEN_EVERY)

    def _outcome(self, cell: Cell, future: distributed.Future) -> dict[str, Any] | None:
        """What became of a cell; None where it is to be tried again."""
        tries = self.cells[cell.name]["tries"]
        try:
            told = future.result()
        except CUT:
            return None
        except Exception as error:  # unlucky to the last, or its worker died again and again
            return {"state": "failed", "error": one_line(error), "tries": tries}
        tight = self.tight.pop(cell.name, 0) + 1
        if told["state"] == "no memory" and tight < TRIES:
            self.tight[cell.name] = tight
            return None
        folder, files = self._folder(cell), told.pop("files")
        if files:  # from another disk: what an earlier run left here is not its
            shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        scored_on = within(read_json(folder / "metrics.json"), "data").get("manifest")
        if told["state"] == "done" and scored_on != self.manifest:
            told |= {"state": "failed", "error": f"the data on {told['host']} is not the study's"}
        told |= {"tries": tries, "key": self._key(cell)}
        if told["state"] in ("done", "pruned"):
            write_atomically(folder / "cell.json", json.dumps(told, indent=1))
        return told | {"state": told["state"].replace("no memory", "failed")}

    def _end(self, cell: Cell, told: dict[str, Any], bar: tqdm) -> None:
        self.cells[cell.name] = {**cell.about, **told}
        bar.update()
        if bar.disable:
            said = told.get("error") or f"{told['seconds']:.0f} s on {told['host']}"
            ended = f"{len(self.cells) - len(self.running)} of {bar.total}"
            print(f"{cell.name}: {told['state']}, {said} ({ended})", flush=True)
        if self.search:
            self.search.end(cell, told["state"], self._folder(cell))
        self._write(WRITTEN_EVERY)

    def _judge(self, name: str, epoch: int, loss: float) -> None:
        """Let a search look at an epoch of a cell, and stop the cell where it is hopeless."""
        there = [cell.name for cell in self.running.values()]
        if self.search and name in there and self.search.is_hopeless(name, epoch, loss):
            distributed.Event(f"stop-{self.mark}-{name}", client=self.client).set()

    def _look_at_cluster(self, bar: tqdm) -> None:
        """See which workers there are, and say so where there are none."""
        self._wait_for_scheduler()
        there = self.rooms
        with contextlib.suppress(OSError, KeyError, TypeError):
            self.rooms = cluster.rooms(self.client)
        if there and not self.rooms:
            bar.write(f"no worker is left; start one: {cluster.START}")

    def _wait_for_scheduler(self) -> None:
        """Wait until the client has connected again; raises ConnectionError where it gave up."""
        while self.client.status == "connecting":
            time.sleep(PAUSE)
        if self.client.status != "running":
            raise ConnectionError("the scheduler is gone; start it, and repeat the command")

    def _write(self, every: float = 0.0) -> None:
        """Write ``study.json``, unless it was written within so many seconds."""
        if time.monotonic() - self.written >= every:
            asked, base = self.study.asked.model_dump(exclude_none=True), self.study.base
            told = {"schema": 1, "study": self.study.name, **asked, **self.about}
            told |= {"parameters": base.model_dump(), "steps": self.steps}
            told |= {"revision": record.revision(), "cells": self.cells}
            write_atomically(self.folder / "study.json", json.dumps(told, indent=1))
            self.written = time.monotonic()
