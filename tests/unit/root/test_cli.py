import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cxr_utils import cli, paths


@pytest.fixture
def no_tensorflow(tmp_path):
    """A TensorFlow that cannot be imported: who answers without it has not loaded it."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smok"], "did you mean smoke"),
        (["--repeat", "run.json"], "unrecognized arguments"),
        ([str(paths.ROOT / "docs" / "none.json")], "there is no such file"),
        (["missing.yaml"], "there is no such file"),
        (["--set", "baseline_cnn.epoch=1"], "did you mean baseline_cnn.epochs"),
        (["--set", "baseline_cnn.epochs=0"], "greater than or equal to 1"),
        (["--data", "/no/such/folder"], "there is no such folder"),
        (["--data", "phantum"], "did you mean phantom"),
        (["--data", str(paths.NOTEBOOKS)], "train/NORMAL is missing"),
        (["--only", "02_baseline_cn_"], "did you mean 02_baseline_cnn"),
        (["--only", "01_eda", "--from", "01_eda"], "not allowed with argument --only"),
        (["--run", "../up"], "plain folder name"),
        (["--set", "seed=2020-13-45"], "not valid YAML"),
        (
            [
                "--set",
                "resnet50v2.backbone=Xception",
                "--set",
                "resnet50v2.image_size=64",
                "--data",
                "phantom",
            ],
            "takes 71 px and more",
        ),
        (["--frm", "01_eda"], "unrecognized arguments"),
        (
            ["smoke", "--data", "phantom", "--only", "04_comparison", "--run", "never-run"],
            "repeat the command with --from 02_baseline_cnn",
        ),
        (
            ["smoke", "--data", "phantom", "--from", "03_resnet50v2", "--run", "never-run"],
            "repeat the command with --from 02_baseline_cnn",
        ),
        (
            ["smoke", "--data", "phantom", "--set", "baseline_cnn.batch_size=500"],
            "only 102 training images",
        ),
        (
            ["smoke", "--data", "phantom", "--set", "resnet50v2.weights=nowhere.h5"],
            "there is no such file",
        ),
    ],
)
def test_bad_usage_is_exit_2_one_line_and_no_tensorflow(
    run_all, no_tensorflow, phantom_root, arguments, words, tmp_path
):
    done = run_all(*arguments, "--out", tmp_path, **no_tensorflow)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("drawing")]
    assert line.startswith("error: ") and words in line


def test_list_and_dry_run_change_nothing(run_all, tmp_path, no_tensorflow):
    for flag in ("--list", "--dry-run"):
        done = run_all(
            "smoke",
            "--data",
            "phantom",
            flag,
            "--out",
            tmp_path / "out",
            CXR_CACHE=str(tmp_path / "none"),
            **no_tensorflow,
        )
        assert done.returncode == 0 and "not on disk yet" in done.stdout
        assert done.stdout.count("has not run yet") == 4
    assert not (tmp_path / "out").exists() and not (tmp_path / "none").exists()


def test_unwritable_folder(run_all, tmp_path):
    (tmp_path / "file").touch()
    done = run_all("smoke", "--data", "phantom", "--out", tmp_path / "file")
    assert done.returncode == 2 and "give another folder with --out" in done.stderr


def test_unwritable_cache_is_one_line(run_all, tmp_path):
    done = run_all("smoke", "--data", "phantom", "--out", tmp_path, CXR_CACHE="/dev/null/x")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "$CXR_CACHE" in done.stderr


def test_data_command_says_what_it_holds(phantom_root, capsys):
    (phantom_root / "train" / "NORMAL" / "<b>note.txt").touch()
    try:
        assert cli.guarded(cli.main, ["data", str(phantom_root)]) == 0
    finally:
        (phantom_root / "train" / "NORMAL" / "<b>note.txt").unlink()
    printed = capsys.readouterr().out
    assert (
        "phantom (SYNTHETIC)" in printed
        and "1 file left out" in printed
        and "not one of .jpeg" in printed
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("03_resnet50v2", "<<<<<<< HEAD\n{}\n=======", "settle the merge"),
        ("Untitled", "{}", "a step's name is two digits"),
    ],
)
def test_a_notebook_that_is_no_step_stops_before_anything_runs(
    run_all, tmp_path, name, text, words
):
    for part in ("cxr_utils", "notebooks", "params"):
        shutil.copytree(paths.ROOT / part, tmp_path / part)
    (tmp_path / "notebooks" / f"{name}.ipynb").write_text(text)
    script = shutil.copy(paths.ROOT / "run_all.py", tmp_path)
    done = run_all("smoke", "--data", "phantom", script=script, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr
    assert not (tmp_path / "reports").exists()


def test_what_libraries_log_goes_to_the_log_alone(tmp_path):
    """As asyncio's traceback of what nobody waits for any more, when a run is interrupted."""
    code = (
        "import logging, pathlib; from cxr_utils import cli, paths; "
        "from cxr_utils.pipeline import run; "
        "run.log_to(paths.RunFolder(pathlib.Path('.'))); "
        "logging.getLogger('asyncio').error('nobody waits'); cli.log.info('once')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    written = (tmp_path / "run.log").read_text()
    assert not done.stderr and written.count("nobody waits") == 1 and written.count("once") == 1


def test_output_that_was_closed_before_the_start_is_no_error():
    command = f"exec {sys.executable} -m cxr_utils parameters >&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=paths.ROOT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr


def test_a_reader_that_has_had_enough_is_one_line():
    """As ``head`` has, after its lines."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cxr_utils", "parameters"]
    done = subprocess.run(
        command, cwd=paths.ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 1 and done.stderr == "stopped, as nobody reads the output any more\n"


def test_wrong_python_is_one_line(tmp_path):
    script = (paths.ROOT / "run_all.py").read_text().replace("(3, 11) <=", "(3, 99) <=")
    (tmp_path / "run_all.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "run_all.py"], capture_output=True, text=True, check=False
    )
    assert (
        done.returncode == 2
        and "3.11, 3.12 or 3.13 is needed" in done.stderr
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_run_ends_its_kernel(tmp_path, phantom_root, name, code):
    """A signal in the middle of a notebook: the right exit code, and no child is left."""
    command = [
        sys.executable,
        paths.ROOT / "run_all.py",
        "smoke",
        "--data",
        "phantom",
        "--out",
        tmp_path,
        "--run",
        f"stopped{code}",
    ]
    # A shell's background jobs ignore SIGINT and would hand that down.
    restore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore
    )
    deadline = time.monotonic() + 120
    while not _kernels(process.pid) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # soon, so that the signal comes while the kernel starts
    process.send_signal(signal.Signals[name])
    _, errors = process.communicate(timeout=60)
    logs = "".join(one.read_text() for one in tmp_path.glob("*/run.log"))
    assert process.returncode == code, errors + logs
    assert "the same command resumes the run" in errors
    deadline = time.monotonic() + 10
    while _kernels(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _kernels(process.pid)


def test_a_signal_passes_through_an_event_loop():
    """It may arrive in any step of a task, as while the kernel starts."""

    async def work():
        asyncio.get_running_loop().call_soon(cli._stop, signal.SIGTERM, None)
        await asyncio.sleep(0.2)

    kept = {number: signal.getsignal(number) for number in cli.SIGNALS}
    try:
        with pytest.raises(cli._Terminated):
            asyncio.run(work())
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _kernels(runner):
    """Kernels of a runner, known by the mark in the environment that they inherited."""
    mark = f"JPY_PARENT_PID={runner}".encode()
    found = []
    for entry in paths.Path("/proc").glob("[0-9]*"):
        try:
            if (
                b"ipykernel_launcher" in (entry / "cmdline").read_bytes()
                and mark in (entry / "environ").read_bytes()
            ):
                found.append(entry.name)
        except OSError:
            continue
    return found
