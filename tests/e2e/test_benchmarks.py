"""Each benchmark runs and prints its ratios; how fast things are is for people to read."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from cxr_utils import paths


def test_data_preparation(smoke):
    few = [
        f"data.phantom_images={smoke.data.phantom_images}",
        f"data.phantom_size={smoke.data.phantom_size}",
    ]
    arguments = ["phantom", "--repeats", "1", *(part for value in few for part in ("--set", value))]
    command = [sys.executable, paths.ROOT / "benchmarks" / "data_preparation.py", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ.copy(), check=True
    )
    assert done.stdout.startswith("166 files") and done.stdout.count("of this project's time") == 5


SMALL = (
    "data.phantom_images=120",
    "data.phantom_size=64",
    "baseline_cnn.image_size=32",
    "baseline_cnn.batch_size=8",
)
SMALL += ("resnet50v2.image_size=32", "resnet50v2.backbone=MobileNet")


def _benchmark(name, *arguments):
    values = (part for value in SMALL for part in ("--set", value))
    command = [sys.executable, paths.ROOT / "benchmarks" / name, "phantom", *values, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ.copy(), check=True
    ).stdout


@pytest.mark.long
def test_training_speed():
    """Four ways, and the way of another checkout, which is this one here."""
    asked = ("--model", "baseline_cnn", "--rounds", "1", "--steps", "6")
    said = _benchmark("training_speed.py", *asked, "--before", str(paths.ROOT))
    assert said.count("images/s") == 5 and "ours is  1.00 of it" in said


@pytest.mark.parametrize("rows", ["validations", "recipes", "stretch"])
def test_the_studies_in_the_documents_are_what_their_rows_say(rows):
    command = [sys.executable, "benchmarks/validations.py", "--csv", f"docs/{rows}.csv"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    tables = done.stdout.strip("\n")
    assert "mixed, shifted" in tables and f"\n{tables}\n```" in (
        paths.ROOT / "docs" / "method.md"
    ).read_text(encoding="utf-8")


@pytest.mark.long
def test_validations(tmp_path):
    """A row for each validation of a recipe; what is in the file already is not trained again."""
    asked = ("--csv", str(tmp_path / "rows.csv"), "--draws", "1", "--only", "class weights")
    asked += ("--set", "data.phantom_images=400", "--set", "baseline_cnn.epochs=1")
    said = [_benchmark("validations.py", *asked) for _ in range(2)]
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert len(set(rows["validation"])) == len(rows) == 13
    assert rows["log loss"].nunique() == 13 and rows["films"].gt(0).all()
    assert all("Spearman, AUROC" in one and "class weights" in one for one in said)


@pytest.mark.long
def test_runner_overhead():
    command = [sys.executable, paths.ROOT / "benchmarks" / "runner_overhead.py", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"overhead outside the notebooks: -?[\d.]+ s\n", done.stdout)
    assert re.search(r"overhead of the whole: -?[\d.]+ s, [\d.]+ times as long", done.stdout)


def test_studies_that_do_nothing(tmp_path):
    """All of the benchmark takes minutes."""
    import studies

    share, cells = studies.nothing(tmp_path, 30)
    assert cells == 30 and 0 < share < 60
