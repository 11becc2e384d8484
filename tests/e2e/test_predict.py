"""Trained models on new films: the commands, the page that shows answers, and the Python lines."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, logit

from cxr_utils import cli, paths, prediction
from cxr_utils.evaluation import results
from cxr_utils.files import read_json
from cxr_utils.parameters import UsageError
from cxr_utils.prediction import model as models
from cxr_utils.reporting import text

MODEL = "baseline_cnn"
ALLOWED = "--allow-synthetic"


@pytest.fixture(scope="module")
def copy(run, tmp_path_factory):
    """A copy of the shared run's models and scores, with one of them in ONNX."""
    folder = paths.RunFolder(tmp_path_factory.mktemp("run") / "smoke")
    for part in ("models", "predictions"):
        shutil.copytree(run.root / part, folder.root / part)
    for file in ("metrics.json", "run.json"):
        shutil.copy(run.root / file, folder.root / file)
    return folder


@pytest.fixture(scope="module")
def trained(copy):
    return prediction.load(copy.root, MODEL, allow_synthetic=True)


@pytest.fixture(scope="module")
def films(phantom_root):
    return sorted((phantom_root / "test").rglob("*.jpeg"))[:20]


def _main(*arguments):
    return cli.guarded(cli.main, [str(one) for one in arguments])


def _predict(copy, *arguments):
    return _main("predict", "--run", copy.root, "--model", MODEL, ALLOWED, *arguments)


def test_films_score_as_they_did_in_the_run(trained, run, phantom_root):
    """The code that prepared the training films prepares these."""
    test = results.read_csv(run.predictions(MODEL)).query("split == 'test'")
    answers = trained.predict(phantom_root / path for path in test["path"])
    assert list(answers) == list(models.FIELDS) and answers["error"].isna().all()
    assert answers["probability"].to_numpy() == pytest.approx(test["score"].to_numpy(), abs=2e-6)
    threshold = read_json(run.model_card(MODEL))["threshold"]
    assert list(answers["decision"] == "PNEUMONIA") == list(test["score"] >= threshold)
    low, high = np.array(answers["interval"].tolist()).T
    assert (low <= answers["probability"]).all() and (answers["probability"] <= high).all()
    assert answers["synthetic"].all()
    assert set(answers["digest"]) == {read_json(run.model_card(MODEL))["sha256"]}


def test_the_mean_of_all_models(copy, run, films):
    found = prediction.load(copy.root, "ensemble", allow_synthetic=True)
    answers = found.predict(films)
    each = [
        prediction.load(copy.root, one.card["model"], allow_synthetic=True).predict(films)
        for one in found.parts
    ]
    assert len(each) == 2
    mean = expit(np.mean([logit(one["probability"]) for one in each], axis=0))
    assert answers["probability"].to_numpy() == pytest.approx(mean, abs=1e-5)
    cuts = [part.threshold for part in found.parts]
    over = [logit(one["probability"]) - cut for one, cut in zip(each, cuts, strict=True)]
    ends = expit(np.sort(np.stack(over, axis=1)) + np.mean(cuts))
    assert np.array(answers["interval"].tolist()) == pytest.approx(ends, abs=1e-5)


def _part(trained, logits, **card):
    """A model that gives these logits, (n, members, 2), of whatever film."""
    size = sum(layer.mean.size for layer in trained.parts[0].training.layers)

    def engine(squares):
        count = len(squares)
        return np.zeros(count), np.repeat(logits, count, 0), np.zeros((count, size), np.float32)

    part = trained.parts[0]
    return models.Part(
        part.card | {"temperature": 1.0, "threshold": 0.5} | card, part.training, engine
    )


def _answer(trained, films, *parts):
    return next(models.Model("x", trained.folder, parts).answers(films[:1]))


def test_seeds_are_the_views_of_an_ensemble(trained, films):
    three = np.array([[[-1.0, 1.0], [2.0, 4.0], [5.0, 5.0]]])
    answer = _answer(trained, films, _part(trained, three, members=3, temperature=2.0))
    assert answer["probability"] == pytest.approx(expit(8 / 6), abs=1e-6)
    assert answer["interval"] == pytest.approx(expit([0, 2.5]), abs=1e-6)


@pytest.mark.parametrize("flips", [True, False])
def test_an_answer_whose_views_disagree_is_near_the_threshold(trained, films, flips):
    """The mirror image counts for the interval even where it does not for the score."""
    answer = _answer(
        trained, films, _part(trained, np.array([[[0.5, -0.1]]]), test_time_flips=flips)
    )
    assert "near the threshold" in answer["unsure"] and answer["decision"] == "PNEUMONIA"
    assert answer["probability"] == pytest.approx(expit(0.2 if flips else 0.5), abs=1e-6)
    assert answer["interval"] == pytest.approx(expit([-0.1, 0.5]), abs=1e-6)
    agreed = _answer(
        trained, films, _part(trained, np.array([[[0.5, 0.1]]]), test_time_flips=flips)
    )
    assert "near" not in (agreed["unsure"] or "")


def test_models_that_disagree_are_near_the_threshold(trained, films):
    """Each is held against its own threshold."""
    low = _part(trained, np.full((1, 1, 2), -0.9), threshold=expit(-3))
    high = _part(trained, np.full((1, 1, 2), 0.9), threshold=expit(1))
    answer = _answer(trained, films, low, high)
    assert answer["decision"] == "PNEUMONIA" and "near the threshold" in answer["unsure"]


def test_what_is_no_number_is_no_answer(trained, films):
    answer = _answer(trained, films, _part(trained, np.full((1, 1, 2), np.nan)))
    assert "no number" in answer["error"] and answer["decision"] is None


def test_one_bad_film_stops_nothing(copy, films, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert _predict(copy, films[0], bad, tmp_path / "none.png", films[1]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["error"] is None for answer in answers] == [True, False, False, True]
    assert answers[1]["sha256"] and "not an image" in answers[1]["error"]
    assert all(answers[1][name] is None for name in ("probability", "decision", "interval"))
    assert [list(answer) for answer in answers] == [list(models.FIELDS)] * 4


def test_csv_holds_the_same(copy, films, capsys, trained):
    assert _predict(copy, films[0], "--format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    answer = next(trained.answers(films[:1]))
    assert float(row["probability"]) == answer["probability"]
    assert json.loads(row["interval"]) == answer["interval"] and row["error"] == ""


def test_films_unlike_the_training_films_are_unsure(trained, tmp_path, films):
    rng = np.random.default_rng(0)
    for number in range(8):
        noise = rng.integers(0, 256, (80, 80), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"noise{number}.png")
    Image.new("L", (80, 80), 90).save(tmp_path / "blank.png")
    answers = trained.predict([tmp_path])
    assert answers["unsure"].notna().all() and (answers["distance"] > 1).sum() >= 8
    assert answers.set_index("path")["unsure"][str(tmp_path / "blank.png")].startswith("blank")
    with Image.open(films[0]) as film:
        film.rotate(180).save(tmp_path / "turned.png")
    turned = trained.predict([tmp_path / "turned.png"])["unsure"][0]
    assert turned and turned.startswith("unlike the training films")


def test_onnx_answers_as_keras(copy, trained, films, capfd):
    pytest.importorskip("tf2onnx", reason="no tf2onnx: it comes with the extra 'onnx'")
    options = ("export", "--run", copy.root, "--model", MODEL, ALLOWED)
    assert _main(*options) == 0
    said = capfd.readouterr().out
    assert "films of validation" in said and "a second by Keras" in said
    assert float(re.search(r"differ by (\S+) at most", said)[1]) <= 1e-4
    assert _main(*options) == 2 and "--force" in capfd.readouterr().err
    assert _predict(copy, *films, "--engine", "onnx") == 0
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    expected = trained.predict(films)
    for name, tolerance in (("probability", 1e-4), ("distance", 1e-3)):
        found = [answer[name] for answer in answers]
        assert found == pytest.approx(expected[name].tolist(), abs=tolerance)
    check = "import sys; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    code = f"from cxr_utils import prediction; m = prediction.load({str(copy.root)!r}, {MODEL!r}, "
    code += (
        f"engine='onnx', allow_synthetic=True); print(len(m.predict([{str(films[0])!r}]))); {check}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)
    import onnx

    about = {one.key: one.value for one in onnx.load(copy.onnx(MODEL)).metadata_props}
    card = read_json(copy.model_card(MODEL))
    assert about["sha256"] == card["sha256"] and about["synthetic"] == "True"
    content = bytearray(copy.onnx(MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    copy.onnx(MODEL).write_bytes(content)
    assert _predict(copy, films[0], "--engine", "onnx") == 2
    assert "damaged" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "nowhere"], "no trained model there"),
        (["--model", "baseline_cn"], "did you mean baseline_cnn"),
        (["--engine", "onnx", "--model", "mobilenet"], "smoke --model mobilenet"),
        (["--report"], "needs --out"),
        (["--report", "--out", "x", "--format", "csv"], "--format jsonl"),
        (["--out", __file__], "cannot be written"),
    ],
)
def test_where_nothing_can_begin_it_is_exit_2_and_one_line(copy, films, capsys, arguments, said):
    assert _predict(copy, films[0], *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_synthetic_model_is_refused(copy, films, tmp_path, capsys):
    assert _main("predict", "--run", copy.root, films[0]) == 2
    assert "SYNTHETIC" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--allow-synthetic"):
        prediction.load(copy.root)
    assert _predict(copy, tmp_path) == 2 and "no films there" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["weights", "films", "code"])
def test_a_model_that_is_damaged_or_of_other_code_is_refused(copy, films, tmp_path, capsys, broken):
    other = paths.RunFolder(shutil.copytree(copy.root, tmp_path / "other"))
    if broken == "code":
        card = read_json(other.model_card(MODEL))
        card["preprocessing"]["code"] = "0" * 64
        other.model_card(MODEL).write_text(json.dumps(card))
    else:
        file = other.model(MODEL) if broken == "weights" else other.training_films(MODEL)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert _predict(other, films[0]) == 2
    error = capsys.readouterr().err
    assert {"weights": ".keras: ", "films": ".films.npz: ", "code": "another revision"}[
        broken
    ] in error


def _fake(trained):
    """A model that answers at once and without TensorFlow."""
    return models.Model(MODEL, trained.folder, [_part(trained, np.ones((1, 1, 2)))])


def test_what_goes_wrong_while_names_are_found_is_raised(trained, films):
    def failing():
        yield films[0]
        raise OSError("the disk is gone")

    answers = _fake(trained).answers(failing())
    assert next(answers)["path"] == str(films[0])
    with pytest.raises(OSError, match="the disk is gone"):
        next(answers)


def test_memory_does_not_grow_with_the_number_of_films(trained, films):
    """Films are found while others are answered: no list of them is made."""
    found = []

    def endless():
        while True:
            found.append(1)
            yield films[0]

    answers = _fake(trained).answers(endless())
    for _ in range(200):
        next(answers)
    assert len(found) < 200 + models.AHEAD + 2 * models.BATCH


def test_an_answer_does_not_wait_for_the_next_name(trained, films):
    reader, writer = os.pipe()
    with os.fdopen(reader) as listed, os.fdopen(writer, "w") as names:
        answers = _fake(trained).answers(models.search.find(["-"], listed))
        for film in films[:3]:
            names.write(f"{film}\n")
            names.flush()
            assert next(answers)["path"] == str(film)
        names.close()
        assert next(answers, None) is None


COMMAND = [sys.executable, "-m", "cxr_utils", "predict", "-", ALLOWED, "--model", MODEL, "--run"]


def test_interrupted_it_leaves_whole_lines(copy, films):
    restore = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(
        [*COMMAND, copy.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=paths.ROOT, **restore,
    )  # fmt: skip
    process.stdin.write("".join(f"{films[0]}\n" for _ in range(300)))
    process.stdin.flush()
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "interrupted\n"
    lines = (first + out).splitlines()
    assert all(json.loads(line)["path"] == str(films[0]) for line in lines) and out[-1:] in (
        "",
        "\n",
    )


def test_a_pipe_that_closes_ends_it(copy, films):
    process = subprocess.Popen(
        [*COMMAND, copy.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=paths.ROOT,
    )  # fmt: skip
    process.stdin.write("".join(f"{films[0]}\n" for _ in range(300)))
    process.stdin.close()
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert "nobody reads the output" in process.stderr.read()


@pytest.fixture(scope="module")
def page(copy, films, tmp_path_factory):
    """Answers with their page, of films with markup for names."""
    folder, out = tmp_path_factory.mktemp("films"), tmp_path_factory.mktemp("out")
    for number, film in enumerate(films[:5]):
        shutil.copy(film, folder / f"<img src=x onerror=alert({number})>.jpeg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(
        folder / "noise.png"
    )
    (folder / "bad.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patched:  # names are relative to where the user is
        patched.chdir(folder.parent)
        assert _predict(copy, folder.name, "--out", out, "--report") == 1
    return out


def test_the_page_shows_every_answer(page, copy, films, capsys):
    answers = results.read_answers(page / "answers.jsonl")
    assert len(answers) == 7 and answers["error"].notna().sum() == 1
    shown = (page / "predict.html").read_text()
    assert "SYNTHETIC MODEL" in shown and "Not a medical device" in shown
    assert "&lt;img src=x onerror=alert(0)&gt;" in shown and "<img src=x" not in shown
    assert shown.count('class="case"') == 6 and "unlike the training films" in shown
    assert shown.count('data-kind="unsure"') == answers["unsure"].notna().sum() > 0
    assert _predict(copy, films[0], "--out", page) == 2 and "--force" in capsys.readouterr().err
    assert _predict(copy, films[0], "--out", page / "new" / "folder") == 0


def test_the_page_in_a_browser(looked_at, page):
    shown = looked_at(page / "predict.html")
    assert shown.locator(".gallery .case").count() == 6
    first = shown.locator(".gallery >> nth=0")
    first.locator(".case").first.evaluate("film => (film.dataset.probability = '1e-06')")
    for key, order in (("name", 1), ("distance", -1), ("probability", -1)):
        first.locator("select.order").select_option(key)
        found = first.locator(".case").evaluate_all(f"all => all.map(one => one.dataset.{key})")
        keys = found if key == "name" else [float(value) for value in found]
        assert keys == sorted(keys)[::order]


def test_a_notebook_without_answers_names_the_command(tmp_path):
    table = results.read_answers(tmp_path / "none.jsonl")
    said = text.render("answers", **text.answers(table), file="none.jsonl")
    assert "python -m cxr_utils predict" in said


def test_the_documented_lines(copy, films):
    page = (paths.ROOT / "docs" / "prediction.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    known = {"film.jpeg": films[0], "folder": films[0].parent, "reports/real": copy.root}
    for name, there in known.items():
        code = code.replace(f'"{name}"', repr(str(there)))
    names = {}
    exec(code.replace('"baseline_cnn"', '"baseline_cnn", allow_synthetic=True'), names)
    assert len(names["answers"]) == 1 + len(list(films[0].parent.iterdir()))
    assert all(f"`{name}`" in page for name in models.FIELDS)


@pytest.mark.long
@pytest.mark.parametrize("name", ["prediction_speed", "unlike_films"])
def test_the_benchmarks_run(name, copy, phantom_root):
    command = [sys.executable, f"benchmarks/{name}.py", copy.root, phantom_root]
    command += ["--films", "16", "--rounds", "1", "--engine", "keras"] * (
        name == "prediction_speed"
    )
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    if name == "prediction_speed":
        assert re.search(r"first answer after .* ratio [\d.]+; \d+ MB after 16 films", done.stdout)
    else:
        found = dict(re.findall(r"training films, (.+?) +\d+ +([\d.]+)\n", done.stdout))
        assert float(found["as they are"]) < 0.3 < 0.9 <= float(found["inverted"])
