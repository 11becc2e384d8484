"""Measures predictions beside the model alone, on the same films as tensors in memory.

    python benchmarks/prediction_speed.py reports/real FILMS [--model NAME] [--films 1000]

Of each engine: how long the command takes to its first answer; films a second of the model alone,
and of `Model.answers` from files; their ratio; and the memory of the process after all films, and
after ten times as many. The engine ``onnx`` needs what ``export`` has written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from cxr_utils import prediction
from cxr_utils.data import films
from cxr_utils.prediction import search
from cxr_utils.prediction.model import BATCH, Model


def main() -> None:
    """Print what the engine that is asked for comes to, or each in a process of its own."""
    about = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**about)
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--model", default="baseline_cnn")
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=["keras", "onnx"])
    asked = parser.parse_args()
    if not asked.engine:
        for engine in ("keras", "onnx"):
            subprocess.run([sys.executable, *sys.argv, "--engine", engine], check=True)
        return
    files = list(itertools.islice(search.find([asked.folder], sys.stdin), asked.films))
    first = first_answer(files[0], asked)
    model = prediction.load(asked.run, asked.model, asked.engine, allow_synthetic=True)
    speeds = [(alone(model, files), from_files(model, files)) for _ in range(asked.rounds)]
    before = psutil.Process().memory_info().rss / 1e6
    from_files(model, files * 10)
    after = psutil.Process().memory_info().rss / 1e6
    mine, ours = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(found / most for most, found in speeds)
    print(f"{asked.engine}: first answer after {first:.1f} s; model alone {mine:.0f} films/s, "
          f"from files {ours:.0f}, ratio {ratio:.2f}; {before:.0f} MB after {len(files)} films, "
          f"{after:.0f} MB after {11 * len(files)}")  # fmt: skip


def first_answer(film: Path, asked: argparse.Namespace) -> float:
    """Return the seconds from the start of the command to its first line."""
    command = [sys.executable, "-m", "cxr_utils", "predict", str(film), "--run", asked.run]
    command += ["--model", asked.model, "--engine", asked.engine, "--allow-synthetic"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ.copy()) as process:
        json.loads(process.stdout.readline())
        return time.perf_counter() - started


def alone(model: Model, files: list[Path]) -> float:
    """Return films a second of the model on squares in memory."""
    (part,) = model.parts
    squares = np.stack([films.read(file, [part.square]).squares[0] for file in files])
    part.engine(squares[:BATCH])
    started = time.perf_counter()
    for start in range(0, len(squares), BATCH):
        part.engine(squares[start : start + BATCH])
    return len(squares) / (time.perf_counter() - started)


def from_files(model: Model, files: list[Path]) -> float:
    """Return films a second from files to answers."""
    started = time.perf_counter()
    count = sum(not answer["error"] for answer in model.answers(files))
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
