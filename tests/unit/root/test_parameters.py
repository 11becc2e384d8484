"""Parameters, profiles and overrides: what is accepted, refused, and given to a notebook."""

import ast
import inspect
from typing import Literal, get_args, get_origin

import pytest
import yaml

from cxr_utils import paths, profiles
from cxr_utils.parameters import MODELS, Params, UsageError
from cxr_utils.pipeline.steps import find_steps, read_cells

STEPS = find_steps()
PROFILES = sorted(file.stem for file in paths.PARAMS.glob("*.yaml"))


def test_default_profile_states_every_default():
    stated = yaml.safe_load((paths.PARAMS / "default.yaml").read_text())
    assert stated == Params().model_dump() and profiles.load("default") == Params()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_parameters_cell_is_a_signature(step):
    """Names, types and values of the cell are what the runner passes by default."""
    (source,) = [
        cell["source"] for cell in read_cells(step.file)[0] if "parameters" in cell["tags"]
    ]
    statements = ast.parse(source).body
    assert all(isinstance(statement, ast.AnnAssign) for statement in statements)
    found = {one.target.id: ast.literal_eval(one.value) for one in statements}
    assert found == profiles.flat(Params(), step.name, step.parameters, "reports/lab")
    sections = [getattr(Params(), name) for name in ("data", "augmentation", "evaluation")]
    sections += [Params().sections[step.section]] if step.section else []
    kinds = {name: field.annotation for section in sections
             for name, field in type(section).model_fields.items()}  # fmt: skip
    kinds |= {"run_dir": str, "seed": int}
    for one in statements:
        assert one.annotation.id == _written(kinds[one.target.id])
    if step.section:  # a model's notebook takes all that its section has
        assert set(type(sections[-1]).model_fields) <= set(found)


def _written(annotation):
    """How a cell annotates a field: a choice by its values' type, a bounded number as float."""
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return annotation.__name__ if inspect.isclass(annotation) else "float"


def test_names_of_a_notebook_do_not_collide():
    shared = [name for part in ("data", "augmentation", "evaluation")
              for name in getattr(Params(), part).model_dump()]  # fmt: skip
    for section in Params().sections.values():
        names = [*shared, *section.model_dump()]
        assert len(names) == len(set(names))


def test_gather_returns_what_flat_passed():
    asked = profiles.load("smoke", ["baseline_cnn.epochs=3", "seed=5"])
    names = ["run_dir", "seed", "source", "epochs"]
    given = profiles.flat(asked, "02_baseline_cnn", names, "reports/x")
    assert list(given) == names and given["run_dir"] == "reports/x"
    gathered = profiles.gather("02_baseline_cnn", {"other": 1, **given})
    assert (gathered.baseline_cnn.epochs, gathered.seed) == (3, 5)
    assert gathered.augmentation == Params().augmentation  # which the notebook does not take


def test_a_name_that_is_no_parameter_is_refused():
    with pytest.raises(UsageError, match=r"notebooks/01_eda.ipynb: .* has epochs, which is no"):
        profiles.flat(Params(), "01_eda", ["epochs"], "")


def test_models_go_by_their_own_names():
    other = profiles.load("default", ["resnet50v2.backbone=Xception"]).resnet50v2
    assert (other.name, other.title) == ("xception", "Xception")
    assert [section.name for section in Params().sections.values()] == [*MODELS]
    assert [one.title for one in Params().sections.values()] == ["Baseline CNN", "ResNet50V2"]


def test_override_reads_numbers_as_meant():
    found = profiles.load("default", ["baseline_cnn.learning_rate=1e-4"])
    assert found.baseline_cnn.learning_rate == 1e-4


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
        (["baseline_cnn.precision=float16"], "did you mean bfloat16"),
        (["resnet50v2.backbone=ResNet51"], "did you mean ResNet50"),
        (["resnet50v2.backbone=Xception", "resnet50v2.image_size=64"], "takes 71 px and more"),
        (["resnet50v2.backbone=InceptionV3", "resnet50v2.image_size=74"], "takes 75 px and more"),
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


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "default"])
def test_every_profile_is_valid_and_states_only_differences(profile):
    stated = yaml.safe_load((paths.PARAMS / f"{profile}.yaml").read_text())
    default = Params().model_dump()
    same = [name for section, values in stated.items() for name, value in values.items()
            if default[section][name] == value]  # fmt: skip
    assert not same and profiles.load(profile) != Params()


def test_reference_is_generated():
    written = (paths.ROOT / "docs" / "parameters.md").read_text()
    assert written == profiles.reference(), "run make docs"
    assert all(f"| `{name}` |" in written for name in profiles.parameter_names() if "." in name)
