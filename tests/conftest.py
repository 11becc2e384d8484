"""What the tests share: a private cache, a tiny SYNTHETIC phantom, scored models, the commands."""

import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

from cxr_utils import paths, profiles
from cxr_utils.data import sources

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A few cases, the same each time, unless --hypothesis-profile=many asks for more.
settings.register_profile(
    "few", max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile(
    "many", parent=settings.get_profile("few"), max_examples=300, derandomize=False, print_blob=True
)
settings.load_profile("few")


def pytest_terminal_summary(terminalreporter):
    """Say how many faults were tried, and how many of them runs survived."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if getattr(report, "when", "") == "call"
    ]
    done = Counter(name for report in reports for name, _ in report.user_properties)
    if done["fault tried"]:
        late = done["fault too late"]
        tried, survived = done["fault tried"] - late, done["fault survived"]
        terminalreporter.write_line(
            f"faults tried: {tried}, survived: {survived}; {late} came too late"
        )


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache; children inherit it.

    Each of pytest's processes has its own: who waits for another's says so, where tests expect one
    line.
    """
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CXR_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def smoke():
    return profiles.load("smoke", ["data.source=phantom"])


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

    def call(*arguments, script=paths.ROOT / "run_all.py", **environment):
        command = [sys.executable, str(script), *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | environment,
            timeout=900,
            check=False,
        )

    return call


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes) on 127.0.0.1, and misbehaves as `fault` says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.fault, self.asked = {}, "", []
        self.address = f"http://127.0.0.1:{self.server_port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.command, self.path, self.headers.get("Range", "")))
        body = self.server.files.get(self.path.split("?")[0].lstrip("/"))
        if body is None:
            return self.send_error(404)
        if self.server.fault == "html":
            body = b"<html>please sign in</html>"
        if self.server.fault == "wrong":
            body = bytes([body[0] ^ 1]) + body[1:]
        start = (
            int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if "Range" in self.headers
            else 0
        )
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return None
        middle = (start + len(body)) // 2
        self.wfile.write(body[start:middle])
        if self.server.fault == "cut":
            return self.connection.close()
        if self.server.fault == "stall":
            time.sleep(4)  # and then all goes well: who waited long enough gets the file
        with contextlib.suppress(OSError):
            self.wfile.write(body[middle:])
        return None

    do_HEAD = do_GET

    def do_POST(self):
        """Kaggle's service answers with the address of the archive."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302)
        self.send_header("Location", f"{self.server.address}archive.zip")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def _predictions(seed, quality, n=120, splits=("validation", "val", "test")):
    rng, frames = np.random.default_rng(seed), []
    for split in splits:
        size = 16 if split == "val" else n
        sick = np.arange(size) % 3 > 0
        score = 1 / (1 + np.exp(-rng.normal((2 * sick - 1) * quality, 1.5)))
        kinds = np.where(sick, np.where(np.arange(size) % 2, "virus", "bacteria"), "normal")
        table = {
            "path": [f"{split}/{i}.jpeg" for i in range(size)],
            "patient": [f"{split}{i // 2}" for i in range(size)],
        }
        table |= {"label": np.where(sick, "PNEUMONIA", "NORMAL"), "subtype": kinds, "score": score}
        frames.append(pd.DataFrame(table).assign(split=split))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="session")
def scored():
    """Make a scored model of invented predictions, or of a given `frame`."""
    from cxr_utils.evaluation import comparison, results

    def make(name, title, seed=0, quality=1.5, cut=0.5, frame=None, **card):
        frame = _predictions(seed, quality) if frame is None else frame
        points = {"half": 0.5, "youden": cut}
        scores = {
            split: results.evaluate(part, points, "youden", 200, 0, 1.0)
            for split, part in frame.groupby("split", sort=False)
        }
        history = [{"epoch": 1, "validation_loss": 0.2, "stress_loss": 0.3, "seconds": 60.0}]
        known = {
            "model": name,
            "title": title,
            "builder": "pretrained",
            "network": title,
            "parameters": 1000 + seed,
            "start": {"kind": "random", "reason": "", "sha256": ""},
            "precision": {
                "asked": "auto",
                "used": "float32",
                "fell_back_from": None,
                "devices": 1,
            },
            "epochs": {"planned": 1, "done": 1, "best": 1},
            "chosen_by": "stress_loss",
            "head": None,
            "history": history,
            "image_size": 96,
            "fit": "squash",
            "preprocessing": {"mode": "grey", "interpolation": "bilinear", "divided_by": 255},
            "test_time_flips": True,
            "temperature": 1.0,
            "versions": {"keras": "3", "tensorflow": "2"},
        }
        return comparison.Scored(name, known | card, scores, frame)

    return make


@pytest.fixture(scope="session")
def models(scored):
    """Two scored models of the same invented images."""
    return [
        scored("baseline_cnn", "Baseline CNN", builder="residual_cnn", network="residual_cnn"),
        scored("resnet50v2", "ResNet50V2", seed=1, quality=2.0, cut=0.6),
    ]


@pytest.fixture
def server():
    served = Server()
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()
