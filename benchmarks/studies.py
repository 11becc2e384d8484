"""Measures what two workers of a study gain, what the engine costs a cell, and memory.

    python benchmarks/studies.py phantom --cells 4 --set baseline_cnn.epochs=2

Cells are runs of notebook 02 with one thread each. The same cells are run by one worker, then by
two. Memory is the peak of the sum over all processes (proportional set size, which counts
shared pages once), beside that of one ``run_all.py`` alone. Cells that do nothing show the engine's
own share.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from cxr_utils import paths, study_plan
from cxr_utils.studies import cluster, engine

ONE_THREAD = {f"{name}_NUM_{kind}THREADS": "1" for name, kind in
              (("OMP", ""), ("TF", "INTRAOP_"), ("TF", "INTEROP_"))}  # fmt: skip


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="as of run_all.py --data")
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--nothings", type=int, default=1000, help="cells that do nothing")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        share, cells = nothing(Path(folder), asked.nothings)
        print(f"{cells} cells that do nothing: {1000 * share:.1f} ms each")
        alone(Path(folder) / "warm", asked.source, asked.set)  # prepares the pixels
        single = alone(Path(folder) / "alone", asked.source, asked.set)
        taken = {count: study(Path(folder), asked, count) for count in (1, 2)}
    print(f"{asked.cells} cells: {taken[1][0]:.0f} s by one worker, {taken[2][0]:.0f} s by two: "
          f"{taken[1][0] / taken[2][0]:.2f} times as fast")  # fmt: skip
    print(f"memory: {single[1]:.0f} MB by one run alone, {taken[2][1]:.0f} MB by two workers: "
          f"{taken[2][1] / single[1]:.2f} times as much")  # fmt: skip


def nothing(folder: Path, count: int) -> tuple[float, int]:
    """Return seconds a cell of a study whose cells do nothing, on two workers, and their number."""
    (folder / "nothing.yaml").write_text(
        f"question: How long?\nprofile: smoke\nmodels: [baseline_cnn]\nseeds: {count}\n"
    )
    asked = study_plan.read(folder / "nothing.yaml", "phantom")
    (folder / "nothing").mkdir()
    told = {"x": {"manifest": None, "synthetic": True, "kind": "phantom", "host": ""}}
    with cluster.connected(2, "") as client:
        steps = ["02_baseline_cnn"]
        running = engine.Engine(asked, steps, folder / "nothing", client, told, do_nothing)
        started = time.perf_counter()
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            running.run()
        return (time.perf_counter() - started) / count, len(running.cells)


def do_nothing(*_: object) -> dict[str, object]:
    """Stand for `worker.run_cell`."""
    return {"state": "done", "host": "", "worker": "", "seconds": 0.0, "files": {}}


def alone(folder: Path, source: str, sets: list[str]) -> tuple[float, float]:
    """Return seconds and peak MB of one run of notebook 02, with one thread."""
    command = [sys.executable, str(paths.ROOT / "run_all.py"), "--data", source, "--only", "02"]
    command += [part for one in sets for part in ("--set", one)]
    return measured([*command, "--out", str(folder), "--run", "alone"])


def study(folder: Path, asked: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Return seconds and peak MB of a study of so many seeds, without its page's notebook."""
    values = json.dumps({name: json.loads(value) for name, value in
                         (one.split("=", 1) for one in asked.set)})  # fmt: skip
    file = folder / f"by{workers}.yaml"
    file.write_text(
        f"question: How long?\nmodels: [baseline_cnn]\nseeds: {asked.cells}\nset: {values}\n"
    )
    command = [sys.executable, "-m", "cxr_utils", "study", str(file), "--data", asked.source]
    return measured([*command, "--out", str(folder / "out"), "--workers", str(workers)])


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; returns its seconds and the peak of its processes' memory, in MB."""
    started, peak = time.perf_counter(), [0.0]
    process = subprocess.Popen(
        command, cwd=paths.ROOT, env=os.environ | ONE_THREAD, stdout=subprocess.DEVNULL
    )

    def watch() -> None:
        while process.poll() is None:
            total = 0.0
            try:
                here = psutil.Process(process.pid)
                for one in [here, *here.children(recursive=True)]:
                    total += one.memory_full_info().pss / 1e6
            except psutil.Error:
                continue  # one of them has just ended
            peak[0] = max(peak[0], total)
            time.sleep(0.5)

    watching = threading.Thread(target=watch)
    watching.start()
    code = process.wait()
    watching.join()
    assert not code, f"{command} ended with {code}"
    return time.perf_counter() - started, peak[0]


if __name__ == "__main__":
    main()
