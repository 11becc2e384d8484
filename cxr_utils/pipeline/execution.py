"""Runs one notebook with papermill, in a kernel of this interpreter, and tells what happened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from .. import paths
from ..files import NO_ROOM, part_of, put_in_place

log = logging.getLogger(__name__)

BAR = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed} gone, {remaining} to go{postfix}"
EPOCH = (
    10  # an epoch of training takes about as long as this many cells, for what the bar says remains
)


class StepFailed(Exception):
    """A notebook did not run to its end: one line that says what, where and the remedy (exit 1)."""


class OwnInterpreterKernelManager(AsyncKernelManager):
    """Starts this process's own Python, whatever kernelspecs the user has installed.

    Kernels talk over sockets in the file system where there are such, so that no two can meet on a port;
    what a kernel opens for its own threads is on 127.0.0.1. What libraries written in C print belongs
    neither in a report nor on the terminal; it goes to the log.

    Parameters
    ----------
    temporary : Path
        Where the sockets and all temporary files of the kernel go; whoever made it removes it.
    """

    transport = "ipc" if os.name == "posix" else "tcp"

    def __init__(self, temporary: Path, **options: Any) -> None:
        # A folder of its own: by default the sockets of all kernels would share their names, in the working folder.
        self._temporary = tempfile.mkdtemp(prefix="kernel-", dir=temporary)
        super().__init__(connection_file=str(Path(self._temporary) / "kernel.json"), **options)

    @property
    def kernel_spec(self) -> KernelSpec:
        """A specification that no folder of kernelspecs can change."""
        argv = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            "--IPKernelApp.capture_fd_output=False",
        ]
        return KernelSpec(
            argv=argv, display_name="Python 3", language="python", env={"TMPDIR": self._temporary}
        )

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        files = [
            handler.baseFilename
            for handler in logging.getLogger("cxr_utils").handlers
            if isinstance(handler, logging.FileHandler)
        ]
        with Path(files[0] if files else os.devnull).open("ab") as output:
            await super()._async_launch_kernel(
                kernel_cmd, **kw | {"stdout": output, "stderr": output}
            )

    def kill(self) -> None:
        """End the kernel's process, and what it started, at once; may be called from another thread."""
        pid = getattr(self.provisioner, "pid", None)
        with contextlib.suppress(psutil.Error):
            kernel = psutil.Process(pid) if pid else None
            for process in [*kernel.children(recursive=True), kernel] if kernel else []:
                process.kill()

    def stop(self) -> None:
        """Leave no process behind, whatever has happened: nbclient forgets a kernel that is interrupted while it starts."""
        self.kill()
        _abandon_tasks()
        if self.has_kernel:
            run_sync(self.shutdown_kernel)(now=True)
        run_sync(self.cleanup_resources)()


def _abandon_tasks() -> None:
    """Cancel what was awaited when a signal came: it would go on, and start its kernel, as soon as anything else is awaited."""
    loop = ensure_event_loop()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


class _Watch:
    """Sees how far a notebook is: moves the bar, notes the cell that runs, and ends the kernel when its time is up.

    Whole lines that the notebook prints go to the log and the last one beside the bar; without a terminal they are printed.
    """

    def __init__(
        self,
        step: str,
        bar: tqdm,
        manager: OwnInterpreterKernelManager,
        minutes: float,
        epochs: int,
    ) -> None:
        self.step, self.bar, self.manager, self.minutes = step, bar, manager, minutes
        self.rest, self.cell, self.late, self.epochs = "", 0, False, 0
        self._expect(epochs)

    def begin(self, cell_index: int, **_: Any) -> None:
        """Called by nbclient before a cell runs."""
        self.cell = cell_index

    def end(self, **_: Any) -> None:
        """Called by nbclient after a code cell ran."""
        self.bar.update()

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            log.info("%s: %s", self.step, line)
            self._count_epochs(line)
            self.bar.set_postfix_str(line[:70])
            if self.bar.disable:
                print(f"  {self.step}: {line}", flush=True)

    def flush(self) -> None:
        """Nothing is held back."""

    def _count_epochs(self, line: str) -> None:
        announced, done = (
            re.search(r", (\d+) epochs? of", line),
            re.match(r"going on after epoch (\d+)|epoch \d+/", line),
        )
        if announced or ": loaded, trained before" in line:
            self._expect(int(announced[1]) if announced else 0)
        elif done:
            self.bar.update(EPOCH * int(done[1] or 1))

    def _expect(self, epochs: int) -> None:
        self.bar.total += EPOCH * (epochs - self.epochs)
        self.epochs = epochs

    def what_ended(self, error: Exception) -> tuple[str, str]:
        """Say what became of the cell that ran, and the remedy."""
        if self.late:
            return f"was not done after {self.minutes:g} minutes", "--time-limit gives it more"
        if isinstance(error, CellTimeoutError):
            return (
                "was cut off, as its output did not arrive",
                "a machine with less to do is faster",
            )
        return (
            "lost its kernel, perhaps for too little memory",
            "a smaller batch_size or image_size needs less",
        )

    @contextlib.contextmanager
    def look(self) -> Iterator[None]:
        """Look every second: the time on the bar goes on, and a kernel that is out of time is killed."""
        over = threading.Event()
        started = time.monotonic()

        def tick() -> None:
            while not over.wait(1):
                self.bar.refresh()
                if (
                    self.minutes
                    and time.monotonic() - started > 60 * self.minutes
                    and self.manager.has_kernel
                ):
                    self.late = True
                    self.manager.kill()
                    return

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()


def execute(
    step: str, parameters: dict[str, Any], target: Path, temporary: Path, minutes: float = 0
) -> None:
    """Run the notebook of a step.

    Parameters
    ----------
    step : str
        Stem of a file in ``notebooks/``.
    parameters : dict
        Flat scalars for its parameters cell.
    target : Path
        Where the executed notebook goes; it is kept, as far as it got, however the step ends.
    temporary : Path
        Folder for sockets and temporary files.
    minutes : float
        Time limit; 0 is none.

    Raises
    ------
    StepFailed
        A cell raised, the kernel died, or the time was up.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, broken = part_of(target), ""
    started = time.perf_counter()
    manager = OwnInterpreterKernelManager(temporary)
    # On a terminal a bar is drawn; elsewhere (disable=None) the notebook's lines are printed.
    with tqdm(total=_cells(step), desc=step, disable=None, bar_format=BAR) as bar:
        watch = _Watch(step, bar, manager, minutes, parameters.get("epochs", 0))
        plain = bar.disable  # asked now, as a bar that is closed counts as disabled
        try:
            with watch.look():
                _run(step, part, parameters, manager, watch)
            bar.total = bar.n  # of a training that stopped early epochs are left
        except PapermillExecutionError as error:
            log.error("%s failed\n%s", step, error)
            raise StepFailed(_failing_cell(step, error)) from error
        except (
            DeadKernelError,
            CellTimeoutError,
            RuntimeError,
            TimeoutError,
        ) as error:  # the last two while a kernel starts
            log.exception("%s failed", step)
            broken, remedy = watch.what_ended(error)
            raise StepFailed(
                f"{step}: cell {watch.cell + 1} {broken}; {remedy}, and the same command resumes the run"
            ) from error
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


def _run(
    step: str,
    part: Path,
    parameters: dict[str, Any],
    manager: OwnInterpreterKernelManager,
    watch: _Watch,
) -> None:
    papermill.execute_notebook(
        _plain(paths.NOTEBOOKS / f"{step}.ipynb"),
        _plain(part),
        parameters,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        cwd=str(paths.NOTEBOOKS),
        stdout_file=watch,
        stderr_file=watch,
        km=manager,
        on_cell_start=watch.begin,
        on_cell_executed=watch.end,
        start_timeout=120,
        iopub_timeout=120,  # a busy machine may take longer than nbclient's 4 s to hand an output over
    )


def _keep(part: Path, target: Path, cell: int, broken: str) -> None:
    """Give the executed notebook its name, with a mark at the cell that was cut short, unless it could not be written whole."""
    try:
        notebook = nbformat.read(part, as_version=4)
        if broken:
            mark = nbformat.v4.new_output(
                "error", ename="Stopped here", evalue=broken, traceback=[f"This cell {broken}."]
            )
            place = next(
                number
                for number, found in enumerate(notebook.cells)
                if number >= cell and found.cell_type == "code"
            )
            notebook.cells[place].outputs.append(mark)
            part.write_text(nbformat.writes(notebook), encoding="utf-8")
        put_in_place(part, target)
    except (OSError, ValueError, StopIteration, AttributeError) as error:
        log.error("%s could not be kept: %s", target, error)
    finally:
        part.unlink(missing_ok=True)


def _cells(step: str) -> int:
    """How many cells will run; papermill adds the injected one."""
    notebook = nbformat.read(paths.NOTEBOOKS / f"{step}.ipynb", as_version=4)
    return sum(cell.cell_type == "code" for cell in notebook.cells) + 1


def _plain(path: Path) -> str:
    """Papermill formats paths with ``str.format``; braces in a folder's name must stay as they are."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _failing_cell(step: str, error: PapermillExecutionError) -> str:
    first = next(
        (line for line in error.source.splitlines() if line.strip() and not line.startswith("#")),
        "",
    ).strip()
    reason = " ".join(str(error.evalue).split())[:300]
    full = any(f"[Errno {number}]" in reason for number in NO_ROOM)
    remedy = "make room on that disk" if full else "mend that"
    cell = f"{step}: cell {error.cell_index + 1} ({first[:60]})"
    return f"{cell} raised {error.ename}: {reason}; {remedy}, and the same command resumes the run"


def quiet_libraries() -> None:
    """Keep TensorFlow's start-up messages out of the notebooks; kernels inherit the setting."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(logging.ERROR)
