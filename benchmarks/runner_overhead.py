"""Measures what the runner adds to the bare notebooks, and how long a run takes that has nothing to do.

    python benchmarks/runner_overhead.py --rounds 3

Both run the same notebooks with the parameters of the smoke profile on the SYNTHETIC phantom, one by one and in
turns, each in a process of its own that starts from nothing. Bare is papermill alone: no reports, no index, no
record, no checks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cxr_utils import paths
from cxr_utils.params import STEPS

BARE = """
import json, sys
import papermill
from pathlib import Path
from cxr_utils.execution import OwnInterpreterKernelManager
asked = json.loads(sys.argv[1])
for step, values in asked["steps"].items():
    target = str(Path(asked["target"]) / f"{step}.ipynb")
    manager = OwnInterpreterKernelManager(Path(asked["target"]))
    papermill.execute_notebook(f"{asked['notebooks']}/{step}.ipynb", target, values, progress_bar=False, cwd=asked["notebooks"], km=manager)
    manager.stop()
"""


def main() -> None:
    """Print the medians of both, their difference and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    runner, bare, idle = [], [], []
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        whole(Path(folder), "warm")  # draws the phantom and fills the caches of both
        for number in range(asked.rounds):
            first, then = (whole, alone) if number % 2 else (alone, whole)
            found = {way: way(Path(folder), f"run{number}") for way in (first, then)}
            runner.append(found[whole])
            bare.append(found[alone])
            idle.append(whole(Path(folder), f"run{number}"))
    with_runner, without, nothing = map(statistics.median, (runner, bare, idle))
    print(f"the runner, with reports, record and checks: {with_runner:.1f} s")
    print(f"the bare notebooks: {without:.1f} s")
    print(f"overhead: {with_runner - without:.1f} s, {with_runner / without:.2f} times as long")
    print(f"a run with nothing to do: {nothing:.1f} s, {nothing / without:.2f} of the bare notebooks")


def whole(folder: Path, name: str) -> float:
    """Return the seconds of ``run_all.py smoke``."""
    return _seconds([str(paths.ROOT / "run_all.py"), "smoke", "--data", "phantom", "--out", str(folder), "--run", name])


def alone(folder: Path, name: str) -> float:
    """Return the seconds of the same notebooks, with the same parameters, run by papermill alone into another folder."""
    target = folder / f"{name}-bare"
    paths.RunFolder(target).make()
    steps = json.loads((folder / "warm" / "run.json").read_text(encoding="utf-8"))["steps"]
    values = {step: steps[step]["parameters"] | {"run_dir": str(target)} for step in STEPS}
    return _seconds(["-c", BARE, json.dumps({"steps": values, "target": str(target), "notebooks": str(paths.NOTEBOOKS)})])


def _seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
