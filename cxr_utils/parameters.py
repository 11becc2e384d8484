"""All parameters of a run, as one model: what each is called, may be, and means."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from . import paths


class UsageError(Exception):
    """Bad usage, parameters or data: one line that says what, where and the remedy (exit 2)."""


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; take it as the number that was meant."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, BeforeValidator(_number)]
Backbone = Literal[
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge",
    "DenseNet121", "DenseNet169", "DenseNet201", "EfficientNetB0", "EfficientNetB1",
    "EfficientNetB2", "EfficientNetB3", "EfficientNetB4", "EfficientNetB5", "EfficientNetB6",
    "EfficientNetB7", "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2",
    "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S",
    "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large",
    "MobileNetV3Small", "NASNetLarge", "NASNetMobile", "ResNet50", "ResNet50V2", "ResNet101",
    "ResNet101V2", "ResNet152", "ResNet152V2", "VGG16", "VGG19", "Xception",
]  # fmt: skip
LEAST_SIDE = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # pixels; 32 elsewhere


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are refused."""

    # The text below a field is its meaning in the reference.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)  # fmt: skip


class Data(Section):
    """Which X-rays, and how many of the training patients are set aside for validation."""

    source: str = Field("auto", min_length=1)
    """auto, kaggle, medmnist, phantom, or a folder in the Kaggle layout"""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """how an image is made a square"""
    validation: Literal["auto", "adverse", "patients", "val"] = "auto"
    """what choices are made on: training patients drawn at random (patients), with others whose
    films look like the other class (adverse; auto: if there are any), or the folder val"""
    validation_fraction: Number = Field(0.15, gt=0, lt=0.5)
    """share of the training images whose patients are set aside at random"""
    folds: int = Field(0, ge=0, le=20)
    """cross-validation: training patients are dealt into so many folds, and one is validation; 0:
    none, validation_fraction holds"""
    fold: int = Field(1, ge=1, le=20)
    """which fold is validation"""
    training_share: Number = Field(1.0, gt=0, le=1)
    """share of the training patients to learn from; the others are not used"""
    medmnist_size: Literal[28, 64, 128, 224] = 128
    """which PneumoniaMNIST, by the side of its images in pixels"""
    phantom_images: int = Field(1000, ge=120, le=100_000)
    """training images that the phantom draws; its test split is a quarter of it"""
    phantom_size: int = Field(128, ge=64, le=1024)
    """height of the phantom's images, in pixels, on average"""
    phantom_seed: int = Field(1, ge=0)
    """seed of the phantom; the same seed draws the same images"""

    @model_validator(mode="after")
    def _deals(self) -> Self:
        if self.folds == 1 or self.fold > max(self.folds, 1):
            said = f"fold {self.fold} of {self.folds}"
            raise ValueError(f"folds: {said}; take two folds or more, and one of them")
        if self.folds and self.validation in ("adverse", "val"):
            raise ValueError(f"folds: validation = {self.validation} has none; take patients")
        return self


class Augmentation(Section):
    """Random changes to training images; 0 (or false) turns one off."""

    flip: bool = True
    """mirror half of the images left to right"""
    rotation: Number = Field(8.0, ge=0, le=45)
    """largest turn to either side, in degrees"""
    shift: Number = Field(0.05, ge=0, le=0.5)
    """largest shift along an axis, as a share of the side"""
    zoom: Number = Field(0.15, ge=0, le=0.5)
    """largest change of scale, as a share"""
    stretch: Number = Field(0.35, ge=0, le=0.5)
    """largest change of the aspect ratio, as a share"""
    brightness: Number = Field(0.1, ge=0, le=1)
    """largest change of brightness, as a share of the range"""
    contrast: Number = Field(0.2, ge=0, le=0.9)
    """largest change of contrast, as a share"""
    gamma: Number = Field(0.4, ge=0, le=0.9)
    """largest change of the exponent of the grey values, as a share"""
    sharpness: Number = Field(0.8, ge=0, le=1)
    """largest blur or sharpening, as a share of a 5 x 5 Gaussian"""
    noise: Number = Field(0.03, ge=0, le=0.5)
    """largest spread of added noise, as a share of the range"""
    rim: Number = Field(0.6, ge=0, le=1)
    """share of the images that get the border of another training image"""


class ModelSection(Section):
    """What all models have in common; each is a subclass that names its builder."""

    builder: ClassVar[str] = ""  # the function in cxr_utils/models/networks.py

    image_size: int = Field(96, ge=32, le=512)
    """side of the square the network sees, in pixels"""
    epochs: int = Field(12, ge=1, le=500)
    """passes over the training images, from random weights"""
    batch_size: int = Field(32, ge=2, le=1024)
    """images per gradient step"""
    learning_rate: Number = Field(2e-3, gt=0, le=1)
    """peak of the warm-up and cosine schedule, from random weights and of a head alone"""
    weight_decay: Number = Field(0.05, ge=0, le=1)
    """decoupled weight decay of AdamW"""
    warmup_epochs: Number = Field(1.0, ge=0)
    """epochs over which the learning rate rises; may be a fraction"""
    dropout: Number = Field(0.2, ge=0, lt=1)
    """share of the pooled features that a step leaves out"""
    label_smoothing: Number = Field(0.0, ge=0, lt=1)
    """share by which labels are moved towards one half"""
    oversampling: int = Field(5, ge=1, le=20)
    """how often an epoch shows a film that looks like the other class; half as often if in doubt"""
    class_weights: bool = False
    """let both classes weigh alike in the loss, however many images they have"""
    average: Number = Field(0.998, ge=0, lt=1)
    """EMA decay a step of the weights, over at most a tenth of the steps so far; 0: no average"""
    patience: int = Field(8, ge=1)
    """epochs without improvement on the stress validation before training stops"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of training; auto is bfloat16 where that is faster and safe here, else float32"""
    strategy: Literal["auto", "single"] = "auto"
    """auto shares each batch among all GPUs; single takes one device"""

    @property
    def name(self) -> str:
        """What the model's files and its entry in ``metrics.json`` are called."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def weights_file(self) -> Path | None:
        """The file of weights that is named, if any."""
        return None

    @property
    def title(self) -> str:
        """What reports call the model."""
        return self.name.replace("_", " ").capitalize()


class BaselineCnn(ModelSection):
    """A small residual network, trained from scratch."""

    builder: ClassVar[str] = "residual_cnn"

    epochs: int = Field(16, ge=1, le=500)
    """passes over the training images, from random weights"""
    oversampling: int = Field(9, ge=1, le=20)
    """how often an epoch shows a film that looks like the other class; half as often if in doubt"""
    width: int = Field(24, ge=4, le=128)
    """channels of the first of four stages; each doubles them"""
    depth: int = Field(1, ge=1, le=6)
    """residual blocks of each stage"""
    standardise: bool = True
    """give each image zero mean and unit spread; false feeds grey values of 0..255"""

    @property
    def title(self) -> str:
        """What reports call the model."""
        return "Baseline CNN"


class Resnet50v2(ModelSection):
    """A standard backbone of keras.applications, by whose name the model goes."""

    builder: ClassVar[str] = "pretrained"

    epochs: int = Field(4, ge=1, le=500)
    """passes over the training images, from random weights"""
    batch_size: int = Field(16, ge=2, le=1024)
    """images per gradient step"""
    learning_rate: Number = Field(1e-3, gt=0, le=1)
    """peak of the warm-up and cosine schedule, from random weights and of a head alone"""
    average: Number = Field(0.995, ge=0, lt=1)
    """EMA decay a step of the weights, over at most a tenth of the steps so far; 0: no average"""
    backbone: Backbone = "ResNet50V2"
    """name of the architecture in keras.applications; the model and its files carry it"""
    weights: str = Field("auto", min_length=1)
    """auto (ImageNet where it can be had, else random), imagenet, none, or a file"""
    weights_address: str = Field(
        "https://storage.googleapis.com/tensorflow/keras-applications",
        pattern="^https?://[^/@?#]+(/[^@?#]*)?$",  # no user, password or token: it is recorded
    )
    """where ImageNet weights are fetched"""
    head_epochs: int = Field(10, ge=0, le=500)
    """with weights: passes that train the head alone, on features computed once"""
    tuning_epochs: int = Field(3, ge=1, le=500)
    """with weights: passes that train all layers"""
    tuning_rate: Number = Field(1e-4, gt=0, le=1)
    """with weights: peak of the schedule for the last layers"""
    early_rate: Number = Field(0.1, gt=0, le=1)
    """with weights: share of that rate for the first layer; it rises layer by layer"""

    @property
    def name(self) -> str:
        """What the model's files and its entry in ``metrics.json`` are called."""
        return self.backbone.lower()

    @property
    def title(self) -> str:
        """What reports call the model."""
        return self.backbone

    @property
    def weights_file(self) -> Path | None:
        """The file of weights that is named, if any."""
        known = self.weights in ("auto", "imagenet", "none")
        return None if known else paths.from_root(self.weights)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        least = LEAST_SIDE.get(self.backbone, 32)
        if self.image_size < least:
            said = f"{self.backbone} takes {least} px and more"
            raise ValueError(f"image_size = {self.image_size}: {said}")
        return self


class Evaluation(Section):
    """How scores become decisions, and how sure the report is of them."""

    operating_point: Literal["half", "youden", "sensitivity"] = "sensitivity"
    """rule that fixes the decision threshold on the stress validation"""
    target_sensitivity: Number = Field(0.97, gt=0, lt=1)
    """sensitivity that the operating point 'sensitivity' reaches on the stress validation, whose
    films are weighted by how many training films they stand for"""
    members: int = Field(1, ge=1, le=10)
    """trainings of each model, one per seed; their logits are averaged"""
    test_time_flips: bool = True
    """score each image as the mean of it and of its mirror image"""
    resamples: int = Field(2000, ge=100, le=10_000)
    """bootstrap resamples behind each 95% interval"""


class Params(Section):
    """All parameters of a run; what a profile leaves out has its default."""

    seed: int = Field(2026, ge=0, le=2**31 - 1)
    """seed of the split, the weights, the batches and the bootstrap"""
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    baseline_cnn: BaselineCnn = BaselineCnn()
    resnet50v2: Resnet50v2 = Resnet50v2()
    evaluation: Evaluation = Evaluation()

    @property
    def sections(self) -> dict[str, ModelSection]:
        """The models' sections by name, in order."""
        return {name: part for name, part in self if isinstance(part, ModelSection)}

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Return some parameters' values, each by ``section.key``."""
        return {name: functools.reduce(getattr, name.split("."), self) for name in names}

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [section.name for section in self.sections.values()]
        if twice := {name for name in names if names.count(name) > 1}:
            said = f"two models would both be called {min(twice)}"
            raise ValueError(f"{said}; give one another backbone")
        return self


MODELS = tuple(Params().sections)
