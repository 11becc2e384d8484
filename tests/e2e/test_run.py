"""The whole run, as a user starts it: on the SYNTHETIC phantom, and on a few real X-rays."""

import json
import os
import re
import shlex
import subprocess
import sys
import time

import faults
import nbformat
import numpy as np
import pandas as pd
import pytest
import recompute
from sklearn import metrics as sk

from cxr_utils import paths
from cxr_utils.pipeline.steps import find_steps

STEPS = [step.name for step in find_steps()]
SECRET = faults.SECRET
MODELS = ["baseline_cnn", "mobilenet"]  # see faults.SMALL


def test_smoke_run_succeeds_and_says_synthetic(smoke_run, run):
    lines = smoke_run.stdout.strip().splitlines()
    assert (
        lines[-1].startswith("SYNTHETIC")
        and "python run_all.py --data kaggle --run real" in lines[-1]
    )
    assert f"open {run.index}" in lines
    assert not list(paths.NOTEBOOKS.glob("kernel-*"))  # sockets


def test_no_secret_is_written_down(smoke_run, run, run_all, out):
    written = [
        file
        for file in run.root.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    ]
    assert not written and SECRET not in smoke_run.stdout + smoke_run.stderr
    address = f"resnet50v2.weights_address=https://name:{SECRET}@127.0.0.1/weights"
    refused = run_all("smoke", "--out", out, "--set", address)
    assert (
        refused.returncode == 2 and SECRET not in refused.stdout + refused.stderr
    )  # it would stand in run.json


def _check_artefacts(run, splits, models=MODELS):
    found = json.loads(run.metrics.read_text())
    assert set(found["models"]) == set(models) and found["schema"] == 1
    for model in models:
        assert list(found["models"][model]) == splits
        assert run.model(model).is_file() and run.model_card(model).is_file()
        for split in splits:
            assert run.figure(f"confusion_matrix_{model}_{split}").is_file()
    for step in STEPS:
        assert run.executed(step).is_file() and run.html(step).is_file()
    record = json.loads(run.record.read_text())
    assert (
        set(record["steps"]) == set(STEPS)
        and record["data"]["manifest"] == found["data"]["manifest"]
    )
    return found


def _check_scores(run, found):
    """Every figure again from the files of predictions, by other code."""
    wrong, compared = recompute.differences(run.root)
    assert wrong == [] and compared > 100 * len(found["models"])
    for model in found["models"]:
        frame = pd.read_csv(run.predictions(model), float_precision="round_trip")
        assert list(frame) == ["split", "path", "patient", "label", "subtype", "score"]
        for split, entry in found["models"][model].items():
            part = frame[frame["split"] == split]
            labels, scores = (part["label"] == "PNEUMONIA").to_numpy(int), part["score"].to_numpy()
            assert entry["auroc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-9)
            assert entry["loss"] == pytest.approx(
                sk.log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7)), abs=1e-9
            )
            assert (
                entry["confusion_matrix"]
                == sk.confusion_matrix(labels, scores >= entry["threshold"], labels=[0, 1]).tolist()
            )


def test_smoke_run_leaves_everything_behind(run):
    found = _check_artefacts(run, ["validation", "val", "test"])
    _check_scores(run, found)
    assert found["data"]["source"] == "phantom" and found["data"]["counts"]["val"] == {
        "NORMAL": 8,
        "PNEUMONIA": 8,
    }
    card = json.loads(run.model_card("mobilenet").read_text())
    assert (
        card["synthetic"]
        and card["start"]["kind"] == "random"
        and card["threshold"] == found["models"]["mobilenet"]["test"]["threshold"]
    )


def test_reports_are_whole_and_synthetic(run):
    index = run.index.read_text()
    for step in STEPS:
        page = run.html(step).read_text()
        assert f'href="{step}.html"' in index
        assert "SYNTHETIC DATA." in page and "python run_all.py --data kaggle --run real" in page
        assert not re.search(r"<script[^>]+src|https?://[^\s\"<]*\.(js|css)", page)
        pictures = re.findall(r"<img[^>]*>", page, flags=re.DOTALL)
        assert pictures and all(
            re.search(r'alt="SYNTHETIC · [^"]{20,}"', picture) for picture in pictures
        )
        assert run.html(step).stat().st_size < 3_000_000
    for step in STEPS[1:]:
        assert "onfusion matrix" in run.html(step).read_text()
    assert "not comparable" in run.html("04_comparison").read_text()
    assert "SYNTHETIC films come with the truth" in run.html("02_baseline_cnn").read_text()
    assert "SYNTHETIC DATA." in index and 'alt="SYNTHETIC · ' in index
    assert "SYNTHETIC" in (run.root.parent / "index.html").read_text()


def test_no_sentence_ranks_the_phantom_against_real_scores(run):
    notebook = nbformat.read(run.executed("04_comparison"), as_version=4)
    said = [
        output.data["text/markdown"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    assert said and not any("original" in text for text in said)


def test_second_run_runs_no_notebook(copied, run_all):
    run, out = copied, copied.root.parent
    before = {step: run.executed(step).stat().st_mtime_ns for step in STEPS}
    started = time.monotonic()
    done = run_all(*faults.COMMAND, "--out", out)
    print(f"a run with nothing to do took {time.monotonic() - started:.1f} s")
    assert done.returncode == 0 and "still valid: " + ", ".join(STEPS) in done.stdout
    assert {step: run.executed(step).stat().st_mtime_ns for step in STEPS} == before


def _commands_of_the_readme():
    blocks = re.findall(r"```sh\n(.*?)```", (paths.ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [
        shlex.split(line, comments=True)
        for block in blocks
        for line in block.splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize("command", _commands_of_the_readme(), ids=" ".join)
def test_every_command_of_the_readme(command, run_all, out, run, phantom_root, tmp_path):
    """Runs as --dry-run, on the smoke run's folder; what would fetch or install is parsed."""
    named = {"path/to/folder": str(phantom_root), "reports/real/run.json": str(run.record)}
    named |= {"real": str(run.root), "real-repeated": str(run.root)} if "compare" in command else {}
    if "predict" in command:
        named = {"reports/real": str(run.root), "films/": str(phantom_root / "test" / "NORMAL")}
        named["out"], command = str(tmp_path / "out"), [*command, "--allow-synthetic"]
    if "study" in command:
        command = [*command, "--dry-run"]
    command = [named.get(word, word) for word in command]
    program, rest = command[0].removeprefix(".venv/bin/"), command[1:]
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (paths.ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "python" and rest[0] == "run_all.py":
        whole = rest[1:2] in (["smoke"], [str(run.record)]) or "--data" in rest
        own = [] if whole or "--run" in rest else [*faults.COMMAND[1:], "--run", "smoke"]
        profile = ["smoke"] if own and rest[1:2] != ["seed"] else []
        done = run_all(*profile, *own, *rest[1:], "--out", out, "--dry-run", CXR_DATA="")
        assert done.returncode == 0 and "04_comparison" in done.stdout, done.stderr
    elif program == "python" and rest[:2] == ["-m", "cxr_utils"]:
        done = subprocess.run(
            [sys.executable, *rest], capture_output=True, text=True, cwd=paths.ROOT, check=False
        )
        said = "equal" if rest[2] == "compare" else "SYNTHETIC" if rest[3:4] == ["phantom"] else ""
        assert done.returncode == 0 and said in done.stdout, done.stderr
    else:
        assert program in ("python3", "pip") or rest[:2] == ["-m", "pytest"], command
        named = [word for word in rest if word.endswith((".lock", ".yml"))]
        assert all((paths.ROOT / name).is_file() for name in named)


def test_what_changed_is_what_runs(run, run_all, out):
    """A parameter of 03 does not concern 02."""
    asked = (*faults.COMMAND, "--out", out, "--dry-run")
    done = run_all(*asked, "--set", "resnet50v2.epochs=3")
    actions = dict(re.findall(r"(\d\d_\w+) +(run|keep|leave)", done.stdout))
    assert actions == {
        "01_eda": "keep",
        "02_baseline_cnn": "keep",
        "03_resnet50v2": "run",
        "04_comparison": "run",
    }
    done = run_all(*asked, "--only", "01_eda", "--force")
    assert dict(re.findall(r"(\d\d_\w+) +(run|keep|leave)", done.stdout)) == dict.fromkeys(
        STEPS, "leave"
    ) | {"01_eda": "run"}


def _dry_run(project, out, *extra):
    """The decisions and reasons of a copy of the project on the smoke run's folder."""
    command = [sys.executable, str(project / "run_all.py"), *faults.COMMAND]
    command += ["--out", str(out), "--dry-run", *extra]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project)},
        check=True,
    )
    return {
        step: (action, reason)
        for step, action, reason in re.findall(r"(\d\d_\w+) +(run|keep|leave) +(.*)", done.stdout)
    }


NOTEBOOK = "notebooks/02_baseline_cnn.ipynb"
TAKEN, TRAINED = "its model is taken as it was trained", "its model is trained"


@pytest.mark.parametrize(
    ("file", "change", "reason", "models"),
    [
        (
            "cxr_utils/reporting/figures.py",
            lambda text: text + "# a comment\n",
            "changed: package",
            TAKEN,
        ),
        (
            "cxr_utils/reporting/templates/style.css",
            lambda text: text + "p { margin: 0; }\n",
            "changed: package",
            TAKEN,
        ),
        (
            "cxr_utils/models/augmentation.py",
            lambda text: text + "# a comment\n",
            "changed: package",
            TRAINED,
        ),
        (
            "notebooks/02_baseline_cnn.ipynb",
            lambda text: text.replace("**The question.**", "**What is asked.**"),
            "changed: notebook",
            TAKEN,
        ),
        (
            "notebooks/02_baseline_cnn.ipynb",
            lambda text: text.replace('"nbformat_minor"', '"nbformat_minor" '),
            "",
            "",
        ),
    ],
    ids=["plot", "template", "augmentation", "prose", "spacing"],
)
def test_a_model_is_trained_again_only_for_what_decides_it(
    run, out, tmp_path, file, change, reason, models
):
    faults.copy_project(tmp_path)
    changed = change((tmp_path / file).read_text())
    assert changed != (tmp_path / file).read_text()
    (tmp_path / file).write_text(changed)
    found = _dry_run(tmp_path, out)
    assert found["02_baseline_cnn"] == (
        ("run", f"{reason}; {models}") if reason else ("keep", "nothing has changed")
    )
    other = found["03_resnet50v2"]
    assert other == (
        ("run", f"{reason}; {models}")
        if file.startswith("cxr_utils")
        else ("keep", "nothing has changed")
    )


def test_reasons_name_the_parameter_and_the_file(copied):
    run, out = copied, copied.root.parent
    found = _dry_run(
        paths.ROOT, out, "--set", "resnet50v2.epochs=3", "--set", "resnet50v2.precision=float32"
    )
    assert found["03_resnet50v2"] == ("run", f"changed: epochs and precision; {TRAINED}")
    assert found["04_comparison"] == ("run", "03_resnet50v2 runs")
    assert _dry_run(paths.ROOT, out, "--set", "evaluation.resamples=300")["02_baseline_cnn"] == (
        "run",
        f"changed: resamples; {TAKEN}",
    )
    whole = run.predictions("baseline_cnn").read_text()
    run.predictions("baseline_cnn").write_text(whole.replace("PNEUMONIA", "NORMAL", 1))
    assert _dry_run(paths.ROOT, out)["02_baseline_cnn"][1].startswith(
        "predictions/baseline_cnn.csv is not what the step left"
    )
    run.predictions("baseline_cnn").write_text(whole)
    assert {action for action, _ in _dry_run(paths.ROOT, out).values()} == {"keep"}


@pytest.mark.long
def test_a_run_is_run_again_from_its_record(run, run_all, tmp_path):
    """With equal scores; other data is refused, and what differs is named."""
    out = tmp_path
    done = run_all(run.record, "--out", out, "--only", "02")
    again = paths.RunFolder(out / "smoke-repeated")
    assert done.returncode == 0 and "not as it was" not in done.stdout, done.stdout + done.stderr
    assert "run smoke-repeated: profile smoke" in done.stdout
    assert (
        again.predictions("baseline_cnn").read_bytes()
        == run.predictions("baseline_cnn").read_bytes()
    )
    known, found = (json.loads(one.metrics.read_text())["models"] for one in (run, again))
    assert found == {"baseline_cnn": known["baseline_cnn"]}
    command = [sys.executable, "-m", "cxr_utils", "compare"]
    one = subprocess.run(
        [*command, run.root, run.root], capture_output=True, text=True, check=False
    )
    two = subprocess.run(
        [*command, run.root, again.root], capture_output=True, text=True, check=False
    )
    compared = re.search(r"(\d+) of (\d+) figures and predictions are equal", one.stdout)
    assert one.returncode == 0 and compared[1] == compared[2] and int(compared[1]) > 800
    assert two.returncode == 1 and "differs: mobilenet.csv test " in two.stdout
    refused = run_all(run.record, "--out", out, "--set", "data.phantom_seed=5")
    assert refused.returncode == 2 and "not the data of that run.json" in refused.stderr


@pytest.mark.long
def test_another_backbone_is_a_model_of_its_own_name(copied, run_all):
    """Its files, its entry and its title; nothing of the backbone before passes for this run's."""
    sets = ("--set", "resnet50v2.backbone=ResNet50V2", "--set", "resnet50v2.epochs=1")
    done = run_all(*faults.COMMAND, "--out", copied.root.parent, *sets)
    assert done.returncode == 0 and "still valid: 01_eda, 02_baseline_cnn" in done.stdout, (
        done.stderr
    )
    models = json.loads(copied.metrics.read_text())["models"]
    assert list(models) == ["baseline_cnn", "resnet50v2"]
    assert copied.predictions("resnet50v2").is_file() and copied.model("resnet50v2").is_file()
    assert not copied.predictions("mobilenet").exists()
    assert not list((copied.root / "figures").glob("confusion_matrix_mobilenet_*"))
    for page in (copied.index, copied.html("04_comparison")):
        assert "ResNet50V2" in page.read_text() and "MobileNet minus" not in page.read_text()


def test_weights_that_do_not_fit_stop_before_anything_runs(run, run_all, out, tmp_path):
    (tmp_path / "damaged.h5").write_bytes(b"damaged")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 3000)
    for file, said in (
        (tmp_path / "damaged.h5", "not a weights file"),
        (cut, "does not fit ResNet50V2"),
    ):
        done = run_all(
            "smoke", "--data", "phantom", "--out", out, "--set", f"resnet50v2.weights={file}"
        )
        assert (
            done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
        ), done.stderr
    assert (out / "smoke" / "03_resnet50v2.html").is_file()


def test_failed_step_stops_what_needs_it(copied, run_all):
    """Weights that cannot be had fail 03; 04 does not run, 02 stays valid."""
    run = copied
    missing = ("--set", "resnet50v2.weights=imagenet")  # of MobileNet no checksum is known
    done = run_all(*faults.COMMAND, "--out", copied.root.parent, *missing)
    assert done.returncode == 1
    failed, blocked = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        "03_resnet50v2: cell" in failed
        and "training.train_or_load" in failed
        and "no ImageNet weights with a checksum" in failed
    )
    assert "04_comparison: did not run" in blocked
    assert (
        "Traceback" in run.log.read_text()
        and "This step failed." in run.html("03_resnet50v2").read_text()
    )
    index = run.index.read_text()
    assert not run.html("04_comparison").exists() and "04_comparison.html" not in index
    assert (
        "This run is incomplete." in index
        and "MobileNet on" not in index
        and "mobilenet " not in done.stdout
    )
    assert list(json.loads(run.metrics.read_text())["models"]) == ["baseline_cnn"]
    assert 'id="failed"' in run.html("03_resnet50v2").read_text()
    partial = nbformat.read(run.executed("03_resnet50v2"), as_version=4)
    assert any(
        output.output_type == "error"
        for cell in partial.cells
        for output in cell.get("outputs", [])
    )


def test_other_data_in_the_same_folder_leaves_no_scores_behind(copied, run_all, real_subset):
    """Scores of the phantom cannot stand, unmarked, in a run on real X-rays."""
    run, out = copied, copied.root.parent
    done = run_all("smoke", "--data", real_subset, "--out", out, "--only", "01_eda")
    assert (
        done.returncode == 0
        and not run.metrics.is_file()
        and not run.html("02_baseline_cnn").is_file()
    )
    assert "No model has been scored yet" in run.index.read_text()
    refused = run_all("smoke", "--data", real_subset, "--out", out, "--only", "04_comparison")
    assert (
        refused.returncode == 2
        and "repeat the command with --from 02_baseline_cnn" in refused.stderr
    )


@pytest.mark.long
def test_real_subset_runs_and_is_compared(run_all, tmp_path, real_subset):
    small = ("--set", "resnet50v2.backbone=MobileNet")  # as it has a third of the layers
    done = run_all("smoke", "--data", real_subset, "--run", "real", "--out", tmp_path, *small)
    assert done.returncode == 0, done.stderr
    run = paths.RunFolder(tmp_path / "real")
    found = _check_artefacts(run, ["validation", "val", "test"])
    _check_scores(run, found)
    assert found["data"]["source"] == "folder" and found["data"]["counts"]["test"] == {
        "NORMAL": 24,
        "PNEUMONIA": 24,
    }
    page = run.html("04_comparison").read_text()
    assert "SYNTHETIC" not in page + run.index.read_text() + done.stdout
    assert "not comparable" in page and "percentage points below the original" not in page


@pytest.mark.long
def test_the_original_protocol_runs(run_all, tmp_path):
    """Profile seed: no validation of our own; val and test are scored, 0.5 is the threshold."""
    small = {
        "data.phantom_images": 120,
        "data.phantom_size": 64,
        "baseline_cnn.image_size": 32,
        "baseline_cnn.epochs": 1,
        "resnet50v2.backbone": "MobileNet",
        "resnet50v2.image_size": 32,
        "resnet50v2.epochs": 1,
        "resnet50v2.weights": "none",
        "evaluation.resamples": 200,
    }
    command = ["seed", "--data", "phantom", "--out", tmp_path]
    command += [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    done = run_all(*command)
    assert done.returncode == 0, done.stderr
    run = paths.RunFolder(tmp_path / "seed")
    found = _check_artefacts(run, ["val", "test"])
    _check_scores(run, found)
    assert all(found["models"][model]["test"]["threshold"] == 0.5 for model in found["models"])
    assert "the same answer would be right for" in run.html("04_comparison").read_text()
    assert "on which choices are made here" in run.html("01_eda").read_text()
    assert run_all(*command, "--dry-run").stdout.count("keep") == 4
