"""What ``run.json`` says of a run: all that is needed to repeat it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import paths
from ..files import write_atomically
from ..models import fingerprint
from .validity import Run

# Settings of the environment that change what is computed, to the last digit.
NUMERIC = (
    "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_XLA_FLAGS", "ONEDNN_MAX_CPU_ISA",
    "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip


def describe(run: Run) -> dict[str, Any]:
    """Return what ``run.json`` says of a run besides its steps: all that is needed to repeat it."""
    manifest = run.manifest
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
        "versions": {
            "python": platform.python_version(),
            **fingerprint.versions(fingerprint.LIBRARIES),
        },
        "environment": {name: os.environ[name] for name in NUMERIC if name in os.environ},
        "git": _git_revision(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "written": now(),
    }


def write_record(run: Run) -> None:
    """Write ``run.json``."""
    write_atomically(run.folder.record, json.dumps(run.record, indent=1))


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
