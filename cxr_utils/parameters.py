"""What a run is asked for: one model of all parameters, profiles in YAML, overrides, the flat names of notebooks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from . import paths

STEPS = ("01_eda", "02_baseline_cnn", "03_resnet50v2", "04_comparison")
MODELS = ("baseline_cnn", "resnet50v2")
LEAST_SIDE = {
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
}  # of the image, in pixels; 32 elsewhere
SECRET = "weights_address"  # the one parameter that may hold a password, which then is neither recorded nor said
SHARED_SECTIONS = ("data", "augmentation", "evaluation")


class UsageError(Exception):
    """Bad usage, parameters or data: one line that says what, where and the remedy (exit 2)."""


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; take it as the number that was meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Backbone = Literal[
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121", "DenseNet169", "DenseNet201",
    "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3", "EfficientNetB4", "EfficientNetB5", "EfficientNetB6",
    "EfficientNetB7", "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3", "EfficientNetV2L",
    "EfficientNetV2M", "EfficientNetV2S", "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large",
    "MobileNetV3Small", "NASNetLarge", "NASNetMobile", "ResNet50", "ResNet50V2", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2",
    "VGG16", "VGG19", "Xception",
]  # fmt: skip
Number = Annotated[float, BeforeValidator(_number)]


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    """Which X-rays, and how many of the training patients are set aside for validation."""

    source: str = Field(
        "auto",
        min_length=1,
        description="auto, kaggle, medmnist, phantom, or a folder in the Kaggle layout",
    )
    fit: Literal["squash", "crop", "pad"] = Field(
        "squash", description="how an image is made a square"
    )
    validation: Literal["patients", "val"] = Field(
        "patients",
        description="what choices are made on: training patients set aside, or the published val folder",
    )
    validation_fraction: Number = Field(
        0.15, gt=0, lt=0.5, description="share of the training images whose patients are set aside"
    )
    medmnist_size: Literal[28, 64, 128, 224] = Field(
        128, description="which PneumoniaMNIST, by the side of its images in pixels"
    )
    phantom_images: int = Field(
        1000,
        ge=120,
        le=100_000,
        description="training images that the phantom draws; its test split is a quarter of it",
    )
    phantom_size: int = Field(
        128, ge=64, le=1024, description="height of the phantom's images, in pixels, on average"
    )
    phantom_seed: int = Field(
        1, ge=0, description="seed of the phantom; the same seed draws the same images"
    )


class Augmentation(Section):
    """Random changes to training images; 0 (or false) turns one off."""

    flip: bool = Field(True, description="mirror half of the images left to right")
    rotation: Number = Field(
        8.0, ge=0, le=45, description="largest turn to either side, in degrees"
    )
    shift: Number = Field(
        0.05, ge=0, le=0.5, description="largest shift along an axis, as a share of the side"
    )
    zoom: Number = Field(0.15, ge=0, le=0.5, description="largest change of scale, as a share")
    stretch: Number = Field(
        0.35, ge=0, le=0.5, description="largest change of the aspect ratio, as a share"
    )
    brightness: Number = Field(
        0.1, ge=0, le=1, description="largest change of brightness, as a share of the range"
    )
    contrast: Number = Field(
        0.2, ge=0, le=0.9, description="largest change of contrast, as a share"
    )
    gamma: Number = Field(
        0.4,
        ge=0,
        le=0.9,
        description="largest change of the exponent of the grey values, as a share",
    )
    sharpness: Number = Field(
        0.8, ge=0, le=1, description="largest blur or sharpening, as a share of a 5 x 5 Gaussian"
    )
    noise: Number = Field(
        0.03, ge=0, le=0.5, description="largest spread of added noise, as a share of the range"
    )
    rim: Number = Field(
        0.6,
        ge=0,
        le=1,
        description="share of the images that get the rim of another training image",
    )


class ModelSection(Section):
    """What the models have in common."""

    @property
    def name(self) -> str:
        """The model's name in files and in ``metrics.json``."""
        return "baseline_cnn"

    @property
    def title(self) -> str:
        """The model's name in reports."""
        return "Baseline CNN"

    image_size: int = Field(
        96, ge=32, le=512, description="side of the square the network sees, in pixels"
    )
    epochs: int = Field(12, ge=1, le=500, description="passes over the training images")
    batch_size: int = Field(32, ge=2, le=1024, description="images per gradient step")
    learning_rate: Number = Field(
        2e-3, gt=0, le=1, description="peak of the warm-up and cosine schedule"
    )
    weight_decay: Number = Field(0.05, ge=0, le=1, description="decoupled weight decay of AdamW")
    warmup_epochs: Number = Field(
        1.0, ge=0, description="epochs over which the learning rate rises; may be a fraction"
    )
    label_smoothing: Number = Field(
        0.0, ge=0, lt=1, description="share by which labels are moved towards one half"
    )
    class_weights: bool = Field(
        False, description="let both classes weigh alike in the loss, however many images they have"
    )
    average: Number = Field(
        0.998,
        ge=0,
        lt=1,
        description="decay a step of the moving average of the weights that is validated and kept; 0 takes the weights themselves",
    )
    patience: int = Field(
        8, ge=1, description="epochs without a better stress validation after which training stops"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="arithmetic of training; auto is bfloat16 where that is faster here, else float32",
    )
    strategy: Literal["auto", "single"] = Field(
        "auto", description="auto shares each batch among all GPUs; single takes one device"
    )


class BaselineCnn(ModelSection):
    """A small residual network, trained from scratch."""

    standardise: bool = Field(
        True,
        description="give each image zero mean and unit spread; false feeds grey values of 0..255",
    )


class Resnet50v2(ModelSection):
    """A standard backbone of keras.applications."""

    @property
    def name(self) -> str:
        """The backbone's name in lower case."""
        return self.backbone.lower()

    @property
    def title(self) -> str:
        """The backbone's own name."""
        return self.backbone

    epochs: int = Field(
        6, ge=1, le=500, description="passes over the training images, from random weights"
    )
    batch_size: int = Field(16, ge=2, le=1024, description="images per gradient step")
    learning_rate: Number = Field(
        1e-3,
        gt=0,
        le=1,
        description="peak of the warm-up and cosine schedule, from random weights and of the head alone",
    )
    average: Number = Field(
        0.995,
        ge=0,
        lt=1,
        description="decay a step of the moving average of the weights that is validated and kept; 0 takes the weights themselves",
    )
    backbone: Backbone = Field(
        "ResNet50V2", description="name of the architecture in keras.applications"
    )
    weights: str = Field(
        "auto",
        min_length=1,
        description="auto (ImageNet where it can be had, else random), imagenet, none, or a file",
    )
    weights_address: str = Field(
        "https://storage.googleapis.com/tensorflow/keras-applications",
        pattern="^https?://[^/@?#]+(/[^@?#]*)?$",  # no user, password or token, which would be recorded
        description="where ImageNet weights are fetched",
    )
    head_epochs: int = Field(
        10,
        ge=0,
        le=500,
        description="with weights: passes that train the head alone, on features computed once",
    )
    tuning_epochs: int = Field(
        3, ge=1, le=500, description="with weights: passes that train all layers"
    )
    tuning_rate: Number = Field(
        1e-4, gt=0, le=1, description="with weights: peak of the schedule for the last layers"
    )
    early_rate: Number = Field(
        0.1,
        gt=0,
        le=1,
        description="with weights: share of that rate for the first layer; it rises layer by layer",
    )

    @property
    def weights_file(self) -> Path | None:
        """The file that `weights` names; None where it is a word."""
        return (
            None if self.weights in ("auto", "imagenet", "none") else paths.from_root(self.weights)
        )


class Evaluation(Section):
    """How scores become decisions, and how sure the report is of them."""

    operating_point: Literal["half", "youden", "sensitivity"] = Field(
        "youden", description="rule that fixes the decision threshold on the stress validation"
    )
    target_sensitivity: Number = Field(
        0.98,
        gt=0,
        lt=1,
        description="sensitivity that the operating point 'sensitivity' reaches on the stress validation",
    )
    test_time_flips: bool = Field(
        True, description="score each image as the mean of it and of its mirror image"
    )
    resamples: int = Field(
        2000, ge=100, le=10_000, description="bootstrap resamples behind each 95 % interval"
    )


class Params(Section):
    """All parameters of a run; what a profile leaves out has its default."""

    seed: int = Field(
        2026,
        ge=0,
        le=2**31 - 1,
        description="seed of the split, the weights, the batches and the bootstrap",
    )
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    baseline_cnn: BaselineCnn = BaselineCnn()
    resnet50v2: Resnet50v2 = Resnet50v2()
    evaluation: Evaluation = Evaluation()


AnyModel = BaselineCnn | Resnet50v2


def model_of(step: str) -> str | None:
    """Return the model that a step trains (``02_baseline_cnn`` -> ``baseline_cnn``), or None."""
    name = step.split("_", 1)[1]
    return name if name in MODELS else None


def sections_of(step: str) -> tuple[str, ...]:
    """Return the sections whose fields a step's notebook takes."""
    model = model_of(step)
    return (*SHARED_SECTIONS[:2], model, *SHARED_SECTIONS[2:]) if model else SHARED_SECTIONS


def flat(params: Params, step: str, run_dir: str | Path) -> dict[str, Any]:
    """Return the flat scalars that the runner passes to a step's notebook."""
    values: dict[str, Any] = {"run_dir": str(run_dir), "seed": params.seed}
    for section in sections_of(step):
        values |= getattr(params, section).model_dump()
    return values


def gather(step: str, names: Mapping[str, Any]) -> Params:
    """Collect a notebook's parameters from its global names.

    Parameters
    ----------
    step : str
        The notebook's stem.
    names : Mapping
        ``globals()`` of the notebook.

    Returns
    -------
    Params
        Checked parameters; sections that the step does not take keep their defaults.

    Raises
    ------
    UsageError
        A value is out of range or of the wrong type.
    """
    tree: dict[str, Any] = {"seed": names["seed"]}
    for section in sections_of(step):
        fields = type(getattr(Params(), section)).model_fields
        tree[section] = {name: names[name] for name in fields}
    return checked(tree, f"parameters cell of {step}")


def load(profile: str, overrides: Iterable[str] = (), source: str | None = None) -> Params:
    """Read a profile and apply overrides.

    Parameters
    ----------
    profile : str
        A file in ``params/`` by its stem, or a path to a YAML file.
    overrides : iterable of str
        ``SECTION.KEY=VALUE`` or ``seed=VALUE``, in order.
    source : str, optional
        Replaces ``data.source``, as it is.

    Returns
    -------
    Params
        The checked parameters.

    Raises
    ------
    UsageError
        The profile is unknown or not YAML, or a parameter is unknown, mistyped or out of range.
    """
    path, overrides = profile_path(profile), list(overrides)
    tree = _read_yaml(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(
                f"--set {override}: no value given; write --set SECTION.KEY=VALUE, as in --set baseline_cnn.epochs=3"
            )
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError):
            raise UsageError(
                f"--set {override}: the value is not valid YAML; quote it, as in --set 'data.source=\"my folder\"'"
            ) from None
        _put(tree, key.strip().split("."), value)
    if source is not None:
        _put(tree, ["data", "source"], source)
    shown = path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path
    said = (
        f"--set {override}" if SECRET not in override else f"--set resnet50v2.{SECRET}=…"
        for override in overrides
    )
    return checked(tree, " ".join([str(shown), *said]))


def profile_path(profile: str) -> Path:
    """Return the file of a profile given by stem or path; raises UsageError where there is none."""
    path = Path(profile).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UsageError(
            f"profile {profile}: there is no such file; give a path to a YAML file or one of: {_known_profiles()}"
        )
    path = paths.PARAMS / f"{profile}.yaml"
    if not profile or "/" in profile or not path.is_file():
        raise UsageError(
            f"profile {profile!r}: not in params/{nearest(profile, _profiles())}; known: {_known_profiles()}"
        )
    return path


def _profiles() -> list[str]:
    return sorted(file.stem for file in paths.PARAMS.glob("*.yaml"))


def _known_profiles() -> str:
    return ", ".join(_profiles())


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"profile {path}: cannot be read ({error}); check the file") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(
            f"profile {path}: not valid YAML ({' '.join(str(error).split())}); mend that line"
        ) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(
            f"profile {path}: expected sections with keys, found {type(tree).__name__}; see params/default.yaml"
        )
    return tree


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(
                f"{'.'.join(keys)}: {key} is not a section but {tree!r}; see params/default.yaml"
            )
    tree[keys[-1]] = value


def checked(tree: dict[str, Any], where: str) -> Params:
    """Return the parameters in a tree of sections; raises UsageError, which says `where`, on what is unknown, mistyped or out of range."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"{where}: unknown parameter {name}{nearest(name, parameter_names())}"
            ) from None
        if first["type"] == "literal_error":
            allowed = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            close = (
                nearest(str(first["input"]), allowed) or f"; it is one of {', '.join(allowed[:6])}"
            )
            raise UsageError(f"{where}: {name} = {first['input']!r} is not known{close}") from None
        if len(first["loc"]) == 1 and name != "seed":
            raise UsageError(
                f"{where}: {name} is a section; give {name}.KEY a value, see params/default.yaml"
            ) from None
        if SECRET in name:
            raise UsageError(
                f"{where}: {name} must be an address (https://host/folder) without user, password or token"
            ) from None
        raise UsageError(
            f"{where}: {name} = {first['input']!r}: {_lower(first['msg'])}; ranges stand in cxr_utils/parameters.py"
        ) from None


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the most similar known name, or an empty string."""
    known = list(known)
    tails = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(known)}
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    found = found or [
        tails[tail] for tail in difflib.get_close_matches(name.rsplit(".", 1)[-1], tails, n=1)
    ]
    return f"; did you mean {found[0]}?" if found else ""


def parameter_names() -> list[str]:
    """Return every parameter as ``section.key`` (and the sections and ``seed`` themselves)."""
    names = []
    for section, field in Params.model_fields.items():
        names.append(section)
        inner = getattr(field.annotation, "model_fields", {})
        names += [f"{section}.{name}" for name in inner]
    return names
