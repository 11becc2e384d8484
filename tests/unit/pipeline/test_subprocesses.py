"""A run as a process of its own: how it ends, and what another try can be expected to give."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cxr_utils import paths
from cxr_utils.pipeline import subprocesses


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Let other lines stand for ``run_all.py``."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    def write(lines):
        (tmp_path / "run_all.py").write_text(f"import os, pathlib, sys, time\n{lines}\n")
        return paths.RunFolder(tmp_path / "runs" / "one")

    return write


def _says(text, code):
    return f"print({text!r}, file=sys.stderr); sys.exit({code})"


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (_says("error: epochs = 0: must be greater", 2), subprocesses.Failed),
        (_says("error: 02: cell 9 raised ValueError: no; mend that", 1), subprocesses.Failed),
        (_says("error: 02: cell 9 raised ResourceExhaustedError: big", 1), MemoryError),
        (_says("error: 02: cell 9 lost its kernel, perhaps for too little memory", 1), MemoryError),
        ("os.kill(os.getpid(), 9)", MemoryError),
        (_says("error: 02 raised ZMQError: Address already in use", 1), subprocesses.Unlucky),
        (_says("error: 02: cell 3 was cut off, as its output is late", 1), subprocesses.Unlucky),
        (_says("terminated; the same command resumes the run", 143), subprocesses.Unlucky),
        ("os.kill(os.getpid(), 15)", subprocesses.Unlucky),
        ("sys.exit(1)", subprocesses.Failed),
    ],
)  # fmt: skip
def test_how_a_run_fails_says_whether_to_try_again(stand_in, lines, kind):
    folder = stand_in(lines)
    with pytest.raises(Exception) as raised:
        subprocesses.run([], folder)
    assert type(raised.value) is kind and "error:" not in str(raised.value)


def test_what_a_run_is_told(stand_in, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    folder = stand_in(
        "pathlib.Path(sys.argv[0]).with_name('said').write_text(' '.join(sys.argv[1:] + "
        "[os.environ['TF_NUM_INTRAOP_THREADS'], os.environ['TF_NUM_INTEROP_THREADS']]))"
    )
    assert subprocesses.run(["smoke", "--only=02"], folder)
    told = f"smoke --only=02 --run=one --out={tmp_path / 'runs'} 3 3"
    assert (tmp_path / "said").read_text() == told


def test_it_waits_for_another_process_in_the_folder(stand_in):
    folder = stand_in(
        "tries = pathlib.Path(sys.argv[0]).with_name('tries')\n"
        "tries.write_text(tries.read_text() + 'x' if tries.exists() else 'x')\n"
        "if len(tries.read_text()) < 3:\n"
        "    sys.exit(print('error: process 7 is at work there; wait', file=sys.stderr) or 2)"
    )
    assert subprocesses.run([], folder)
    assert (paths.ROOT / "tries").read_text() == "xxx"


def test_a_hopeless_run_is_ended(stand_in):
    """By its own losses: what a run that was killed left is not told."""
    folder, seen = stand_in(""), []
    file = folder.make().progress("m")
    file.write_text(json.dumps({"losses": [9.0]}))
    os.utime(file, (1, 1))
    told = json.dumps({"losses": [0.5, 0.9]})
    stand_in(f"time.sleep(1); pathlib.Path({str(file)!r}).write_text({told!r}); time.sleep(60)")

    def hopeless(epoch, loss):
        seen.append((epoch, loss))
        return loss > 0.8

    started = time.monotonic()
    assert not subprocesses.run([], folder, hopeless)
    assert seen == [(1, 0.5), (2, 0.9)] and time.monotonic() - started < 30


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_a_run_ends_with_the_process_that_waits_for_it(stand_in, tmp_path):
    folder = stand_in("pathlib.Path(sys.argv[0]).with_name('pid').write_text(str(os.getpid()))\n"
                      "time.sleep(60)")  # fmt: skip
    code = (
        "import pathlib; from cxr_utils import paths; from cxr_utils.pipeline import subprocesses; "
        f"paths.ROOT = pathlib.Path({str(tmp_path)!r}); "
        f"subprocesses.run([], paths.RunFolder(pathlib.Path({str(folder.root)!r})))"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code])
    while not (file := tmp_path / "pid").exists() or not file.read_text():
        time.sleep(0.05)
        assert waiting.poll() is None
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    for _ in range(100):
        time.sleep(0.1)
        try:
            os.kill(int(file.read_text()), 0)
        except ProcessLookupError:
            return
        if b"Z" in (paths.Path(f"/proc/{file.read_text()}/stat").read_bytes().split(b")")[-1][:3]):
            return
    pytest.fail("it goes on alone")
