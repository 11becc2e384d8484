"""The two networks: grey images in 0..1 go in, one logit of PNEUMONIA comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers

from ..data.dataset import Pixels
from ..parameters import BaselineCnn, ModelSection, Resnet50v2, UsageError
from .augmentation import to_float

WIDTHS = (24, 48, 96, 192)
# Keras' default of .99 needs some 500 steps before inference agrees with training; a short run has fewer.
BATCH_NORM_MOMENTUM = 0.9
SCORING_BATCH = 64
IMAGENET_MEAN, IMAGENET_SPREAD = 0.45, 0.225  # of photographs in 0..1, over the three colours
CAFFE_MEAN, TORCH_MEAN, TORCH_SPREAD = (
    (103.939, 116.779, 123.68),
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)


def build(
    settings: ModelSection, precision: str = "float32", transfer: bool = False
) -> keras.Model:
    """Build the network that `settings` describes, with random weights.

    Parameters
    ----------
    settings : BaselineCnn or Resnet50v2
        The model's section of the parameters.
    precision : str
        ``float32``; ``bfloat16`` or ``float16`` compute in it and keep float32 weights.
    transfer : bool
        Freeze the backbone's batch norm in inference mode, as its statistics come with its weights and small batches
        would spoil them.

    Returns
    -------
    keras.Model
        Takes float32 in 0..1, shape (n, size, size, 1); gives logits, float32, shape (n, 1).

    Raises
    ------
    UsageError
        The image size is under the backbone's minimum.
    """
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(
        precision if precision == "float32" else f"mixed_{precision}"
    )
    try:
        if isinstance(settings, Resnet50v2):
            return pretrained(settings, transfer)
        assert isinstance(settings, BaselineCnn)
        return residual_cnn(settings)
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def residual_cnn(settings: BaselineCnn) -> keras.Model:
    """Build a small residual network."""
    image = keras.Input((settings.image_size, settings.image_size, 1), name="image")
    x = (
        _standardised(image)
        if settings.standardise
        else layers.Rescaling(255.0, name="unscaled")(image)
    )
    x = _convolution(x, WIDTHS[0], "stem", stride=2)
    for number, width in enumerate(WIDTHS, start=1):
        x = _residual_block(x, width, f"stage{number}", stride=1 if number == 1 else 2)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = layers.Dropout(0.2, name="head_dropout")(x)
    return keras.Model(
        image, layers.Dense(1, dtype="float32", name="head_logit")(x), name="baseline_cnn"
    )


def _standardised(image):
    """Give each image zero mean and unit spread, so that exposure is no feature."""
    return layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, name="standardise")(
        image
    )


def _convolution(x, width: int, name: str, stride: int = 1):
    x = layers.Conv2D(
        width, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _residual_block(x, width: int, name: str, stride: int):
    """Two convolutions beside a shortcut (He et al. 2016, doi:10.1109/CVPR.2016.90), pooled where it shrinks."""
    shortcut = x
    if stride > 1:
        shortcut = layers.AveragePooling2D(stride, padding="same", name=f"{name}_shortcut_pool")(
            shortcut
        )
        shortcut = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_shortcut_conv")(shortcut)
        shortcut = layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, name=f"{name}_shortcut_norm"
        )(shortcut)
    x = _convolution(x, width, f"{name}_a", stride)
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_b_conv")(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_b_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, x]))


def pretrained(settings: Resnet50v2, transfer: bool) -> keras.Model:
    """A backbone of keras.applications behind its own preprocessing, and one logit on its pooled features."""
    size = settings.image_size
    image = keras.Input((size, size, 1), name="image")
    x = layers.Rescaling(IMAGENET_SPREAD, offset=IMAGENET_MEAN, name="like_imagenet")(
        _standardised(image)
    )
    x = layers.Concatenate(name="grey_to_rgb")([x, x, x])
    x = _preprocessing(settings.backbone)(x)
    try:
        backbone = getattr(keras.applications, settings.backbone)(
            include_top=False, weights=None, input_shape=(size, size, 3)
        )
    except ValueError as error:
        raise UsageError(
            f"resnet50v2.image_size = {size}: {settings.backbone} refuses it ({error}); take a larger one"
        ) from None
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
            layer.trainable = (
                not transfer
            )  # Keras takes a frozen one to mean inference mode as well
        if settings.backbone.endswith("V2") and layer.name.endswith("_3_conv"):
            # Each residual branch starts at zero (De and Smith 2020, arXiv:2002.10444): from random weights the phantom's
            # validation loss after 4 epochs was 0.38 with it and 0.49 without. Weights from a file replace it.
            layer.kernel.assign(0.0 * layer.kernel)
    x = layers.GlobalAveragePooling2D(name="head_pool")(backbone(x))
    x = layers.Dropout(0.2, name="head_dropout")(x)
    return keras.Model(
        image, layers.Dense(1, dtype="float32", name="head_logit")(x), name="resnet50v2"
    )


def _preprocessing(backbone: str) -> layers.Layer:
    """Scale 0..1 to what a backbone was trained on; see ``preprocess_input`` of each keras.applications module."""
    if backbone.startswith(("ConvNeXt", "EfficientNet", "MobileNetV3")):
        return layers.Rescaling(255.0, name="preprocess")
    if backbone.startswith("VGG") or backbone in ("ResNet50", "ResNet101", "ResNet152"):
        return layers.Rescaling(255.0, offset=[-mean for mean in CAFFE_MEAN], name="preprocess")
    if backbone.startswith("DenseNet"):
        return layers.Normalization(
            mean=TORCH_MEAN, variance=[spread**2 for spread in TORCH_SPREAD], name="preprocess"
        )
    return layers.Rescaling(2.0, offset=-1.0, name="preprocess")


def logits(
    model: keras.Model,
    pixels: np.ndarray | Pixels,
    prepare: Callable[[tf.Tensor], tf.Tensor] = to_float,
    flips: bool = False,
) -> np.ndarray:
    """Apply a float32 model to grey images.

    Parameters
    ----------
    model : keras.Model
        As it was trained or loaded.
    pixels : ndarray or Pixels of uint8, shape (n, size, size)
        Grey images.
    prepare : callable
        Turns a batch of them into float32 in 0..1, shape (n, size, size, 1).
    flips : bool
        Average the logits of each image and of its mirror image.

    Returns
    -------
    ndarray of float64, shape (n,)
        Logits of PNEUMONIA, before calibration.
    """
    found = apply(model, pixels, prepare)[:, 0].astype(np.float64)
    return (
        (found + logits(model, pixels, lambda batch: prepare(batch)[:, :, ::-1])) / 2
        if flips
        else found
    )


def apply(
    model: keras.Model,
    pixels: np.ndarray | Pixels,
    prepare: Callable[[tf.Tensor], tf.Tensor] = to_float,
) -> np.ndarray:
    """Return a model's output for grey images, batch by batch; float32, shape (n, outputs). See `logits`."""
    batches = []
    for start in range(0, len(pixels), SCORING_BATCH):
        batch = pixels[start : start + SCORING_BATCH]
        # Filled up, so that the graph is made for one shape only.
        full = np.concatenate(
            [batch, np.zeros((SCORING_BATCH - len(batch), *batch.shape[1:]), np.uint8)]
        )
        batches.append(model.predict_on_batch(prepare(tf.constant(full)))[: len(batch)])
    return np.concatenate(batches)


def describe(model: keras.Model) -> pd.DataFrame:
    """Return the architecture as a table a person can read: a row a stage, with its output and parameters.

    Returns
    -------
    DataFrame
        stage, layers, output (height x width x channels), parameters.
    """
    rows: dict[str, dict] = {}
    for layer in leaves(model):
        stage = layer.name.split("_")[0]
        row = rows.setdefault(stage, {"stage": stage, "layers": 0, "output": "", "parameters": 0})
        row["layers"] += 1
        row["parameters"] += layer.count_params()
        row["output"] = " x ".join(str(side) for side in layer.output.shape[1:])
    return pd.DataFrame(rows.values())


def leaves(model: keras.Model) -> Iterator[layers.Layer]:
    """Yield the layers of a model and of the backbone inside it, from the image to the logit."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from (inner for inner in layer.layers if not isinstance(inner, layers.InputLayer))
        else:
            yield layer
