"""Measures what the runner adds to the bare notebooks, and a run that has nothing to do.

    python benchmarks/runner_overhead.py --rounds 3

Both run the same notebooks with the parameters of the smoke profile on the SYNTHETIC phantom, one
by one and in turns, each in a process of its own that starts from nothing. Bare is papermill alone:
no reports, no index, no record, no checks. What the kernels do is the same in both but takes some
seconds more or less from one time to the next, so the overhead is told twice: of the whole, and of
what is spent outside the notebooks.
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

BARE = """
import json, sys, time
import papermill
from pathlib import Path
from cxr_utils.pipeline.execution import OwnInterpreterKernelManager
asked = json.loads(sys.argv[1])
inside = 0
for step, values in asked["steps"].items():
    started = time.perf_counter()
    target = str(Path(asked["target"]) / f"{step}.ipynb")
    manager = OwnInterpreterKernelManager(Path(asked["target"]))
    source, folder = f"{asked['notebooks']}/{step}.ipynb", asked["notebooks"]
    options = {"progress_bar": False, "cwd": folder, "km": manager}
    papermill.execute_notebook(source, target, values, **options)
    manager.stop()
    inside += time.perf_counter() - started
print(inside)
"""


def main() -> None:
    """Print the medians of both, their difference and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        whole(Path(folder), "warm")  # draws the phantom and fills the caches of both
        for number in range(asked.rounds):
            first, then = (whole, alone) if number % 2 else (alone, whole)
            found = {way: way(Path(folder), f"run{number}") for way in (first, then)}
            rows.append([*found[whole], *found[alone], whole(Path(folder), f"run{number}")[0]])
    runner, inside, bare, inside_bare, idle = map(statistics.median, zip(*rows, strict=True))
    print(
        f"the runner, with reports, record and checks: {runner:.1f} s, "
        f"{inside:.1f} s of it in the notebooks"
    )
    print(f"the bare notebooks: {bare:.1f} s, {inside_bare:.1f} s of it in the notebooks")
    print(f"overhead of the whole: {runner - bare:.1f} s, {runner / bare:.2f} times as long")
    print(f"overhead outside the notebooks: {runner - inside - (bare - inside_bare):.1f} s")
    print(f"a run with nothing to do: {idle:.1f} s, {idle / bare:.2f} of the bare notebooks")


def whole(folder: Path, name: str) -> tuple[float, float]:
    """Return the seconds of ``run_all.py smoke``, and those of its notebooks."""
    seconds, _ = _timed(
        [
            str(paths.ROOT / "run_all.py"),
            "smoke",
            "--data",
            "phantom",
            "--out",
            str(folder),
            "--run",
            name,
        ]
    )
    steps = json.loads((folder / name / "run.json").read_text(encoding="utf-8"))["steps"]
    return seconds, sum(step["seconds"] for step in steps.values())


def alone(folder: Path, name: str) -> tuple[float, float]:
    """Return the same of papermill alone, with the same parameters, into another folder."""
    target = folder / f"{name}-bare"
    paths.RunFolder(target).make()
    steps = json.loads((folder / "warm" / "run.json").read_text(encoding="utf-8"))["steps"]
    values = {step: steps[step]["parameters"] | {"run_dir": str(target)} for step in steps}
    seconds, said = _timed(
        [
            "-c",
            BARE,
            json.dumps({"steps": values, "target": str(target), "notebooks": str(paths.NOTEBOOKS)}),
        ]
    )
    return seconds, float(said.splitlines()[-1])


def _timed(arguments: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
