"""Runs ``run_all.py`` as a process of its own, and tells what can be expected of another try."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from .. import paths
from ..files import one_line

HELD = "is at work there"  # another process is: what is left of a worker that died
NO_MEMORY = ("MemoryError", "ResourceExhaustedError", "perhaps for too little memory")
PASSES = ("was cut off", "Address already in use", "BlockingIOError", "Resource temporarily")
LOOKS = 0.2  # seconds between two looks at a run


class Failed(Exception):
    """A run failed, and would again."""


class Unlucky(Exception):
    """A run failed, and may not if it is repeated."""


def run(arguments: Sequence[str], over: Callable[[], bool] = lambda: False) -> bool:
    """Run ``run_all.py`` until it ends, or is `over`; returns whether it ended by itself.

    It waits for another process at work in the same folder. Its threads are as many as
    ``$OMP_NUM_THREADS`` says. Raises Failed, Unlucky or MemoryError, with what the run said.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    more = {f"TF_NUM_{kind}_THREADS": threads for kind in ("INTRAOP", "INTEROP") if threads}
    # Where the system can, a run is told to end when the process that waits for it dies.
    ends = ["setpriv", "--pdeathsig", "TERM"] * bool(shutil.which("setpriv"))
    command = [*ends, sys.executable, str(paths.ROOT / "run_all.py"), *arguments]
    while True:
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                command, env=os.environ | more, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
            try:
                while process.poll() is None and not over():
                    time.sleep(LOOKS)
            finally:
                stopped = process.poll() is None
                process.terminate()
                process.wait()
            said.seek(0)
            lines = said.read().splitlines() or [f"ended with {process.returncode}"]
        if stopped or process.returncode == 0:
            return not stopped
        if HELD not in lines[-1]:
            raise _what_failed(lines, process.returncode)
        time.sleep(1)


def _what_failed(lines: list[str], code: int) -> Exception:
    said = next((line for line in lines if line.startswith("error:")), lines[-1])
    problem = one_line(said.removeprefix("error: "))
    if code == -9 or any(sign in problem for sign in NO_MEMORY):
        return MemoryError(problem)
    passes = code < 0 or any(sign in problem for sign in PASSES)
    return (Unlucky if passes else Failed)(problem)
