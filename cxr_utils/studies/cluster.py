"""Connects to the workers of a study, and checks that they are fit for it."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import distributed

from ..files import one_line
from ..parameters import Params, UsageError
from ..pipeline import validity
from . import worker

ROOM = "run"  # the Dask resource that limits how many cells a worker runs at a time
START = f"dask worker ADDRESS --nthreads 1 --resources {ROOM}=1"


@contextlib.contextmanager
def connected(workers: int, address: str) -> Iterator[distributed.Client]:
    """Connect to the scheduler at `address`, or to a cluster of this machine without one.

    Each of its `workers` runs one cell at a time, on its share of the cores. Raises UsageError.
    """
    with contextlib.ExitStack() as opened:
        cluster: Any = address
        if not address:
            threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers)
            with warnings.catch_warnings(action="ignore"):  # that another dashboard has the port
                cluster = distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, resources={ROOM: 1}, memory_limit=None,
                    env={"OMP_NUM_THREADS": str(threads)}, silence_logs="CRITICAL",
                    host="127.0.0.1", dashboard_address="127.0.0.1:8787",
                )  # fmt: skip
            opened.enter_context(cluster)
        try:
            client = opened.enter_context(distributed.Client(cluster, timeout=5))
        except (OSError, ValueError) as error:
            why = f"no scheduler answers there ({one_line(error)}); start one: dask scheduler"
            raise UsageError(f"--scheduler {address}: {why}") from None
        yield client


def rooms(client: distributed.Client) -> dict[str, int]:
    """Return how many cells a worker of a cluster can run at a time, by address, if it can any."""
    known = client.scheduler_info(n_workers=-1)["workers"]
    found = {address: int(about["resources"].get(ROOM, 0)) for address, about in known.items()}
    return {address: room for address, room in found.items() if room}


def survey(
    client: distributed.Client, params: Params, steps: list[str]
) -> dict[str, dict[str, Any]]:
    """Let each worker prepare the data; returns what `worker.survey` says of each, by address.

    Raises UsageError where one is not fit for the study, or there is none.
    """
    if not (there := rooms(client)):
        raise UsageError(f"the scheduler has no worker with room for a run; start one: {START}")
    found = {address: client.submit(worker.survey, params, steps, workers=[address], pure=False)
             for address in there}  # fmt: skip
    try:
        told = client.gather(found)
    except (ImportError, AttributeError) as error:
        remedy = "install this revision of the project there"
        raise UsageError(f"a worker cannot be used ({one_line(error)}); {remedy}") from None
    first, known = next(iter(told.values())), validity.numbers_digest(steps)
    for address, about in told.items():
        wrong = about.get("wrong")
        if about["code"] != known:
            wrong = "its code or libraries differ; install this revision and the lock there"
        elif not wrong and about["manifest"] != first["manifest"]:
            wrong = f"its data is not that on {first['host']}; give a --data that all have"
        if wrong:
            raise UsageError(f"worker {address} on {about['host']}: {wrong}")
    return told
