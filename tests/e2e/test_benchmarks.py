"""Each benchmark runs and prints its ratios; how fast things are is for people to read."""

import os
import subprocess
import sys

from cxr_utils import paths


def test_data_preparation(smoke):
    few = [f"data.phantom_images={smoke.data.phantom_images}", f"data.phantom_size={smoke.data.phantom_size}"]
    arguments = ["phantom", "--repeats", "1", *(part for value in few for part in ("--set", value))]
    command = [sys.executable, paths.ROOT / "benchmarks" / "data_preparation.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy(), check=True)
    assert done.stdout.startswith("166 files") and done.stdout.count("of this project's time") == 4


def test_training_speed(smoke):
    few = [
        f"data.phantom_images={smoke.data.phantom_images}",
        "data.phantom_size=64",
        "baseline_cnn.image_size=32",
        "baseline_cnn.batch_size=8",
    ]
    arguments = ["phantom", "--rounds", "1", "--steps", "6", *(part for value in few for part in ("--set", value))]
    command = [sys.executable, paths.ROOT / "benchmarks" / "training_speed.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy(), check=True)
    assert done.stdout.count("of the limit") == 4 and "1.00 of the limit" in done.stdout
