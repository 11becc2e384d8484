"""Runs that are broken in every way we know go on to the results of one that was left alone."""

import contextlib
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace

import faults
import pytest
from faults import Bench

from cxr_utils.pipeline.steps import find_steps

STEPS = [step.name for step in find_steps()]
NAMES = {"02_baseline_cnn": "baseline_cnn", "03_resnet50v2": "mobilenet"}  # see faults.SMALL
KILLS, CHAINS = 50, 10
CUTS = range(1, 41, 4)
# What a planted cell does, the exit code, and what the one line on the terminal says.
PLANTED = {
    "exception": ("raise RuntimeError('planted')", 1, "raised RuntimeError: planted"),
    "memory": ("bytearray(1 << 60)", 1, "raised MemoryError"),
    "dead kernel": ("import os; os.kill(os.getpid(), 9)", 1, "lost its kernel"),
    "hung cell": (
        "import time; time.sleep(3600)",
        1,
        "was not done after 0.6 minutes; --time-limit",
    ),
    "Ctrl-C": (
        "import time; print('here', flush=True); time.sleep(3600)",
        130,
        "interrupted; the same command resumes",
    ),
    "SIGTERM": (
        "import time; print('here', flush=True); time.sleep(3600)",
        143,
        "terminated; the same command resumes",
    ),
}


@pytest.fixture(scope="module")
def alone(smoke_run, run):
    """A run that is left alone: its folder, its results and how long it took."""
    return run, faults.results(run), smoke_run.seconds


@pytest.fixture
def bench(tmp_path, alone):
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def survived(record_property):
    """Counts a fault when it is tried, and when it was survived, or that it came too late."""

    @contextlib.contextmanager
    def count(name):
        fault = SimpleNamespace(struck=True)
        record_property("fault tried", name)
        yield fault
        record_property("fault survived" if fault.struck else "fault too late", name)

    return count


def _plant_and_run(bench, alone, step, kind, seed):
    """Break a step of a finished run by a cell that was not there before."""
    code, expected, said = PLANTED[kind]
    shutil.copytree(alone[0].root, bench.run.root)
    remove = bench.plant(step, code, random.Random(seed))
    process = bench.start("--time-limit", "0.6" if kind == "hung cell" else "10")
    if kind in ("Ctrl-C", "SIGTERM"):
        bench.until("here", process)
        process.send_signal(signal.SIGINT if kind == "Ctrl-C" else signal.SIGTERM)
    assert process.wait(faults.ENOUGH) == expected and said in bench.said.read_text(), (
        bench.said.read_text()
    )
    faults.check_stopped(bench)
    page = bench.run.html(step).read_text()
    assert (
        "This step failed." in page and 'id="failed"' in page and bench.run.executed(step).is_file()
    )
    if expected == 1:
        assert "Traceback" in bench.run.log.read_text()
    assert "This run is incomplete" in bench.run.index.read_text()
    remove()
    faults.check_recovers(bench, alone[1])
    assert "Epoch 1/" not in bench.said.read_text()  # its model was trained before


def _kill_in_an_epoch(bench, alone, step):
    process = bench.start("--only", step)
    bench.until("Epoch 2/", process)
    time.sleep(0.2)
    for victim in bench.processes():
        victim.kill()
    process.wait()
    faults.check_stopped(bench)
    name = NAMES[step]
    assert bench.run.checkpoint(name).is_file() and not bench.run.predictions(name).is_file()
    assert bench.finish("--only", step) == 0
    assert "going on after epoch 1, where this training was stopped" in bench.said.read_text()
    assert bench.run.predictions(name).read_bytes() == alone[1][1][f"{name}.csv"]


def _cut_the_power(bench, alone, at):
    """Over a finished run with another seed, of which nothing may pass for this one's."""
    shutil.copytree(alone[0].root, bench.run.root)
    count = bench.temporary.parent / f"{bench.temporary.name}.count"
    cut = {"POWER_CUT_AT": str(at), "POWER_CUT_COUNT": str(count)}
    path = os.pathsep.join(
        [str(faults.paths.ROOT / "tests" / "e2e" / "power_cut"), str(bench.project)]
    )
    try:
        code = bench.finish("--set", "seed=7", PYTHONPATH=path, **cut)
        assert code == -9 and count.stat().st_size >= at, (code, bench.said.read_text())
    finally:
        count.unlink(missing_ok=True)
    faults.check_stopped(bench)
    faults.check_recovers(bench, alone[1])


def _limit_files(bench, alone, step, share):
    """No file grows over a share of the largest page of a step that is done again."""
    shutil.copytree(alone[0].root, bench.run.root)
    largest = max(file.stat().st_size for file in (bench.run.executed(step), bench.run.html(step)))
    code = bench.finish("--only", step, "--force", limit=int(share * largest))
    _check_room(bench, alone, code, "File too large")


def _fill_the_disk(bench, alone, step, moment):
    """Something else eats the disk, some seconds after the kernel of a step was started."""
    with faults.small_disk(bench.out, megabytes=200):
        shutil.copytree(alone[0].root, bench.run.root)
        process = bench.start("--only", step, "--force")
        while not bench.kernels():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(moment)
        faults.keep_full(bench.out, process)
        _check_room(bench, alone, process.returncode, "No space left on device")


def _check_room(bench, alone, code, reason):
    lines = [line for line in bench.said.read_text().splitlines() if line.startswith("error: ")]
    assert code == 1 and reason in lines[0] and "make room on that disk" in lines[0], (
        bench.said.read_text()
    )
    faults.check_stopped(bench)
    faults.check_recovers(bench, alone[1])


# Two faults are tried on every change; the others take too long for that.
@pytest.mark.long
@pytest.mark.parametrize("step", STEPS[1:3])
def test_killed_in_an_epoch(bench, alone, step, survived):
    with survived(f"killed in an epoch of {step}"):
        _kill_in_an_epoch(bench, alone, step)


@pytest.mark.long
@pytest.mark.parametrize("at", [7, *CUTS])
def test_power_cut(bench, alone, at, survived):
    with survived(f"power cut at file {at}"):
        _cut_the_power(bench, alone, at)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        pytest.param(
            kind, step, marks=() if (kind, step) == ("dead kernel", STEPS[3]) else pytest.mark.long
        )
        for kind in PLANTED
        for step in STEPS
    ],
)
def test_broken_step(bench, alone, kind, step, survived):
    with survived(f"{kind} in {step}"):
        _plant_and_run(bench, alone, step, kind, seed=f"{kind} {step}")


@pytest.mark.long
@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("step", STEPS)
def test_limited_files(bench, alone, step, share, survived):
    with survived(f"no file over {share} of a page in {step}"):
        _limit_files(bench, alone, step, share)


@pytest.mark.long
@pytest.mark.parametrize("moment", [0, 1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_full_disk(bench, alone, step, moment, survived):
    with survived(f"no room on the disk after {moment} s of {step}"):
        _fill_the_disk(bench, alone, step, moment)


@pytest.mark.long
@pytest.mark.parametrize("chain", range(CHAINS))
def test_kills_at_random(bench, alone, chain, survived):
    """Each kill strikes the run where the one before has left it."""
    rng, struck = random.Random(chain), 0
    while struck < KILLS // CHAINS:
        with survived("killed at random") as fault:
            fault.struck = faults.kill_at_random(bench, rng, alone[2])
        struck += fault.struck
        if not fault.struck:
            shutil.rmtree(bench.run.root)
    faults.check_recovers(bench, alone[1])
