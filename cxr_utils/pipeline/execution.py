"""Runs one notebook with papermill, in a kernel of this interpreter, and tells what happened."""

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from .. import paths
from ..files import NO_ROOM, part_of, put_in_place, read_json

log = logging.getLogger(__name__)

BAR = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed} gone, {remaining} to go{postfix}"
EPOCH = 10  # an epoch counts as so many cells on the bar
RESUMES = "and the same command resumes the run"
# Any notebook is run so: in Python, whatever it names, silently, with time for a busy machine.
HOW: dict[str, Any] = {"kernel_name": "python3", "language": "python", "progress_bar": False}
HOW |= {"start_timeout": 120, "iopub_timeout": 120}  # seconds; nbclient's are 60 and 4


class StepFailed(Exception):
    """A notebook did not run to its end: one line: what, where and the remedy (exit 1)."""


class OwnInterpreterKernelManager(AsyncKernelManager):
    """Starts this process's own Python, whatever kernelspecs the user has installed.

    Kernels talk over sockets in the file system where there are such, so that no two can meet on a
    port. What libraries written in C print goes to the log, not into a report or on the terminal.
    Sockets and temporary files of the kernel go to `temporary`; whoever made it removes it.
    """

    transport = "ipc" if os.name == "posix" else "tcp"

    def __init__(self, temporary: Path) -> None:
        # By default the sockets of all kernels would share their names, in the working folder.
        self._temporary = tempfile.mkdtemp(prefix="kernel-", dir=temporary)
        file = str(Path(self._temporary) / "kernel.json")
        # A signal may leave a socket open; ending its context would wait for it forever, and the
        # shared context is never ended.
        super().__init__(connection_file=file, context=zmq.asyncio.Context.instance())

    def client(self, **kw: Any) -> AsyncKernelClient:  # type: ignore[override]
        """Return a client that shares the context as well."""
        return super().client(context=self.context, **kw)

    @property
    def kernel_spec(self) -> KernelSpec:
        """A specification that no folder of kernelspecs can change."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        argv += ["--IPKernelApp.capture_fd_output=False"]
        named = {"display_name": "Python 3", "language": "python"}
        return KernelSpec(argv=argv, env={"TMPDIR": self._temporary}, **named)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        handlers = logging.getLogger("cxr_utils").handlers
        files = [one.baseFilename for one in handlers if isinstance(one, logging.FileHandler)]
        with Path(files[0] if files else os.devnull).open("ab") as output:
            kw |= {"stdout": output, "stderr": output}
            await super()._async_launch_kernel(kernel_cmd, **kw)

    def kill(self) -> None:
        """End the kernel's process, and what it started; may be called from another thread."""
        if pid := getattr(self.provisioner, "pid", None):
            with contextlib.suppress(psutil.Error):
                kernel = psutil.Process(pid)
                for process in [*kernel.children(recursive=True), kernel]:
                    process.kill()

    def stop(self) -> None:
        """Leave no process behind: nbclient forgets a kernel that is interrupted as it starts."""
        self.kill()
        loop = ensure_event_loop()
        # What was awaited when a signal came would go on, and start its kernel, at the next await.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        if self.has_kernel:
            run_sync(self.shutdown_kernel)(now=True)
        run_sync(self.cleanup_resources)()


@dataclass
class _Watch:
    """Sees how far a notebook is: moves the bar, and ends the kernel when its time is up.

    Whole lines that the notebook prints go to the log and the last one beside the bar; without a
    terminal they are printed. Epochs are read from the file where the training counts them.
    """

    step: str
    bar: tqdm
    manager: OwnInterpreterKernelManager
    minutes: float
    progress: Path | None
    epochs: int  # as asked for, until the training says how many it plans
    known: dict[str, int] = field(default_factory=dict)  # what the training said last
    rest: str = ""  # of what was printed: the line that has not ended
    cell: int = 0  # that runs, from 0
    done: int = 0  # code cells
    late: bool = False

    def __post_init__(self) -> None:
        self.cells = self.bar.total
        self.move()

    def begin(self, cell_index: int, **_: Any) -> None:
        self.cell = cell_index

    def end(self, **_: Any) -> None:
        self.done += 1
        self.move()

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            log.info("%s: %s", self.step, line)
            self.bar.set_postfix_str(line[:70])
            if self.bar.disable:
                print(f"  {self.step}: {line}", flush=True)

    def flush(self) -> None: ...

    def move(self) -> None:
        if self.progress:  # the training takes the file away as it ends; the bar stays where it is
            self.known = read_json(self.progress) or self.known
        self.bar.total = self.cells + EPOCH * self.known.get("epochs", self.epochs)
        self.bar.n = self.done + EPOCH * self.known.get("epoch", 0)
        self.bar.refresh()

    @contextlib.contextmanager
    def look(self) -> Iterator[None]:
        """Look every second: the bar moves, and a kernel that is out of time is killed."""
        over, started = threading.Event(), time.monotonic()

        def tick() -> None:
            while not self.late and not over.wait(1):
                self.move()
                out_of_time = self.minutes and time.monotonic() - started > 60 * self.minutes
                if out_of_time and self.manager.has_kernel:
                    self.late = True
                    self.manager.kill()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()

    def what_ended(self, error: Exception) -> tuple[str, str]:
        """Say what became of the cell that ran, and the remedy."""
        if self.late:
            return f"was not done after {self.minutes:g} minutes", "--time-limit gives it more"
        if isinstance(error, CellTimeoutError):
            reason = "was cut off, as its output did not arrive"
            return reason, "a machine with less to do is faster"
        reason = "lost its kernel, perhaps for too little memory"
        return reason, "a smaller batch_size or image_size needs less"


def execute(
    step: str,
    parameters: dict[str, Any],
    target: Path,
    temporary: Path,
    minutes: float = 0,
    progress: Path | None = None,
) -> None:
    """Run the notebook of a step with flat scalars for its parameters cell.

    Raises StepFailed where a cell raised, the kernel died, or the time was up.

    Parameters
    ----------
    target : Path
        Where the executed notebook goes; it is kept, as far as it got, however the step ends.
    temporary : Path
        Folder for sockets and temporary files.
    minutes : float
        Time limit; 0 is none.
    progress : Path, optional
        Where its training says how many epochs are done, and planned.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # kernels inherit it
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    part, broken, started = part_of(target), "", time.perf_counter()
    source = paths.NOTEBOOKS / f"{step}.ipynb"
    cells = nbformat.read(source, as_version=4).cells
    total = sum(cell.cell_type == "code" for cell in cells) + 1  # papermill injects one
    manager = OwnInterpreterKernelManager(temporary)
    # On a terminal a bar is drawn; elsewhere (disable=None) the notebook's lines are printed.
    with tqdm(total=total, desc=step, disable=None, bar_format=BAR) as bar:
        watch = _Watch(step, bar, manager, minutes, progress, parameters.get("epochs", 0))
        plain = bar.disable  # asked now, as a bar that is closed counts as disabled
        seen = {"on_cell_start": watch.begin, "on_cell_executed": watch.end}
        said = {"stdout_file": watch, "stderr_file": watch, "cwd": str(paths.NOTEBOOKS)}
        # Papermill formats paths with str.format; braces in a folder's name must stay.
        files = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, part)]
        try:
            with watch.look():
                papermill.execute_notebook(*files, parameters, km=manager, **seen, **said, **HOW)
            bar.total = bar.n  # of a training that stopped early epochs are left
        except PapermillExecutionError as error:
            log.error("%s failed\n%s", step, error)
            raise StepFailed(_failing_cell(step, error)) from error
        # A kernel that died, output that did not arrive, or either while the kernel starts.
        except (RuntimeError, TimeoutError) as error:
            log.exception("%s failed", step)
            broken, remedy = watch.what_ended(error)
            where = f"{step}: cell {watch.cell + 1}"
            raise StepFailed(f"{where} {broken}; {remedy}, {RESUMES}") from error
        except BaseException:
            broken = "was interrupted"
            raise
        finally:
            try:
                manager.stop()
            finally:
                _keep(part, target, watch.cell, broken)
    if plain:
        print(f"{step}: done in {time.perf_counter() - started:.0f} s", flush=True)


def _keep(part: Path, target: Path, cell: int, broken: str) -> None:
    """Give the executed notebook its name, with a mark at the cell that was cut short."""
    try:
        notebook = nbformat.read(part, as_version=4)
        if broken:
            said = {"ename": "Stopped here", "evalue": broken}
            error = nbformat.v4.new_output("error", **said, traceback=[f"This cell {broken}."])
            next(one for one in notebook.cells[cell:] if one.cell_type == "code").outputs += [error]
            part.write_text(nbformat.writes(notebook), encoding="utf-8")
        put_in_place(part, target)
    except (OSError, ValueError, StopIteration, AttributeError) as error:
        log.error("%s could not be kept: %s", target, error)
    finally:
        part.unlink(missing_ok=True)


def _failing_cell(step: str, error: PapermillExecutionError) -> str:
    lines = filter(None, map(str.strip, error.source.splitlines()))
    first = next((line for line in lines if not line.startswith("#")), "")
    reason = " ".join(str(error.evalue).split())[:300]
    full = any(f"[Errno {number}]" in reason for number in NO_ROOM)
    remedy = "make room on that disk" if full else "mend that"
    where = f"{step}: cell {error.cell_index + 1} ({first[:60]})"
    return f"{where} raised {error.ename}: {reason}; {remedy}, {RESUMES}"
