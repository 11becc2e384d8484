"""Runs ``run_all.py`` as a process of its own, and tells what can be expected of another try."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import paths
from ..files import one_line, read_json

HELD = "is at work there"  # another process is: what is left of a worker that died
NO_MEMORY = ("MemoryError", "ResourceExhaustedError", "perhaps for too little memory")
PASSES = ("was cut off", "Address already in use", "BlockingIOError", "Resource temporarily")
STOPPED = (130, 143)  # exit codes of a run that a signal ended
LOOKS = 0.5  # seconds between two looks at a run


class Failed(Exception):
    """A run failed, and would again."""


class Unlucky(Exception):
    """A run failed, and may not if it is repeated."""


def run(
    arguments: Sequence[str],
    folder: paths.RunFolder,
    hopeless: Callable[[int, float], bool] | None = None,
) -> bool:
    """Run ``run_all.py`` in a folder until it ends; returns whether it came to its own end.

    `hopeless` is told the validation loss of each epoch, and may say that it is to end now. It
    waits for another process at work in the folder. Its threads are as many as
    ``$OMP_NUM_THREADS`` says. Raises Failed, Unlucky or MemoryError, with what the run said.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    more = {f"TF_NUM_{kind}_THREADS": threads for kind in ("INTRAOP", "INTEROP") if threads}
    # Where the system can, a run is told to end when the process that waits for it dies.
    ends = ["setpriv", "--pdeathsig", "TERM"] * bool(shutil.which("setpriv"))
    command = [*ends, sys.executable, str(paths.ROOT / "run_all.py"), *arguments]
    command += [f"--run={folder.name}", f"--out={folder.root.parent}"]
    while True:
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                command, env=os.environ | more, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
            try:
                stopped = hopeless is not None and _watch(process, folder, hopeless)
                code = process.wait() if not stopped else 0
            finally:
                process.terminate()
                process.wait()
            said.seek(0)
            lines = said.read().splitlines() or [f"ended with {code}"]
        if stopped or code == 0:
            return not stopped
        if HELD not in lines[-1]:
            raise _what_failed(lines, code)
        time.sleep(LOOKS)


def _watch(process: subprocess.Popen, folder: paths.RunFolder, hopeless: Callable) -> bool:
    """Tell the losses of a training's epochs as they end; returns whether it is to end."""
    told, started = 0, time.time()
    while process.poll() is None:
        for file in folder.progress("x").parent.glob("*.progress.json"):
            for loss in read_json(file).get("losses", [])[told:] * _is_since(started, file):
                told += 1
                if hopeless(told, loss):
                    return True
        time.sleep(LOOKS)
    return False


def _is_since(moment: float, file: Path) -> bool:
    """Tell whether a file was written since: not what a run that was killed left, nor one gone."""
    with contextlib.suppress(OSError):
        return file.stat().st_mtime >= moment
    return False


def _what_failed(lines: list[str], code: int) -> Exception:
    said = next((line for line in lines if line.startswith("error:")), lines[-1])
    problem = one_line(said.removeprefix("error: "))
    if code == -9 or any(sign in problem for sign in NO_MEMORY):
        return MemoryError(problem)
    passes = code < 0 or code in STOPPED or any(sign in problem for sign in PASSES)
    return (Unlucky if passes else Failed)(problem)
