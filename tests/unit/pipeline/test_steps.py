"""Steps are notebooks that describe themselves; one that does not is refused in one line."""

import json

import pytest

from cxr_utils import parameters, paths
from cxr_utils.parameters import UsageError
from cxr_utils.pipeline.steps import find_steps


def _names():
    return [step.name for step in find_steps()]


def test_steps_describe_themselves(notebooks):
    notebooks.write("03_resnet50v2", "epochs: int = 1", heading="# 3 A network\n\nand why")
    notebooks.write("05_own", "", needs=["01_eda"])
    found = {step.name: step for step in find_steps()}
    assert list(found) == [*sorted(found)] and len(found) == 5
    step = found["03_resnet50v2"]
    assert (step.title, step.section, step.needs) == ("3 A network", "resnet50v2", ())
    assert step.parameters == ("run_dir", "seed", "epochs")
    assert found["04_comparison"].needs == ("02_baseline_cnn", "03_resnet50v2")
    assert found["05_own"].section is None and found["05_own"].needs == ("01_eda",)


def test_a_step_comes_after_what_it_needs(notebooks):
    notebooks.write("01_eda", needs=["models"])
    assert _names() == ["02_baseline_cnn", "03_resnet50v2", "01_eda", "04_comparison"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("05_own", {"heading": "no heading"}, "05_own.ipynb: its first Markdown cell has no"),
        ("Untitled", {}, "Untitled.ipynb: a step's name is two digits"),
        ("5_own", {}, "a step's name is two digits"),
        (
            "05_own",
            {"needs": ["01_edaa"]},
            "needs 01_edaa, which is not there; did you mean 01_eda",
        ),
        ("01_eda", {"needs": ["04_comparison"]}, " needs 01_eda"),
        ("05_own", {"needs": ["05_own"]}, "05_own needs 05_own"),
        ("05_own", {"parameters": "nois: float = 1"}, "has nois, which is no parameter; did you"),
        ("05_own", {"parameters": "epochs: int = 1"}, "has epochs, which is no parameter"),
        ("05_own", {"parameters": "x ="}, "of assignments like"),
    ],
)
def test_a_notebook_that_does_not_describe_itself_is_refused(notebooks, name, options, words):
    if name == "01_eda":
        notebooks.write("02_baseline_cnn", needs=["01_eda"])
    notebooks.write(name, **options)
    with pytest.raises(UsageError) as error:
        find_steps()
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("about", [{"needs": 3}, ["01_eda"], "x"])
def test_metadata_of_another_kind_are_refused(notebooks, about):
    file = paths.NOTEBOOKS / "01_eda.ipynb"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metadata": {"cxr": about}}))
    with pytest.raises(UsageError, match="metadata cxr is not like"):
        find_steps()


def test_a_merge_left_in_a_notebook_is_named(notebooks):
    (paths.NOTEBOOKS / "03_resnet50v2.ipynb").write_text("<<<<<<< HEAD\n{}\n=======")
    with pytest.raises(UsageError, match=r"03_resnet50v2.ipynb: cannot be read .*settle the merge"):
        find_steps()


@pytest.mark.parametrize("builder", ["", "no_such_network"])
def test_a_model_without_builder_is_refused(notebooks, monkeypatch, builder):
    monkeypatch.setattr(parameters.BaselineCnn, "builder", builder)
    with pytest.raises(UsageError, match=r"baseline_cnn: its builder .* is no function"):
        find_steps()
