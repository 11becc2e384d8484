"""How fast this project's pool of workers lists and decodes X-rays, beside joblib's (loky).

    python benchmarks/decoding.py ../path/to/chest_xray
    python benchmarks/decoding.py phantom --set data.phantom_images=2000

Each way prepares from nothing in a process of its own, in turn, as a run does; their medians count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cxr_utils import parameters
from cxr_utils.data import sources

ONCE = """
import os, sys, time
from pathlib import Path
from cxr_utils.data import decoding, manifest

def with_joblib(function, items, title, progress=False):
    import joblib
    workers = joblib.Parallel(os.cpu_count(), batch_size=decoding.CHUNK, return_as="generator")
    return workers(joblib.delayed(function)(item) for item in items)

way, root, size = sys.argv[1:]
if way == "joblib":
    decoding.in_parallel = with_joblib
started = time.perf_counter()
found = manifest.read_manifest(Path(root), [decoding.Square(int(size))])
print(time.perf_counter() - started, len(found.files))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--size", type=int, default=96, help="side of the squares (px)")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    source = str(Path(asked.source).resolve()) if os.path.lexists(asked.source) else asked.source
    root = sources.fetch(parameters.load("default", asked.set, source).data, progress=True).root
    seconds: dict[str, list[float]] = {"pool": [], "joblib": []}
    for number in range(asked.repeats + 1):  # the first warms the disk's cache
        for way, found in seconds.items():
            with tempfile.TemporaryDirectory() as cache:
                took, count = subprocess.run(
                    [sys.executable, "-c", ONCE, way, str(root), str(asked.size)],
                    env=os.environ | {"CXR_CACHE": cache},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split()
            if number:
                found.append(float(took))
    ours = statistics.median(seconds["pool"])
    print(f"{count} files, {os.cpu_count()} cores")
    for way, found in seconds.items():
        took = statistics.median(found)
        print(f"  {way:<8} {took:7.2f} s  {took / ours:5.2f} of the pool's time")


if __name__ == "__main__":
    main()
