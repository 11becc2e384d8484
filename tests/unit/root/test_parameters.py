import ast
import inspect
from typing import Literal, get_args, get_origin

import nbformat
import pytest
import yaml

from cxr_utils import parameters, paths
from cxr_utils.parameters import STEPS, Params, UsageError


def test_default_profile_is_the_models_defaults():
    assert profiles.load("default") == Params()


@pytest.mark.parametrize("step", STEPS)
def test_parameters_cell_is_the_signature(step):
    """Names, types and values of the cell are exactly what the runner passes by default."""
    notebook = nbformat.read(paths.NOTEBOOKS / f"{step}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(cell.source).body
    assert all(isinstance(statement, ast.AnnAssign) for statement in statements)
    found = {
        statement.target.id: (statement.annotation.id, ast.literal_eval(statement.value))
        for statement in statements
    }
    expected = profiles.flat(profiles.load("default"), step, "reports/lab")
    fields = {"run_dir": str, "seed": int}
    for section in parameters.sections_of(step):
        fields |= {
            name: field.annotation
            for name, field in type(getattr(Params(), section)).model_fields.items()
        }
    kinds = {name: _written(kind) for name, kind in fields.items()}
    assert {name: kind for name, (kind, _) in found.items()} == kinds
    assert {name: value for name, (_, value) in found.items()} == expected


def _written(annotation):
    """How a parameters cell annotates a field: a choice by the type of its values, a bounded number as float."""
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return annotation.__name__ if inspect.isclass(annotation) else "float"


def test_flat_names_do_not_collide():
    for step in STEPS:
        fields = [
            name
            for section in parameters.sections_of(step)
            for name in type(getattr(Params(), section)).model_fields
        ]
        assert len(fields) == len(set(fields))


def test_gather_returns_what_flat_passed():
    asked = profiles.load("smoke", ["baseline_cnn.epochs=3", "seed=5"])
    gathered = profiles.gather(
        "02_baseline_cnn", profiles.flat(asked, "02_baseline_cnn", "reports/x")
    )
    assert (
        gathered.baseline_cnn == asked.baseline_cnn
        and gathered.data == asked.data
        and gathered.seed == 5
    )


def test_override_reads_numbers_as_meant():
    assert (
        profiles.load("default", ["baseline_cnn.learning_rate=1e-4"]).baseline_cnn.learning_rate
        == 1e-4
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["baseline_cnn.epoch=3"], "did you mean baseline_cnn.epochs"),
        (["basline_cnn.epochs=3"], "did you mean baseline_cnn"),
        (["epochs=3"], "unknown parameter epochs; did you mean baseline_cnn.epochs"),
        (["baseline_cnn.epochs=0"], "greater than or equal to 1"),
        (["baseline_cnn.epochs=three"], "valid integer"),
        (["baseline_cnn.epochs=2.5"], "valid integer"),
        (["augmentation.flip=1"], "valid boolean"),
        (["baseline_cnn.learning_rate=.nan"], "finite"),
        (["resnet50v2.backbone=ResNet51"], "did you mean ResNet50"),
        (["baseline_cnn=3"], "baseline_cnn is a section"),
        (["baseline_cnn.epochs"], "no value given"),
        (["baseline_cnn.epochs=[1"], "not valid YAML"),
        (["data.source="], "data.source = None"),
    ],
)
def test_bad_override_is_one_line_with_a_remedy(overrides, words):
    with pytest.raises(UsageError) as error:
        profiles.load("default", overrides)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("baseline_cnn: [1, 2", "not valid YAML"),
        ("- 1", "expected sections"),
        ("baseline: {epochs: 1}", "did you mean baseline_cnn"),
    ],
)
def test_bad_profile_is_one_line_with_a_remedy(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        profiles.load(str(tmp_path / "mine.yaml"))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_unknown_profile_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean smoke"):
        profiles.load("smok")


@pytest.mark.parametrize("profile", sorted(file.stem for file in paths.PARAMS.glob("*.yaml")))
def test_every_profile_is_valid_and_states_only_differences(profile):
    loaded = profiles.load(profile)
    if profile != "default":
        stated = yaml.safe_load((paths.PARAMS / f"{profile}.yaml").read_text())
        default = Params().model_dump()
        same = [
            f"{section}.{name}"
            for section, values in stated.items()
            for name, value in values.items()
            if default[section][name] == value
        ]
        assert not same and loaded != Params()
