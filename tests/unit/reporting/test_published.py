"""What docs/ shows follows from the predictions beside it; no radiographs, no machine's paths."""

import importlib.util
import json
import math
import re

import pytest
from PIL import Image

from cxr_utils import paths
from cxr_utils.data.sources import COUNTS, REAL_RUN_COST
from cxr_utils.evaluation import comparison
from cxr_utils.reporting import published

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


def test_every_model_has_its_card_and_the_comparison_is_of_its_predictions(publish):
    models = comparison.read_models(RESULTS)
    assert len(models) >= 2 and all(model.title in publish.page(RESULTS) for model in models)
    settings = json.loads(RESULTS.metrics.read_text())["bootstrap"]
    found = comparison.compare(models, settings["resamples"], settings["seed"])
    for pair, known in zip(found, comparison.read(RESULTS), strict=True):
        for score, gap in pair["differences"].items():
            assert gap == pytest.approx(known["differences"][score], abs=1e-9)


@pytest.mark.parametrize(
    "others", [pytest.param("", id="run"), pytest.param("others/*", marks=pytest.mark.long)]
)
def test_every_published_figure_follows_from_the_predictions(monkeypatch, others):
    monkeypatch.syspath_prepend(paths.ROOT / "tests" / "e2e")
    import recompute

    for root in sorted(RESULTS.root.glob(others)) if others else [RESULTS.root]:
        wrong, compared = recompute.differences(root)
        assert wrong == [] and compared > 300


def test_pages_of_studies_are_what_their_files_give(publish):
    for folder in sorted(file.parent for file in publish.STUDIES.glob("*/study.json")):
        assert (folder / "README.md").read_text() == publish.study_page(folder)
        about = json.loads((folder / "study.json").read_text())
        assert (
            about["data"]["manifest"] == json.loads(RESULTS.metrics.read_text())["data"]["manifest"]
        )
        assert {cell["state"] for cell in about["cells"].values()} <= {"done", "pruned"}


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
    shown = {"comparison", "class_counts"}
    models = "|".join(json.loads(RESULTS.metrics.read_text())["models"])
    kinds = "confusion_matrix|roc|reliability|learning_curves|scores"
    kinds = rf"({kinds}|settings|spread|learning_curve)_({models})(_test|_validation)?"
    for file in sorted(file for file in (DOCS / "results").rglob("*") if file.is_file()):
        if file.suffix == ".png":
            assert file.stem in shown or re.fullmatch(kinds, file.stem), file
            with Image.open(file) as picture:
                assert picture.width > 300
        else:
            assert file.suffix in (".json", ".csv", ".md"), file
            assert not re.search(r"/(tmp|home|root|work|Users)/", file.read_text()), file


def test_pictures_of_the_pages_are_there_and_synthetic():
    page = (DOCS / "pictures" / "README.md").read_text()
    pictures = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", page)
    assert len(pictures) == 5 and all("SYNTHETIC" in alt for alt, _ in pictures)
    assert {name for _, name in pictures} == {f.name for f in (DOCS / "pictures").glob("*.png")}
    assert sum(file.stat().st_size for file in (DOCS / "pictures").iterdir()) < 2_000_000


def test_one_figure_for_the_time_of_the_real_run(publish):
    """What the banner says of it is what docs/results measured, to five minutes."""
    cards = [model.card for model in comparison.read_models(RESULTS)]
    minutes = sum(card["seconds"] / card["members"] for card in cards) / 60
    assert f"about {5 * math.ceil(minutes / 5)} minutes" in REAL_RUN_COST


def test_more_test_images_than_published_is_another_set():
    counts = {"train": COUNTS["train"], "test": {"NORMAL": 500, "PNEUMONIA": 500}}
    assert published.standing("folder", counts) == "own"
    part = counts | {"test": {"NORMAL": 117, "PNEUMONIA": 195}}
    assert published.standing("folder", part) == "published"
    assert published.standing("phantom", part) == "synthetic"
