"""Runs a study's cells on the workers of a Dask cluster, until each has ended once."""

import contextlib
import json
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
from tqdm import tqdm

from .. import paths
from ..files import one_line, read_json, write_atomically
from ..models import fingerprint
from ..parameters import UsageError
from ..pipeline import record
from ..pipeline.steps import find_steps
from ..study_plan import Cell, Study
from . import cluster, worker
from .search import Search

TRIES = 4  # of a cell that lacks memory
PAUSE = 1.0  # seconds of waiting for a cell before a look at the cluster
WRITTEN_EVERY = 2.0  # seconds between two states of study.json


def steps_of(study: Study) -> list[str]:
    """Return the steps that train a study's models."""
    return [step.name for step in find_steps() if step.section in study.asked.models]


class Engine:
    """A study that is being run; `work` is what a worker does for a cell."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        client: distributed.Client,
        work: Callable = worker.run_cell,
    ) -> None:
        self.study, self.folder, self.client, self.work = study, folder, client, work
        self.mark, self.code, sample = secrets.token_hex(8), worker.code(), study.asked.sample
        self.search = Search(study, sample, folder) if sample else None
        self.steps = steps_of(study)
        self.recipes = [fingerprint.recipe_in(paths.NOTEBOOKS / f"{n}.ipynb") for n in self.steps]
        self.cells: dict[str, dict[str, Any]] = {}  # of study.json
        self.about: dict[str, Any] = {}  # in study.json too
        self.events: queue.Queue = queue.Queue()  # cells that ended, and losses of epochs
        self.running: dict[distributed.Future, Cell] = {}
        self.room, self.written = 0, 0.0

    def begin(self, told: dict[str, dict[str, Any]]) -> None:
        """Take in what `cluster.survey` said of the workers."""
        first = next(iter(told.values()))
        self.room = sum(cluster.rooms(self.client).values())
        self.about["data"] = {name: first[name] for name in ("manifest", "synthetic", "kind")}
        self.about["workers"] = {address: about["host"] for address, about in told.items()}
        write_atomically(self.folder / worker.MARK, self.mark)
        if self.search:
            self.client.subscribe_topic(worker.TOPIC, lambda event: self.events.put(event[1]))

    def run(self) -> None:
        """Run all cells, as many at a time as there is room for; goes on where it was stopped."""
        planned, again = self.study.cells(), deque[Cell]()
        coming = self.search.cells() if self.search else iter(planned)
        with tqdm(total=len(planned) or self.study.asked.count, unit=" cells", disable=None) as bar:
            while True:
                while len(self.running) < self.room:
                    if not (cell := again.popleft() if again else next(coming, None)):
                        break
                    known = read_json(self._file(cell))
                    if known.get("key") == self._key(cell):
                        self._end(cell, known, bar)
                    else:
                        self._submit(cell)
                if not self.running:
                    break
                try:
                    event = self.events.get(timeout=PAUSE)
                except queue.Empty:
                    self._check_cluster(bar)
                    continue
                if isinstance(event, str):
                    self._judge(*json.loads(event))
                elif told := self._outcome(cell := self.running.pop(event), event):
                    self._end(cell, told, bar)
                else:
                    again.append(cell)
        self._write()

    def _file(self, cell: Cell) -> Path:
        return self.folder / "cells" / cell.name / "cell.json"

    def _key(self, cell: Cell) -> str:
        """A digest of what decides a cell's numbers: parameters, data, code and recipe."""
        params = cell.params.model_dump(exclude={"data": {"source"}})
        return fingerprint.digest_of(
            [params, self.about["data"]["manifest"], self.code, self.recipes]
        )

    def _commands(self, cell: Cell) -> list[list[str]]:
        """What ``run_all.py`` is to be told, once for each step of a cell."""
        sets = [f"--set={name}={json.dumps(value)}" for name, value in cell.assigned.items()]
        about = [self.study.asked.profile, f"--data={self.study.base.data.source}", *sets]
        return [[*about, f"--only={step}"] for step in self.steps]

    def _submit(self, cell: Cell) -> None:
        tries = self.cells.get(cell.name, {}).get("tries", 0) + 1
        self.cells[cell.name] = {**cell.about, "state": "running", "tries": tries}
        prunes = bool(self.search and self.search.prunes)
        asked = (cell.name, self._commands(cell), str(self.folder), self.mark, self.code)
        key = f"{cell.name}-{self.mark}-{tries}"
        how: dict[str, Any] = {"key": key, "resources": {cluster.ROOM: 1}, "retries": 2}
        future = self.client.submit(self.work, *asked, prunes, **how)
        self.running[future] = cell
        future.add_done_callback(self.events.put)
        self._write(WRITTEN_EVERY)

    def _outcome(self, cell: Cell, future: distributed.Future) -> dict[str, Any] | None:
        """What became of a cell; None where it is to be tried again."""
        tries = self.cells[cell.name]["tries"]
        try:
            told = future.result()
        except distributed.CancelledError:  # the connection to the scheduler was cut
            self.cells[cell.name]["tries"] -= 1
            return None
        except Exception as error:  # Unlucky to the last, or its worker died again and again
            return {"state": "failed", "error": one_line(error), "tries": tries}
        for name, content in told.pop("files").items():
            target = self._file(cell).parent / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if told["state"] == "no memory":
            self.room = max(1, self.room - 1)
            if tries < TRIES:
                return None
            told["state"] = "failed"
        told |= {"tries": tries, "key": self._key(cell)}
        if told["state"] != "failed":
            write_atomically(self._file(cell), json.dumps(told, indent=1))
        return told

    def _end(self, cell: Cell, told: dict[str, Any], bar: tqdm) -> None:
        self.cells[cell.name] = {**cell.about, **told}
        bar.update()
        if bar.disable:
            said = told.get("error") or f"{told['seconds']:.0f} s on {told['host']}"
            ended = sum(one["state"] != "running" for one in self.cells.values())
            print(f"{cell.name}: {told['state']}, {said} ({ended} of {bar.total})", flush=True)
        if self.search:
            self.search.end(cell, told["state"], self._file(cell).parent)
        self._write(WRITTEN_EVERY)

    def _judge(self, name: str, epoch: int, loss: float) -> None:
        """Let a search look at an epoch of a cell, and stop the cell where it is hopeless."""
        if self.search and self.search.is_hopeless(name, epoch, loss):
            distributed.Event(f"stop-{name}", client=self.client).set()

    def _check_cluster(self, bar: tqdm) -> None:
        """Say so where no worker is left; raises UsageError where no scheduler is."""
        if self.client.status == "closed":
            again = "start it, and repeat the command: it goes on with the study"
            raise UsageError(f"the scheduler does not answer any more; {again}")
        with contextlib.suppress(OSError, KeyError, TypeError):
            there = cluster.rooms(self.client)
            bar.set_postfix_str("" if there else f"no worker is left: {cluster.START}")

    def _write(self, every: float = 0.0) -> None:
        """Write ``study.json``, unless it was written within so many seconds."""
        if time.monotonic() - self.written >= every:
            study = self.study
            told = {"schema": 1, "study": study.name, **study.asked.model_dump(exclude_none=True)}
            told |= {"parameters": study.base.model_dump(), "steps": self.steps, **self.about}
            told |= {"revision": record.revision(), "cells": self.cells}
            write_atomically(self.folder / "study.json", json.dumps(told, indent=1))
            self.written = time.monotonic()
