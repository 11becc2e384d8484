"""Figures carry what is said of them, also in their files."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_utils import paths
from cxr_utils.data import dataset
from cxr_utils.reporting import display, figures, text


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Show a figure in a gallery of a SYNTHETIC run; returns the HTML and the stored picture."""

    def show(figure):
        said = []
        monkeypatch.setattr(display, "show_html", said.append)
        run = paths.RunFolder(tmp_path)
        display.Gallery(run, synthetic=True).show(figure)
        return said[0], Image.open(run.figure(figure.name))

    return show


def test_title_and_alt_text_say_synthetic_on_the_page_and_in_the_file(models, shown):
    figure = figures.confusion_matrix(models[0])
    page, picture = shown(figure)
    (tn, _), _ = models[0].test["confusion_matrix"]
    assert figure.drawn.get_suptitle().startswith("SYNTHETIC · Baseline CNN, test")
    assert f'alt="SYNTHETIC · Confusion matrix of Baseline CNN on test: {tn} true' in page
    assert picture.info["Description"].startswith("SYNTHETIC · Confusion matrix of Baseline CNN")


def test_a_photo_is_shown_as_jpeg_and_kept_as_png(shown):
    rows = {"a": [np.zeros((8, 8), np.uint8)], "b": [np.ones((4, 8))] * 2}
    page, picture = shown(figures.images(rows, "x", "X", "Two."))
    assert "data:image/jpeg" in page and picture.format == "PNG"


def test_a_figure_is_an_svg_that_follows_light_and_dark(models, shown):
    page, picture = shown(figures.curves(models[0]))
    drawing = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([^\"]+)", page)[1]).decode()
    assert "prefers-color-scheme: dark" in drawing and "var(--ink)" in drawing
    assert not re.search("fill: #ffffff", drawing)  # no paper of its own
    assert "<figcaption>" in page and picture.format == "PNG"
    again, _ = shown(figures.curves(models[0]))
    assert again == page  # the same scores give the same file


def test_films_are_shown_with_label_and_score_and_beside_them_their_heat(models, monkeypatch):
    said = []
    monkeypatch.setattr(display, "show_html", said.append)
    cases = text.telling_cases(models[0], 2)
    pixels = np.zeros((len(cases), 8, 8), np.uint8)
    display.films("x", cases, pixels, np.ones(pixels.shape), synthetic=True)
    display.films("x", cases, pixels, None, synthetic=True)
    display.films("x", cases.head(0), pixels[:0], None, synthetic=True)  # nothing to show
    assert [page.count("<img") for page in said] == [2 * len(cases), len(cases)]
    assert all(word in said[0] for word in (*cases["scores"], *cases["subtype"], *cases["name"]))
    assert said[0].count('alt="SYNTHETIC') == 2 * len(cases)


def test_figures_of_any_number_of_models(models, scored):
    third = scored("xception", "Xception", seed=2)
    for found in (models[:1], [*models, third]):
        for figure in (figures.comparison(found), figures.all_curves(found)):
            assert all(model.title in figure.alt for model in found)


def test_every_figure_of_a_model_is_named_after_it(models):
    model = models[1]
    for figure in (
        figures.confusion_matrix(model, "val"),
        figures.curves(model),
        figures.reliability(model),
        figures.learning_curves(
            pd.DataFrame(
                {"epoch": [1], "loss": [1.0], "validation_loss": 1, "validation_accuracy": 1}
            ),
            model.card,
        ),
    ):
        assert "resnet50v2" in figure.name and model.title in figure.title and len(figure.alt) > 40


def test_figures_of_the_data(smoke):
    data = dataset.open_data(smoke, dataset.OVERVIEW_SIZE)
    train = data.splits["train"]
    chosen = train.files.groupby("label").head(3).index.to_numpy()
    assert train.labels[chosen].tolist() == [0] * 3 + [1] * 3
    counts = data.manifest.counts()
    assert str(counts["train"]["PNEUMONIA"]) in figures.class_counts(counts).alt
    assert "viral" in figures.examples(train, 2, 0).alt
    assert figures.image_sizes(data.files).name == "image_sizes"
