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
