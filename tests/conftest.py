"""What the tests share: a private cache, a tiny SYNTHETIC phantom, a small real subset, and the commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr_utils import params, paths, sources

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache; children inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CXR_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def smoke():
    return params.load("smoke", ["data.source=phantom"])


@pytest.fixture(scope="session")
def phantom_root(smoke):
    return sources.fetch(smoke.data).root


@pytest.fixture
def planted(phantom_root, tmp_path):
    """A copy of the phantom in which a test may plant defects."""
    return Path(shutil.copytree(phantom_root, tmp_path / "planted"))


@pytest.fixture(scope="session")
def real_subset(tmp_path_factory):
    """A few patients of the real set; skipped where $CXR_DATA does not name one."""
    root = os.environ.get("CXR_DATA")
    if not root:
        pytest.skip("no real X-rays: $CXR_DATA is not set")
    target = tmp_path_factory.mktemp("real")
    rng = np.random.default_rng(0)
    for split, images in {"train": 60, "val": 8, "test": 24}.items():
        for label in ("NORMAL", "PNEUMONIA"):
            (target / split / label).mkdir(parents=True)
            files = sorted((Path(root) / split / label).glob("*.jpeg"))
            for index in rng.choice(len(files), min(images, len(files)), replace=False):
                shutil.copy(files[index], target / split / label)
    return target


@pytest.fixture(scope="session")
def run_all():
    """Run ``run_all.py`` as a user does; returns the finished process."""

    def call(*arguments, **environment):
        command = [sys.executable, str(paths.ROOT / "run_all.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=900, check=False)

    return call
