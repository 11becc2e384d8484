"""Differences, agreement and sentences against counts that a reader could make."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from cxr_utils.data.sources import COUNTS
from cxr_utils.evaluation import calibration
from cxr_utils.evaluation.results import evaluate
from cxr_utils.parameters import MODELS
from cxr_utils.reporting import (
    beside_published,
    closer_look,
    comparison,
    findings,
    model_card,
    published,
    recommendations,
    slider,
)

CUTS = {"baseline_cnn": 0.5, "resnet50v2": 0.6}


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


def _scores(frame, cut, temperature=1.0):
    points = {"half": 0.5, "youden": cut}
    return {
        split: evaluate(part, points, "youden", 200, 0, temperature)
        for split, part in frame.groupby("split", sort=False)
    }


@pytest.fixture(scope="module")
def predictions():
    return {"baseline_cnn": _predictions(0, 1.5), "resnet50v2": _predictions(1, 2.0)}


@pytest.fixture(scope="module")
def models(predictions):
    return {model: _scores(frame, CUTS[model]) for model, frame in predictions.items()}


def _card(**changes):
    history = [{"epoch": 1, "validation_loss": 0.2, "stress_loss": 0.3, "seconds": 60.0}]
    card = {
        "network": "ResNet50V2",
        "parameters": 1000,
        "weights": "random",
        "best_epoch": 1,
        "history": history,
        "image_size": 96,
    }
    card |= {
        "chosen_by": "stress_loss",
        "preprocessing": "x",
        "output": "y",
        "temperature": 1.0,
        "versions": {"keras": "3", "tensorflow": "2"},
    }
    return card | changes


def test_differences_by_a_loop(predictions, models):
    both = comparison.pair(predictions, models)
    table = comparison.differences(both, 50, 7).set_index("score")
    test = predictions["baseline_cnn"].query("split == 'test'")
    names, drawn = sorted(set(test["patient"])), []
    for draw in np.random.default_rng(7).integers(0, len(names), (50, len(names))):
        rows = np.concatenate([np.flatnonzero(test["patient"] == names[number]) for number in draw])
        one, two = (scores[rows] for scores in both.scores)
        labels = both.labels[rows]
        accuracy = np.mean((two >= 0.6) == labels) - np.mean((one >= 0.5) == labels)
        drawn.append([accuracy, sk.roc_auc_score(labels, two) - sk.roc_auc_score(labels, one)])
    for column, score in enumerate(("accuracy", "AUROC")):
        assert table.loc[score, ["low", "high"]].tolist() == pytest.approx(
            np.quantile(np.array(drawn)[:, column], (0.025, 0.975))
        )
    assert table.loc["accuracy", "difference"] == pytest.approx(
        models["resnet50v2"]["test"]["accuracy"] - models["baseline_cnn"]["test"]["accuracy"]
    )


def test_agreement_and_mcnemar_count_the_same_images(predictions, models):
    both = comparison.pair(predictions, models)
    table = comparison.agreement(both).set_index("images")
    assert (
        table["all"].sum() == len(both.labels)
        and (table["NORMAL"] + table["PNEUMONIA"]).tolist() == table["all"].tolist()
    )
    alone, other = table["all"].iloc[1], table["all"].iloc[2]
    p = stats.binomtest(int(alone), int(alone + other)).pvalue
    assert (
        f"{alone} images only Baseline CNN" in comparison.about_tests(both)[0]
        and f"p = {p:.3f}" in comparison.about_tests(both)[0]
    )
    assert table["all"].iloc[0] + alone == round(models["baseline_cnn"]["test"]["accuracy"] * 120)


def test_models_of_other_images_are_not_compared(predictions, models):
    moved = predictions | {"resnet50v2": predictions["resnet50v2"].iloc[::-1]}
    with pytest.raises(ValueError, match="same images"):
        comparison.pair(moved, models)


def _files(part):
    """The test images, the first six of them under a number that training has under another kind."""
    test = part.assign(split="test", patient=[f"person{row}_virus" for row in range(len(part))])
    train = pd.DataFrame(
        {"split": "train", "patient": [f"person{row}_bacteria" for row in range(6)]}
    )
    return pd.concat([train, test], ignore_index=True)


def _all_said(predictions, models, standing, cards=None):
    """Every table and sentence of 04 and the index, as one text."""
    cards = cards or {model: _card() for model in MODELS}
    both = comparison.pair(predictions, models)
    gaps = comparison.differences(both, 100, 0)
    data = {"counts": {"test": {"NORMAL": 40, "PNEUMONIA": 80}}, "median_size": [224, 224]}
    said = [
        *comparison.about_tests(both),
        *comparison.about_agreement(both),
        *comparison.conclusion(models, gaps),
    ]
    said += [
        *comparison.verdict(models, {}, gaps, standing),
        *comparison.about_decision_curve(predictions),
    ]
    for sections in (
        recommendations.recommend(models, cards, gaps, predictions, standing, True),
        model_card.sections(models, cards, data, standing),
    ):
        said += [sentence for sentences in sections.values() for sentence in sentences]
    for model, splits in models.items():
        part = predictions[model].query("split == 'test'")
        said += closer_look.about_errors(part, splits["test"]) + closer_look.about_calibration(
            part, splits["test"]
        )
        said += closer_look.about_operating_points(splits, 0.98) + findings.about_floor(
            splits["test"], standing
        )
        said += closer_look.without_doubtful(
            part, _files(part), splits["test"]
        ) + closer_look.beyond_metadata(part, part.iloc[::-1], 50, 0)
    tables = [
        findings.score_table(models, {}, list(next(iter(models.values())))),
        findings.subtype_table(models),
        comparison.score_intervals(models),
    ]
    tables += [
        beside_published.published_table(models, cards, data),
        findings.calibration_table(models[MODELS[0]]),
    ]
    said += [table.to_string() for table in tables] + [
        slider.slider(predictions, models, standing == "synthetic")
    ]
    text = "\n".join(said)
    assert "6 test images have a patient number" in text
    assert "None" not in text.replace("display: none", "")
    return text


@pytest.mark.parametrize("standing", list(published.STANDINGS))
def test_everything_can_be_said_of_any_data(predictions, models, standing):
    text = _all_said(predictions, models, standing)
    assert ("children of one to five" in text) == (standing in ("published", "medmnist"))
    assert ("drawn" in text) == (standing == "synthetic") and (
        "ImageNet weights (weights: imagenet)" in text
    ) == (standing == "published")


@pytest.mark.parametrize("cut", [0.0, 1.0])
def test_a_model_with_one_answer_only(predictions, cut):
    models = {model: _scores(frame, cut) for model, frame in predictions.items()}
    text = _all_said(predictions, models, "own")
    assert "undefined" in text
    assert ("It stands on that floor" in text) == (cut == 0.0)


def test_perfect_and_few(predictions):
    perfect = {
        model: frame.assign(score=np.where(frame["label"] == "PNEUMONIA", 0.99, 0.01))
        for model, frame in predictions.items()
    }
    few = {
        model: frame[frame["path"].str.extract(r"(\d+)", expand=False).astype(int) < 20]
        for model, frame in perfect.items()
    }
    for frames in (perfect, few):
        text = _all_said(
            frames, {model: _scores(frame, 0.5) for model, frame in frames.items()}, "own"
        )
        assert "[1.000, 1.000]" not in text


def test_the_original_protocol_has_no_validation(predictions):
    frames = {model: frame[frame["split"] != "validation"] for model, frame in predictions.items()}
    cards = {
        model: _card(
            chosen_by="validation_loss",
            history=[{"epoch": 1, "validation_loss": 0.2, "seconds": 60.0}],
        )
        for model in MODELS
    }
    text = _all_said(
        frames, {model: _scores(frame, 0.5) for model, frame in frames.items()}, "published", cards
    )
    assert "More validation data" not in text and "stress" not in text


def test_causes_are_named_only_beyond_chance(predictions, models):
    worse = {
        model: frame.assign(
            score=np.where(
                (frame["split"] == "test") & (frame["label"] == "NORMAL"), 0.9, frame["score"]
            )
        )
        for model, frame in predictions.items()
    }
    fallen = {model: _scores(frame, CUTS[model]) for model, frame in worse.items()}
    assert "lost specificity" in _all_said(
        worse, fallen, "own"
    ) and "lost specificity" not in _all_said(predictions, models, "own")
    assert "lost specificity" not in _all_said(worse, fallen, "synthetic")


def test_a_separable_validation_gets_no_temperature():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    assert calibration.fit_temperature(rng.normal((2 * labels - 1) * 8, 1.0), labels) == 1.0
    assert calibration.fit_temperature(
        np.where(labels == 1, 0.01, -0.01) * np.where(np.arange(100) == 3, -1, 1), labels
    ) == pytest.approx(0.25, abs=0.01)


def test_more_test_images_than_published_is_another_set():
    counts = {"train": COUNTS["train"], "test": {"NORMAL": 500, "PNEUMONIA": 500}}
    assert published.standing("folder", counts) == "own"
    assert (
        published.standing("folder", counts | {"test": {"NORMAL": 117, "PNEUMONIA": 195}})
        == "published"
    )
