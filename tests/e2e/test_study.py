"""The command ``study``: cells that are runs, the page, what is refused, and a cluster over TCP."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from cxr_utils import cli, paths
from cxr_utils.evaluation import results, studies
from cxr_utils.files import read_json
from cxr_utils.pipeline import record

HEAD = "question: Does mirroring help?\nprofile: smoke\nmodels: [baseline_cnn]\n"
QUICK = HEAD + "set: {baseline_cnn.epochs: 1}\nsettings: {no mirror: {augmentation.flip: false}}\n"


def _study(file, *arguments):
    return cli.guarded(cli.main, ["study", str(file), *map(str, arguments)])


@pytest.fixture(scope="module")
def done(tmp_path_factory, phantom_root):
    """A study of two cells, its folder."""
    out = tmp_path_factory.mktemp("studies")
    file = out / "mirror.yaml"
    file.write_text(QUICK)
    assert _study(file, "--data", "phantom", "--out", out, "--workers", 2) == 0
    return out / "mirror"


def test_a_study_of_two_cells(done):
    found = studies.read(done)
    assert list(found.rows["setting"]) == ["base", "no-mirror"] and found.base == "base"
    assert list(found.rows["patients"]) == [found.rows["patients"][0]] * 2
    for cell, changes in (("base-2026", True), ("no-mirror-2026", False)):
        run = paths.RunFolder(done / "cells" / cell)
        told = read_json(run.record)["parameters"]
        assert told["augmentation"]["flip"] is changes and told["baseline_cnn"]["epochs"] == 1
        assert run.html("02_baseline_cnn").is_file() and not run.html("01_eda").exists()
    (gap,) = studies.differences(found, "baseline_cnn").to_dict("records")
    both = [results.read_metrics(paths.RunFolder(done / "cells" / cell))["models"]["baseline_cnn"]
            for cell in found.rows["cell"]]  # fmt: skip
    expected = both[1]["validation"]["loss"] - both[0]["validation"]["loss"]
    assert gap["value"] == pytest.approx(expected, abs=1e-6) and gap["low"] < gap["value"]


def test_what_is_done_does_not_run_again(done, capsys):
    files = {file: file.stat().st_mtime_ns for file in done.glob("cells/*/*.json")}
    arguments = "--data", "phantom", "--out", done.parent
    assert _study(done.with_suffix(".yaml"), *arguments) == 0
    assert files == {file: file.stat().st_mtime_ns for file in done.glob("cells/*/*.json")}
    assert "study.html" in capsys.readouterr().out


def test_the_page_answers_first(done, looked_at):
    shown = looked_at(done / "study.html")
    text = shown.locator("body").inner_text()
    assert "SYNTHETIC" in text and "Does mirroring help?" in text
    answer = text.index("the best on these films, no-mirror, changes the log loss")
    assert answer < text.rindex("Scores on validation") and "variation between seeds" in text
    assert shown.locator("figure.plot").count() == 1


BAD = [
    (HEAD + "grid: {baseline_cnn.widht: [8]}", [], "did you mean baseline_cnn.width"),
    (HEAD + "grid: {baseline_cnn.width: [8, 1000]}", [], "less than or equal to 128"),
    (HEAD + "settings: {far: {augmentation.shift: 2}}", [], "augmentation.shift = 2"),
    (HEAD + "search: {settings: 2, over: {augmentation.zoom: {low: 1, high: 0}}}", [], "low must"),
    (HEAD + "search: {settings: 2, over: {augmentation.zoom: {low: 0.1, high: 9.0}}}", [], "zoom"),
    (HEAD + "grid: {}", [], "grid: nothing to try"),
    (HEAD + "grid: {augmentation.zoom: []}", [], "grid: nothing to try"),
    (HEAD + "grid: {seed: [0]}\nsettings: {a: {seed: 1}}", [], "settings and grid: only one"),
    (HEAD + "grid: {seed: [1, 2]}", [], "seed cannot be tried, as settings are compared"),
    (HEAD + "settings: {a: {data.source: medmnist}}", [], "put it under set, or ask for seeds"),
    (HEAD + "search: {settings: 1, over: {augmentation.zoom: {hihg: 1}}}", [], "hihg: unknown key"),
    ("", [], "question: Field required; see docs/studies.md"),
    (HEAD + "seeds: 1000000", [], "1,000,000 cells, more than 200; --yes runs them"),
    (HEAD + "seeds: 0", [], "seeds: Input should be greater than or equal to 1"),
    (HEAD + "fold: 5", [], "fold: unknown key; see docs/studies.md"),
    (HEAD + "folds: 1", [], "take two folds or more"),
    ("question: Which?\nmodels: [vgg]", [], "unknown model vgg; choose from baseline_cnn"),
    ("question: [", [], "not valid YAML"),
    (QUICK, ["--workers", "0"], "--workers 0: at least 1 is needed"),
    (QUICK, ["--data", "/no/such/folder"], "there is no such folder"),
    (QUICK, ["--scheduler", "tcp://127.0.0.1:9"], "no scheduler answers there"),
    (QUICK, ["--scheduler", "nonsense://"], "no scheduler answers there"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "more", "words"), BAD)
def test_what_cannot_be_is_one_line_before_anything_runs(text, more, words, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert _study(file, "--data", "phantom", "--out", tmp_path, *more) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and words in said
    assert not list(tmp_path.glob("bad/cells/*"))


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert _study(tmp_path / "none.yaml") == 2
    assert "give a file like those in params/studies" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(one.stem for one in (paths.PARAMS / "studies").iterdir()))
def test_a_ready_study_states_its_question_and_is_possible(name, capsys):
    file = paths.PARAMS / "studies" / f"{name}.yaml"
    assert re.match(r"question: .*\?\n", file.read_text())
    assert _study(file, "--data", "phantom", "--dry-run") == 0
    assert "each runs " in capsys.readouterr().out


def test_no_worker_with_room_is_one_line(tmp_path, capsys):
    """A worker that was started without the resource would take several runs at once."""
    (tmp_path / "mirror.yaml").write_text(QUICK)
    with _cluster(tmp_path, resources=None) as (address, _):
        arguments = "--scheduler", address, "--data", "phantom", "--out", tmp_path
        assert _study(tmp_path / "mirror.yaml", *arguments) == 2
    assert "dask worker ADDRESS --nthreads 1 --resources run=1" in capsys.readouterr().err


@contextlib.contextmanager
def _cluster(folder, resources="run=1", count=2):
    """A scheduler and workers, each a process of its own; yields the address and the workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "distributed.cli"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = [*dask[:2], "distributed.cli.dask_scheduler", *local, "--port", str(port)]
    worker = [*dask[:2], "distributed.cli.dask_worker", address, *local, "--nthreads", "1"]
    worker += ["--resources", resources] * bool(resources)
    worker += ["--local-directory", str(folder)]
    processes = [subprocess.Popen(scheduler, **quiet)]
    processes += [subprocess.Popen(worker, **quiet) for _ in range(count)]
    try:
        yield address, processes[1:]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


class _Proxy:
    """Passes bytes on to an address of this machine, and can cut all connections at once."""

    def __init__(self, port):
        self.port, self.open = port, []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self.listening.accept()
            far = socket.create_connection(("127.0.0.1", self.port))
            self.open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def cut(self):
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.open = []


def _signal(process, number):
    """A Dask worker is two processes; what it runs is left alone."""
    dask = psutil.Process(process.pid)
    for one in [
        dask,
        *(child for child in dask.children() if "run_all" not in str(child.cmdline())),
    ]:
        one.send_signal(number)


@pytest.mark.long
def test_a_cluster_over_tcp_gives_what_one_run_after_the_other_gives(tmp_path, phantom_root):
    """Of two workers one is killed, the other stopped and continued, and the scheduler cut off."""
    text = HEAD + "seeds: 4\nset: {baseline_cnn.precision: float32}\nsettings:\n"
    text += "  no mirror: {augmentation.flip: false}\n  no noise: {augmentation.noise: 0}\n"
    (tmp_path / "twelve.yaml").write_text(text)
    command = [sys.executable, "-m", "cxr_utils", "study", str(tmp_path / "twelve.yaml")]
    command += ["--data", "phantom", "--out"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    serial = subprocess.run(
        [*command, str(tmp_path / "serial")], env=one_thread, cwd=paths.ROOT, check=False
    )
    assert serial.returncode == 0
    cells = tmp_path / "out" / "twelve" / "cells"
    with _cluster(tmp_path) as (address, workers):
        proxy = _Proxy(int(address.rpartition(":")[2]))
        running = subprocess.Popen(
            [*command, str(tmp_path / "out"), "--scheduler", proxy.address], cwd=paths.ROOT
        )

        def wait_for(count):
            while len(list(cells.glob("*/cell.json"))) < count:
                assert running.poll() is None
                time.sleep(0.2)

        wait_for(2)
        _signal(workers[0], signal.SIGKILL)
        wait_for(4)
        _signal(workers[1], signal.SIGSTOP)
        time.sleep(15)
        _signal(workers[1], signal.SIGCONT)
        wait_for(7)
        proxy.cut()
        assert running.wait() == 0
    told = read_json(cells.parent / "study.json")["cells"]
    assert len(told) == 12 and {cell["state"] for cell in told.values()} == {"done"}
    for name in told:
        folders = (tmp_path / part / "twelve" / "cells" / name for part in ("serial", "out"))
        total, differing = record.compare(*map(paths.RunFolder, folders))
        assert total > 100 and not differing
