"""What is published under docs/: scores that follow from the predictions beside them, no radiographs, no machine's paths."""

import importlib.util
import json
import re

import pytest
from PIL import Image

from cxr_utils import paths

DOCS = paths.ROOT / "docs"
RESULTS = paths.RunFolder(DOCS / "results")


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish", DOCS / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_and_readme_are_what_the_files_give(publish):
    assert (DOCS / "results" / "README.md").read_text() == publish.page(RESULTS)
    readme = (paths.ROOT / "README.md").read_text()
    assert publish.update_readme(RESULTS, readme) == readme


def test_every_published_figure_follows_from_the_predictions(monkeypatch):
    monkeypatch.syspath_prepend(paths.ROOT / "tests" / "e2e")
    import recompute

    wrong, compared = recompute.differences(RESULTS.root)
    assert wrong == [] and compared > 1000


def test_results_are_of_the_real_set_by_the_default_profile():
    record, known = json.loads(RESULTS.record.read_text()), json.loads(RESULTS.metrics.read_text())
    assert (
        record["profile"] == "default"
        and not record["data"]["synthetic"]
        and not [word for word in record["command"] if "--set" in word]
    )
    assert record["data"]["manifest"] == known["data"]["manifest"] and "dirty" not in record["git"]
    assert known["data"]["counts"]["train"] == {"NORMAL": 1341, "PNEUMONIA": 3875}


def test_no_radiograph_and_no_path_of_a_machine_is_published():
    shown = {"comparison", "decision_curve", "class_counts"}
    kinds = r"(confusion_matrix|roc|reliability|learning_curves|scores)_(baseline_cnn|resnet50v2)(_test|_validation)?"
    for file in sorted(file for file in (DOCS / "results").rglob("*") if file.is_file()):
        if file.suffix == ".png":
            assert file.stem in shown or re.fullmatch(kinds, file.stem), file
            with Image.open(file) as picture:
                assert picture.width > 300
        else:
            assert file.suffix in (".json", ".csv", ".md"), file
            assert not re.search(r"/(tmp|home|root|work|Users)/", file.read_text()), file


def test_example_report_is_synthetic_small_and_whole():
    files = sorted((DOCS / "example-report").iterdir())
    assert sum(file.stat().st_size for file in files) < 5_000_000
    for file in files:
        text = file.read_text()
        assert not re.search(r"/(tmp|home|root|work|Users)/", text), file
        if file.suffix == ".html":
            assert "SYNTHETIC DATA." in text
            for link in re.findall(r'href="([^"#:]+)"', text):
                assert (file.parent / link).is_file(), f"{file.name}: {link}"
