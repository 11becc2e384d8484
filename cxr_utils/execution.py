"""Runs one notebook with papermill, in a kernel of this interpreter, and tells what happened."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from . import paths

log = logging.getLogger(__name__)


class StepFailed(Exception):
    """A notebook did not run to its end: one line that says what, where and the remedy (exit 1)."""


class OwnInterpreterKernelManager(AsyncKernelManager):
    """Starts this process's own Python, whatever kernelspecs the user has installed.

    Kernels talk over sockets in the file system where there are such, so that no port is opened. What
    libraries written in C print belongs neither in a report nor on the terminal; it goes to the log.
    """

    transport = "ipc" if os.name == "posix" else "tcp"

    def __init__(self, **options: Any) -> None:
        # A folder of its own: by default the sockets of all kernels would share their names, in the working folder.
        self._sockets = tempfile.TemporaryDirectory(prefix="cxr-")
        super().__init__(connection_file=str(Path(self._sockets.name) / "kernel.json"), **options)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        if not restart:
            self._sockets.cleanup()

    cleanup_resources = _async_cleanup_resources

    @property
    def kernel_spec(self) -> KernelSpec:
        """A specification that no folder of kernelspecs can change."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.capture_fd_output=False"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        files = [handler.baseFilename for handler in logging.getLogger(__package__).handlers if isinstance(handler, logging.FileHandler)]
        with Path(files[0] if files else os.devnull).open("ab") as output:
            await super()._async_launch_kernel(kernel_cmd, **kw | {"stdout": output, "stderr": output})


class _Listener:
    """Receives what a notebook prints: whole lines to the log, the last one beside the bar."""

    def __init__(self, step: str, bar: tqdm) -> None:
        self.step, self.bar, self.rest = step, bar, ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            log.info("%s: %s", self.step, line)
            self.bar.set_postfix_str(line[:70])
            if self.bar.disable:
                print(f"  {self.step}: {line}", flush=True)

    def flush(self) -> None:
        """Nothing is held back."""


def execute(step: str, parameters: dict[str, Any], target: Path) -> None:
    """Run the notebook of a step.

    Parameters
    ----------
    step : str
        Stem of a file in ``notebooks/``.
    parameters : dict
        Flat scalars for its parameters cell.
    target : Path
        Where the executed notebook goes; it is kept, as far as it got, when a cell fails.

    Raises
    ------
    StepFailed
        A cell raised, the kernel died, or a cell ran into its time limit.
    """
    notebook = paths.NOTEBOOKS / f"{step}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    # On a terminal a bar is drawn; elsewhere (disable=None) the notebook's lines are printed.
    started = time.perf_counter()
    manager = OwnInterpreterKernelManager()
    with tqdm(total=_cells(notebook), desc=step, unit="cell", disable=None, leave=True) as bar:
        listener = _Listener(step, bar)
        try:
            papermill.execute_notebook(
                _plain(notebook),
                _plain(target),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(paths.NOTEBOOKS),
                stdout_file=listener,
                stderr_file=listener,
                km=manager,
                on_cell_executed=lambda **_: bar.update(),
                start_timeout=120,
            )
        except PapermillExecutionError as error:
            log.error("%s failed\n%s", step, error)
            raise StepFailed(_failing_cell(step, error)) from error
        except (DeadKernelError, CellTimeoutError) as error:
            log.exception("%s failed", step)
            what = "its kernel died, perhaps of too little memory" if isinstance(error, DeadKernelError) else "a cell ran too long"
            raise StepFailed(
                f"{step}: {what}; a smaller batch_size or image_size needs less, and the same command resumes the run"
            ) from error
        finally:
            _stop(manager)
    if bar.disable:
        print(f"{step}: done in {time.perf_counter() - started:.0f} s", flush=True)


def _stop(manager: OwnInterpreterKernelManager) -> None:
    """End the kernel whatever has happened: nbclient leaves one behind that is interrupted while it starts."""
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)
    run_sync(manager.cleanup_resources)()


def _cells(notebook: Path) -> int:
    return notebook.read_text(encoding="utf-8").count('"cell_type": "code"') + 1  # papermill adds the injected one


def _plain(path: Path) -> str:
    """Papermill formats paths with ``str.format``; braces in a folder's name must stay as they are."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _failing_cell(step: str, error: PapermillExecutionError) -> str:
    first = next((line for line in error.source.splitlines() if line.strip() and not line.startswith("#")), "").strip()
    reason = " ".join(str(error.evalue).split())[:300]
    return f"{step}: cell {error.exec_count} ({first[:60]}) raised {error.ename}: {reason}"


def quiet_libraries() -> None:
    """Keep TensorFlow's start-up messages out of the notebooks; kernels inherit the setting."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(logging.ERROR)
