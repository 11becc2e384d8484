"""A bench on which runs are broken, and on which what they leave is checked."""

import contextlib
import csv
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest
from PIL import Image

from cxr_utils import paths

PARTS = ("cxr_utils", "notebooks", "params")
SMALL = {
    "baseline_cnn.epochs": 3,
    "baseline_cnn.average": 0.9,
    "resnet50v2.backbone": "MobileNet",
    "resnet50v2.epochs": 2,
    "evaluation.resamples": 100,
}
COMMAND = ["smoke", "--data", "phantom"]
COMMAND += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
SECRET = "hunter2-secret"  # in the environment of the runs; nothing may write it down
ENOUGH = 600  # seconds that no run takes
MARK = "CXR_TEST_BENCH"  # by its value the processes of a bench are known, whoever their parent is


def copy_project(target):
    """Copy what a run needs, so that a test may change it."""
    for part in PARTS:
        shutil.copytree(
            paths.ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(paths.ROOT / "run_all.py", target)
    return target


def _before(limit):
    """In the process to be: Ctrl-C arrives also in the background; files grow to a limit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


class Bench:
    """A copy of the project with its own reports; runs share the cache of the tests."""

    def __init__(self, folder):
        self.project, self.mark = copy_project(folder / "project"), uuid.uuid4().hex
        self.out, self.said = folder / "reports", folder / "said.txt"
        self.temporary = Path(tempfile.mkdtemp(prefix="f"))  # short, as sockets lie in it
        self.run = paths.RunFolder(self.out / "smoke")

    def close(self):
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def start(self, *extra, limit=0, **environment):
        """Start a run; with a `limit` no file can grow over so many bytes."""
        command = [sys.executable, "-u", str(self.project / "run_all.py"), *COMMAND]
        command += ["--out", str(self.out), *extra]
        own = {"PYTHONPATH": str(self.project), "TMPDIR": str(self.temporary), MARK: self.mark}
        with self.said.open("w") as said:
            return subprocess.Popen(
                command,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=os.environ | own | environment,
                preexec_fn=functools.partial(_before, limit),
            )

    def finish(self, *extra, **options):
        """Run to the end; returns the exit code."""
        return self.start(*extra, **options).wait(ENOUGH)

    def until(self, words, process):
        """Wait until a run has said something."""
        started = time.monotonic()
        while words not in self.said.read_text():
            assert process.poll() is None and time.monotonic() - started < ENOUGH, (
                f"never said {words!r}: {self.said.read_text()}"
            )
            time.sleep(0.05)

    def processes(self):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.environ().get(MARK) == self.mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def kernels(self):
        return [
            process for process in self.processes() if "ipykernel_launcher" in process.cmdline()
        ]

    def plant(self, step, code, rng):
        """Put a cell somewhere behind a notebook's parameters; returns what takes it out again."""
        file = self.project / "notebooks" / f"{step}.ipynb"
        before = file.read_bytes()
        notebook = nbformat.reads(before.decode(), as_version=4)
        first = 1 + next(
            place
            for place, cell in enumerate(notebook.cells)
            if "parameters" in cell.metadata.get("tags", [])
        )
        notebook.cells.insert(
            rng.randint(first, len(notebook.cells)), nbformat.v4.new_code_cell(code)
        )
        nbformat.write(notebook, file)
        return lambda: file.write_bytes(before)


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of its own, in memory; skips where mounting one is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def keep_full(folder, process):
    """Take what room there is on a disk until a process has ended; then give it back."""
    eaten = folder / "eaten"
    with eaten.open("ab", buffering=0) as file:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            time.sleep(0.02)
    eaten.unlink()


def check_stopped(bench):
    """No traceback on the terminal, no process left, and every file that has its name is whole."""
    said = bench.said.read_text()
    assert "Traceback" not in said, said
    for _ in range(
        100
    ):  # a kernel whose runner was killed looks once a second whether it is still there
        if not bench.processes():
            break
        time.sleep(0.1)
    assert not bench.processes(), [process.cmdline() for process in bench.processes()]
    files = bench.run.root.rglob("*") if bench.run.root.is_dir() else []
    for file in (file for file in files if file.is_file() and not file.name.startswith(".")):
        _check_whole(file)


def _check_whole(file):
    if file.suffix == ".json":
        json.loads(file.read_text())
    elif file.suffix == ".ipynb":
        nbformat.validate(nbformat.read(file, as_version=4))
    elif file.suffix == ".csv":
        assert len({len(row) for row in csv.reader(file.open())}) == 1, file
    elif file.suffix == ".png":
        with Image.open(file) as picture:
            picture.load()
    elif file.suffix == ".html":
        assert file.read_text().rstrip().endswith("</html>"), file
    elif file.suffix in (".keras", ".checkpoint"):
        assert zipfile.ZipFile(file).testzip() is None, file


def results(run):
    """All that must not depend on what happened to a run: scores, predictions, verdict."""
    known = json.loads(run.metrics.read_text())
    files = sorted([*run.root.glob("predictions/*.csv"), *run.root.glob("floors/*.csv")])
    said = re.search(r"<h2[^>]*>Verdict.*?</table>", run.index.read_text(), flags=re.DOTALL)[0]
    return known, {file.name: file.read_bytes() for file in files}, said


def check_recovers(bench, undisturbed):
    """The same command ends with the results of a run that was left alone."""
    assert bench.finish() == 0, bench.said.read_text()
    check_stopped(bench)
    assert results(bench.run) == undisturbed
    assert (
        not list(bench.run.parts())
        and not bench.run.holder.exists()
        and not list(bench.run.root.rglob("*.checkpoint"))
    )
    assert not list(bench.temporary.iterdir()), list(bench.temporary.iterdir())
    assert "This run is incomplete" not in bench.run.index.read_text()


def kill_at_random(bench, rng, seconds):
    """Kill or interrupt the runner, the kernel or both, somewhere in `seconds`.

    Returns
    -------
    bool
        Whether there was still something to kill.
    """
    way, delay = (
        rng.choice(("runner", "kernel", "both", "SIGTERM", "SIGINT", "twice")),
        rng.uniform(1, seconds),
    )
    process = bench.start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    struck = process.poll() is None
    if way in ("kernel", "both"):
        kernels = bench.kernels()
        struck = struck and bool(kernels or way == "both")
        for kernel in kernels:
            kernel.kill()
    if struck and way != "kernel":
        process.send_signal(
            {"runner": signal.SIGKILL, "both": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(
                way, signal.SIGINT
            )
        )
    if struck and way == "twice":
        time.sleep(rng.uniform(0, 1))
        process.send_signal(signal.SIGTERM)
    code = process.wait(ENOUGH)
    # An end may come before the blow, and a kernel's death in its last moments does no harm.
    expected = {
        "runner": {-9},
        "both": {-9},
        "kernel": {0, 1},
        "SIGTERM": {0, 143},
        "SIGINT": {0, 130},
        "twice": {0, 130},
    }
    assert code in (expected[way] if struck else {0}), (way, delay, code, bench.said.read_text())
    check_stopped(bench)
    print(f"{way} after {delay:.0f} s: exit {code}{'' if struck else ', too late'}")
    return struck and code != 0
