"""The default profile on the SYNTHETIC phantom: both models learn what is there to learn."""

import json

import pytest


@pytest.mark.long
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_both_models_learn_the_phantom(run_all, tmp_path, precision):
    settings = [f"--set={model}.precision={precision}" for model in ("baseline_cnn", "resnet50v2")]
    done = run_all("default", "--data", "phantom", "--out", tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    models = json.loads((tmp_path / "default" / "metrics.json").read_text())["models"]
    for name, most in (("baseline_cnn", 0.99), ("resnet50v2", 1.0)):
        test = models[name]["test"]
        always = sum(test["confusion_matrix"][1]) / test["n"]
        assert 0.85 <= test["auroc"] <= most, name
        assert test["accuracy"] > always, name
