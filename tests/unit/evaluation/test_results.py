"""Thresholds and temperature count each film of validation by its weight."""

import numpy as np
import pytest

from cxr_utils.data import dataset
from cxr_utils.data.manifest import labels_of
from cxr_utils.evaluation import results, thresholds
from cxr_utils.files import read_json
from cxr_utils.paths import RunFolder


@pytest.fixture
def data(smoke):
    found = dataset.open_data(smoke, smoke.baseline_cnn.image_size)
    found.files["weight"] = np.where(np.arange(len(found.files)) % 3, 1.0, 30.0)
    chosen = found.splits["validation"].files
    chosen["weight"] = found.files.set_index("path")["weight"][chosen["path"]].to_numpy()
    return found


def test_a_model(smoke, data, tmp_path):
    run, chosen = RunFolder(tmp_path).make(), data.splits["validation"]
    labels, weights = chosen.labels, chosen.files["weight"]
    logits = np.random.default_rng(1).normal(2 * labels - 1, 2.0) - labels * (weights > 1)
    results.score_model(smoke.baseline_cnn, {}, {"validation": logits}, logits, data, smoke, run)
    card = read_json(run.model_card("baseline_cnn"))
    told = card["temperature"], card["thresholds"]
    found = []
    for by in (weights, None):
        temperature = thresholds.fit_temperature(logits, labels, by)
        scores = 1 / (1 + np.exp(-logits / temperature))
        found.append((temperature, pytest.approx(thresholds.choose(labels, scores, 0.97, by))))
    assert told == found[0] != found[1] and told[0] != found[1][0]


def test_reference_classifiers(smoke, data, tmp_path):
    run = RunFolder(tmp_path).make()
    floors = results.score_references(data, smoke, run)
    scored = results.read_csv(run.reference("border")).merge(data.files[["path", "weight"]])
    scored = scored[scored["split"] == "validation"]
    known = labels_of(scored), scored["score"].to_numpy()
    weighted, equal = (
        thresholds.choose(*known, 0.97, by)["sensitivity"] for by in (scored["weight"], None)
    )
    assert floors["border"]["validation"]["threshold"] == weighted != equal
