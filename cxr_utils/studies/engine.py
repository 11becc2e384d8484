"""Runs a study's cells on the workers of a Dask cluster, until each has ended once."""

import contextlib
import json
import os
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
from tqdm import tqdm

from ..files import one_line, read_json, write_atomically
from ..parameters import UsageError
from ..pipeline import record
from ..pipeline.subprocesses import Unlucky
from . import plan, worker
from .plan import Cell, Study
from .search import Search

TRIES = 4  # of a cell that lacks memory
PAUSE = 1.0  # seconds of waiting for a cell before a look at the cluster
WRITTEN_EVERY = 2.0  # seconds between two states of study.json
ROOM = "run"  # Dask's name for what a worker has as many of as it runs cells at a time
START_WORKER = f"dask worker ADDRESS --nthreads 1 --resources {ROOM}=1"


@contextlib.contextmanager
def connected(workers: int, address: str) -> Iterator[distributed.Client]:
    """Connect to the scheduler at `address`, or to a cluster of this machine without one.

    Each of its `workers` runs one cell at a time, on its share of the cores. Raises UsageError
    where no scheduler answers.
    """
    with contextlib.ExitStack() as opened:
        cluster: Any = address
        if not address:
            threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers)
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, resources={ROOM: 1}, memory_limit=None,
                env={"OMP_NUM_THREADS": str(threads)}, silence_logs="CRITICAL",
                host="127.0.0.1", dashboard_address="127.0.0.1:8787",
            )  # fmt: skip
            opened.enter_context(cluster)
        try:
            client = opened.enter_context(distributed.Client(cluster, timeout=20))
        except (OSError, ValueError) as error:
            start = "start one with: dask scheduler"
            said = f"--scheduler {address}: none answers there ({one_line(error)}); {start}"
            raise UsageError(said) from None
        yield client


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
        self.mark, self.code = secrets.token_hex(8), plan.code()
        self.cells: dict[str, dict[str, Any]] = {}  # of study.json
        self.about: dict[str, Any] = {"revision": record.revision()}  # in study.json too
        self.events: queue.Queue = queue.Queue()  # cells that ended, and epochs' losses
        self.running: dict[distributed.Future, Cell] = {}
        self.room, self.written = 0, 0.0
        sample = study.asked.sample
        self.search = Search(study, sample, folder) if sample else None

    def workers(self) -> dict[str, int]:
        """How many cells each worker of the cluster can run at a time, by its address."""
        known = self.client.scheduler_info()["workers"]
        return {name: int(about["resources"].get(ROOM, 0)) for name, about in known.items()}

    def survey(self) -> None:
        """Ask each worker what it is; raises UsageError where one is not fit for the study."""
        write_atomically(self.folder / worker.MARK, self.mark)
        rooms, found = self.workers(), {}
        if not sum(rooms.values()):
            raise UsageError(f"the scheduler has no worker with room; start one: {START_WORKER}")
        for address in rooms:
            where = {"workers": [address], "allow_other_workers": False, "pure": False}
            found[address] = self.client.submit(worker.survey, self.study.base, **where)
        try:
            told = self.client.gather(found)
        except (ImportError, AttributeError) as error:
            remedy = "install this revision of the project there"
            raise UsageError(f"a worker cannot be used ({one_line(error)}); {remedy}") from None
        first = next(iter(told.values()))
        for address, about in told.items():
            wrong = about.get("wrong")
            if about["code"] != self.code:
                wrong = "its code or libraries differ; install this revision and the lock there"
            elif not wrong and about["manifest"] != first["manifest"]:
                wrong = f"its data is not that on {first['host']}; give a --data that all have"
            if wrong:
                raise UsageError(f"worker {address} on {about['host']}: {wrong}")
        self.room = sum(rooms.values())
        self.about["data"] = {name: first[name] for name in ("manifest", "synthetic", "kind")}
        self.about["workers"] = {address: about["host"] for address, about in told.items()}
        if self.search:
            self.client.subscribe_topic(worker.TOPIC, lambda event: self.events.put(event[1]))

    def run(self) -> None:
        """Run all cells, as many at a time as there is room for; goes on where it was stopped."""
        planned = self.study.cells()
        coming = self.search.cells() if self.search else iter(planned)
        count = self.study.count if self.search else len(planned)
        again: deque[Cell] = deque()
        with tqdm(total=count, unit=" cells", disable=None) as bar:
            while True:
                while len(self.running) < self.room:
                    if not (cell := again.popleft() if again else next(coming, None)):
                        break
                    if cell.name not in self.cells and (known := self._known(cell)):
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
                elif (told := self._outcome(cell := self.running.pop(event), event)) is None:
                    again.append(cell)
                else:
                    self._end(cell, told, bar)
        self.write()

    def _file(self, cell: Cell) -> Path:
        return self.folder / "cells" / cell.name / "cell.json"

    def _known(self, cell: Cell) -> dict[str, Any]:
        """What a cell came to that ran to its end, with code and data as they are; or nothing."""
        known = read_json(self._file(cell))
        return known if known.get("key") == self._key(cell) else {}

    def _key(self, cell: Cell) -> str:
        return self.study.key(cell, self.about["data"]["manifest"])

    def _submit(self, cell: Cell) -> None:
        tries = self.cells.get(cell.name, {}).get("tries", 0) + 1
        self.cells[cell.name] = {**plan.about(cell), "state": "running", "tries": tries}
        pruning = bool(self.search and self.search.prunes)
        asked = (cell.name, self.study.commands(cell), str(self.folder), self.mark, self.code)
        how = {"key": f"{cell.name}-{self.mark}-{tries}", "resources": {ROOM: 1}, "retries": 2}
        future = self.client.submit(self.work, *asked, pruning, **how)
        self.running[future] = cell
        future.add_done_callback(self.events.put)
        self.write(WRITTEN_EVERY)

    def _outcome(self, cell: Cell, future: distributed.Future) -> dict[str, Any] | None:
        """What became of a cell; None where it is to be tried again."""
        tries = self.cells[cell.name]["tries"]
        try:
            told = future.result()
        except distributed.CancelledError:  # the connection to the scheduler was cut
            self.cells[cell.name]["tries"] -= 1
            return None
        except (Unlucky, distributed.KilledWorker) as error:
            return {"state": "failed", "error": one_line(str(error)), "tries": tries}
        for name, content in told.pop("files").items():
            target = self._file(cell).parent / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if told["state"] == "no memory":
            self.room = max(1, self.room - 1)
            if tries < TRIES:
                return None
            told["state"] = "failed"
        return {**told, "tries": tries, "key": self._key(cell)}

    def _end(self, cell: Cell, told: dict[str, Any], bar: tqdm) -> None:
        if told["state"] != "failed":
            write_atomically(self._file(cell), json.dumps(told, indent=1))
        self.cells[cell.name] = {**plan.about(cell), **told}
        bar.update()
        if bar.disable:
            said = told.get("error") or f"{told.get('seconds', 0):.0f} s"
            ended = sum(one["state"] != "running" for one in self.cells.values())
            print(f"{cell.name}: {told['state']}, {said} ({ended} of {bar.total})", flush=True)
        if self.search:
            self.search.end(cell, told["state"], self._file(cell).parent)
        self.write(WRITTEN_EVERY)

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
            bar.set_postfix_str("" if self.workers() else f"no worker is left: {START_WORKER}")

    def write(self, every: float = 0.0) -> None:
        """Write ``study.json``, unless it was written within so many seconds."""
        if time.monotonic() - self.written >= every:
            told = {**self.study.describe(), **self.about, "cells": self.cells}
            write_atomically(self.folder / "study.json", json.dumps(told, indent=1))
            self.written = time.monotonic()
