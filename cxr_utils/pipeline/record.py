"""``run.json``: what is needed to run a run again, what is not as it was then, what differs."""

import contextlib
import csv
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import paths
from ..files import read_json, within, write_atomically
from ..models import fingerprint
from ..parameters import UsageError
from .validity import Run

# Settings of the environment that change what is computed, to the last digit.
NUMERIC = (
    "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_XLA_FLAGS",
    "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip


def describe(run: Run) -> dict[str, Any]:
    """Return what ``run.json`` says of a run besides its steps."""
    manifest, libraries = run.manifest, fingerprint.versions(fingerprint.LIBRARIES)
    machine = {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    return {
        "schema": 1,
        "run": run.folder.name,
        "profile": run.profile,
        "command": ["run_all.py", *run.arguments],
        "parameters": run.params.model_dump(),
        "data": {
            "asked": run.params.data.source,
            "source": run.source.kind,
            "synthetic": run.source.synthetic,
            "root": str(run.source.root),
            "manifest": manifest.digest if manifest else None,
            "counts": manifest.counts() if manifest else None,
            "left_out": len(manifest.left_out) if manifest else None,
        },
        "seed": run.params.seed,
        "versions": {"python": platform.python_version()} | libraries,
        "environment": {name: os.environ[name] for name in NUMERIC if name in os.environ},
        "git": revision(),
        "machine": machine,
        "written": now(),
    }


def write_record(run: Run) -> None:
    """Write ``run.json``."""
    write_atomically(run.folder.record, json.dumps(run.record, indent=1))


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def revision() -> str | None:
    """Return the revision of the project as git describes it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def check_same_data(known: dict[str, Any], run: Run) -> None:
    """Raise UsageError where the data is not that of the run whose record was given as profile."""
    digest = str(within(known, "data").get("manifest"))
    if known and run.manifest and run.manifest.digest != digest:
        said = f"manifest {run.manifest.digest[:12]} instead of {digest[:12]}; name it by --data"
        raise UsageError(f"data {run.source.root}: not the data of that run.json, but {said}")


def changed_surroundings(known: dict[str, Any], record: dict[str, Any]) -> str:
    """Return on one line what is not as it was: code, libraries, machine, added parameters."""
    before, after = ({"code": one.get("git"), **within(one, "versions"), **within(one, "machine"),
                      **within(one, "environment")} for one in (known, record))  # fmt: skip
    after |= {name: value for name, value in _parameters(record).items()
              if name not in _parameters(known)}  # fmt: skip
    return ", ".join(f"{name} {after.get(name) or 'none'} (was {before.get(name) or 'none'})"
                     for name in before | after if before.get(name) != after.get(name))  # fmt: skip


def _parameters(record: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a run by section and name; a later version of the project may add some."""
    return {f"{section}.{name}": value for section, part in within(record, "parameters").items()
            if isinstance(part, dict) for name, value in part.items()}  # fmt: skip


def compare(one: paths.RunFolder, other: paths.RunFolder) -> tuple[int, list[str]]:
    """Return how many figures and predictions two runs have, and a line for each that differs.

    Raises UsageError where one of them has no scores.
    """
    for folder in (one, other):
        if not read_json(folder.metrics):
            raise UsageError(f"{folder.root}: no metrics.json is there; give the folder of a run")
    before, after = dict(_results(one)), dict(_results(other))
    lines = []
    for name in before | after:
        first, second = before.get(name, "nothing"), after.get(name, "nothing")
        if first != second:
            lines.append(f"{name}: {first} in {one.name}, {second} in {other.name}")
    return len(before | after), lines


def _results(run: paths.RunFolder) -> Iterator[tuple[str, Any]]:
    """Every figure and prediction of a run, with where it stands."""
    yield from _leaves(read_json(run.metrics) | {"run": {}}, run.metrics.name)
    for file in sorted(run.predictions("x").parent.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                yield f"{file.name} {row.get('split')} {row.get('path')}", row.get("score")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{name}/{key}")
    else:
        yield name, value
