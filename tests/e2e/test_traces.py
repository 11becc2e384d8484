"""What a run shows while it works, and that no process, file or port is left of it."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import faults
import psutil
import pytest


@pytest.fixture
def bench(tmp_path):
    made = faults.Bench(tmp_path)
    yield made
    made.close()


def _listening(bench):
    found = []
    for process in bench.processes():
        with contextlib.suppress(psutil.Error):
            found += [
                one.laddr
                for one in process.net_connections(kind="inet")
                if one.status == psutil.CONN_LISTEN
            ]
    return found


def _assert_nothing_left(bench):
    assert (
        not bench.processes()
        and not list(bench.temporary.iterdir())
        and not list(bench.run.parts())
    )


def test_a_run_on_a_terminal_shows_a_bar_and_is_closed_to_the_network(bench, monkeypatch):
    """Elapsed and remaining time, epoch by epoch; what listens does so on 127.0.0.1 alone."""
    mother, child = pty.openpty()
    monkeypatch.setenv(faults.MARK, bench.mark)
    monkeypatch.setenv("TMPDIR", str(bench.temporary))
    monkeypatch.setenv("PYTHONPATH", str(bench.project))
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 30, 120, 0, 0))  # lines and columns
    command = [sys.executable, str(bench.project / "run_all.py"), "smoke", "--data", "phantom"]
    running = subprocess.Popen(
        [*command, "--only", "02", "--out", str(bench.out)], stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    said, ports = b"", []
    with contextlib.suppress(OSError):  # the terminal goes with the process
        while part := os.read(mother, 4096):
            said += part
            ports += _listening(bench)
    os.close(mother)
    assert running.wait() == 0 and {port.ip for port in ports} == {"127.0.0.1"}
    shares = [
        int(share) for share in re.findall(rb"02_baseline_cnn +(\d+)% \|.*?gone, \S+ to go", said)
    ]
    assert shares == sorted(shares) and shares[-1] == 100 and len(set(shares)) > 8, said[-2000:]
    assert b"Epoch 2/2" in said and re.search(rb"open \S+/index.html", said)
    _assert_nothing_left(bench)


@pytest.mark.long
def test_a_hundred_looks_and_five_runs_leave_nothing(bench):
    for _ in range(5):
        assert bench.finish("--force") == 0
        _assert_nothing_left(bench)
    files = sorted(bench.run.root.rglob("*"))
    for number in range(100):
        assert bench.finish("--list" if number % 2 else "--dry-run") == 0
    assert sorted(bench.run.root.rglob("*")) == files and not _listening(bench)
    _assert_nothing_left(bench)
