"""A run that is killed in the middle of an epoch and started again ends as one that was left alone."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from cxr_utils import paths

FEW = ("--set", "baseline_cnn.epochs=3", "--set", "baseline_cnn.average=0.9", "--set", "resnet50v2.backbone=MobileNetV2")
FEW += ("--set", "resnet50v2.epochs=2")


def _kill_after(line, arguments):
    """Start a run and send SIGKILL to it and its kernel a moment after it has printed a line."""
    command = [sys.executable, "-u", str(paths.ROOT / "run_all.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as running:
        for printed in running.stdout:
            if line in printed:
                break
        else:
            pytest.fail(f"the run ended without {line!r}")
        time.sleep(0.2)
        mother = psutil.Process(running.pid)
        for process in [*mother.children(recursive=True), mother]:
            process.kill()


@pytest.mark.parametrize(("step", "model"), [("02", "baseline_cnn"), ("03", "resnet50v2")])
def test_killed_in_an_epoch(run_all, tmp_path, step, model):
    common = ["smoke", "--data", "phantom", "--only", step, *FEW]
    alone = run_all(*common, "--out", tmp_path / "alone")
    _kill_after("epoch 1/", [*common, "--out", str(tmp_path / "killed")])
    folder = paths.RunFolder(tmp_path / "killed" / "smoke")
    assert folder.checkpoint(model).is_file() and not folder.predictions(model).is_file()
    again = run_all(*common, "--out", tmp_path / "killed")
    assert again.returncode == alone.returncode == 0, again.stderr + alone.stderr
    assert "going on after epoch 1, where this training was stopped before" in again.stdout
    left = paths.RunFolder(tmp_path / "alone" / "smoke")
    assert json.loads(folder.metrics.read_text())["models"] == json.loads(left.metrics.read_text())["models"]
    assert folder.predictions(model).read_bytes() == left.predictions(model).read_bytes()
    assert not folder.checkpoint(model).is_file()
