"""The two networks: grey images in 0..1 go in, one logit of PNEUMONIA comes out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from ..data.dataset import Pixels
from ..parameters import BaselineCnn, ModelSection, Resnet50v2
from .augmentation import to_float
from .weights import backbone_of, load_weights

STAGES = 4  # of the residual network; each doubles the width of the one before
HEAD = ("head_pool", "head_dropout", "head_logit")
MEAN = "mean_logit"  # the layer by which an ensemble is known
# Keras' default of .99 needs some 500 steps before inference agrees with training.
BATCH_NORM_MOMENTUM = 0.9
SCORING_BATCH = 16  # a small set is filled up to it; on a CPU 64 are no faster
IMAGENET_MEAN, IMAGENET_SPREAD = 0.45, 0.225  # of photographs in 0..1, over the three colours
CAFFE_MEAN = (103.939, 116.779, 123.68)
TORCH_MEAN, TORCH_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(
    section: ModelSection, precision: str = "float32", weights: Path | None = None
) -> keras.Model:
    """Build the network of a model's section, by the function that it names as its builder.

    It takes float32 in 0..1, shape (n, size, size, 1), and gives logits, float32, shape (n, 1).
    In the `precision` ``bfloat16`` it computes in that and keeps float32 weights. Without a file
    `weights` of its backbone they are random. Raises UsageError where the weights do not fit.
    """
    before = keras.mixed_precision.dtype_policy()
    kind = precision if precision == "float32" else f"mixed_{precision}"
    keras.mixed_precision.set_dtype_policy(kind)
    try:
        return globals()[section.builder](section, weights)
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def residual_cnn(section: BaselineCnn, weights: Path | None = None) -> keras.Model:
    """A small residual network."""
    image = keras.Input((section.image_size, section.image_size, 1), name="image")
    if section.standardise:
        x = _standardised(image)
    else:
        x = layers.Rescaling(255.0, name="unscaled")(image)
    x = _convolution(x, section.width, "stem", stride=2)
    for stage in range(STAGES):
        width, name = section.width * 2**stage, f"stage{stage + 1}"
        x = _residual_block(x, width, name, stride=2 if stage else 1)
        for block in range(2, section.depth + 1):
            x = _residual_block(x, width, f"{name}_{block}", stride=1)
    return _with_head(image, x, section)


def _with_head(image, x, section: ModelSection) -> keras.Model:
    """Pool the last maps into one logit."""
    x = layers.GlobalAveragePooling2D(name=HEAD[0])(x)
    x = layers.Dropout(section.dropout, name=HEAD[1])(x)
    logit = layers.Dense(1, dtype="float32", name=HEAD[2])(x)
    return keras.Model(image, logit, name=section.name)


def _standardised(image):
    """Give each image zero mean and unit spread, so that exposure is no feature."""
    name = "standardise"
    return layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, name=name)(image)


def _convolution(x, width: int, name: str, stride: int = 1, side: int = 3, relu: bool = True):
    """A convolution with batch norm."""
    options = {"strides": stride, "padding": "same", "use_bias": False}
    x = layers.Conv2D(width, side, name=f"{name}_conv", **options)(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _residual_block(x, width: int, name: str, stride: int):
    """Two convolutions beside a shortcut (He et al. 2016, doi:10.1109/CVPR.2016.90)."""
    shortcut = x
    if stride > 1:
        pool = layers.AveragePooling2D(stride, padding="same", name=f"{name}_shortcut_pool")
        shortcut = _convolution(pool(x), width, f"{name}_shortcut", side=1, relu=False)
    x = _convolution(x, width, f"{name}_a", stride)
    x = _convolution(x, width, f"{name}_b", relu=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, x]))


def pretrained(section: Resnet50v2, weights: Path | None = None) -> keras.Model:
    """A backbone of keras.applications behind its own preprocessing, and one logit."""
    image = keras.Input((section.image_size, section.image_size, 1), name="image")
    x = _standardised(image)
    x = layers.Rescaling(IMAGENET_SPREAD, offset=IMAGENET_MEAN, name="like_imagenet")(x)
    x = layers.Concatenate(name="grey_to_rgb")([x, x, x])
    x = _preprocessing(section.backbone)(x)
    backbone = _backbone(section)
    if weights:
        load_weights(backbone, section.backbone, weights)
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            # Statistics that come with weights are kept, as small batches would spoil them; Keras
            # takes a frozen batch norm to mean inference mode as well.
            layer.momentum, layer.trainable = BATCH_NORM_MOMENTUM, not weights
        if not weights and section.backbone.endswith("V2") and layer.name.endswith("_3_conv"):
            # Each residual branch starts at zero (De and Smith 2020, arXiv:2002.10444).
            layer.kernel.assign(0.0 * layer.kernel)
    return _with_head(image, backbone(x), section)


def _backbone(section: Resnet50v2) -> keras.Model:
    shape = (section.image_size, section.image_size, 3)
    application = getattr(keras.applications, section.backbone)
    return application(include_top=False, weights=None, input_shape=shape)


def check_weights(section: Resnet50v2) -> None:
    """Raise UsageError where the file of weights that a section names does not fit its backbone."""
    assert section.weights_file
    load_weights(_backbone(section), section.backbone, section.weights_file)


def _preprocessing(backbone: str) -> layers.Layer:
    """Scale 0..1 to what a backbone was trained on, as ``preprocess_input`` of its module does."""
    if backbone.startswith(("ConvNeXt", "EfficientNet", "MobileNetV3")):
        return layers.Rescaling(255.0, name="preprocess")
    if backbone.startswith("VGG") or backbone in ("ResNet50", "ResNet101", "ResNet152"):
        return layers.Rescaling(255.0, offset=[-mean for mean in CAFFE_MEAN], name="preprocess")
    if backbone.startswith("DenseNet"):
        variance = [spread**2 for spread in TORCH_SPREAD]
        return layers.Normalization(mean=TORCH_MEAN, variance=variance, name="preprocess")
    return layers.Rescaling(2.0, offset=-1.0, name="preprocess")


def ensemble(networks: Sequence[keras.Model], name: str) -> keras.Model:
    """Return one network that gives the mean logit of several (Lakshminarayanan et al. 2017).

    Deep ensembles, arXiv:1612.01474, there of probabilities.
    """
    for number, network in enumerate(networks, start=1):
        network.name = f"member_{number}"
    image = keras.Input(networks[0].input_shape[1:], name="image")
    mean = layers.Average(name=MEAN)([network(image) for network in networks])
    return keras.Model(image, mean, name=name)


def members(model: keras.Model) -> list[keras.Model]:
    """Return the networks of an `ensemble`; a single network is its own member."""
    if model.layers[-1].name != MEAN:
        return [model]
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def logits(
    model: keras.Model,
    pixels: np.ndarray | Pixels,
    prepare: Callable[[tf.Tensor], tf.Tensor] = to_float,
    flips: bool = False,
) -> np.ndarray:
    """Return a float32 model's logits of PNEUMONIA, before calibration; float64, shape (n,).

    `pixels` are grey images, uint8 of shape (n, size, size); `prepare` turns a batch of them into
    float32 in 0..1, shape (n, size, size, 1). With `flips` the logits of each image and of its
    mirror image are averaged.
    """
    found = apply(model, pixels, prepare)[:, 0].astype(np.float64)
    if not flips:
        return found
    return (found + logits(model, pixels, lambda batch: prepare(batch)[:, :, ::-1])) / 2


def apply(
    model: keras.Model,
    pixels: np.ndarray | Pixels,
    prepare: Callable[[tf.Tensor], tf.Tensor] = to_float,
) -> np.ndarray:
    """Return a model's output for grey images, float32, shape (n, outputs); see `logits`."""
    outputs = []
    for start in range(0, len(pixels), SCORING_BATCH):
        batch = pixels[start : start + SCORING_BATCH]
        # Filled up, so that the graph is made for one shape only.
        full = np.zeros((SCORING_BATCH, *batch.shape[1:]), np.uint8)
        full[: len(batch)] = batch
        outputs.append(model.predict_on_batch(prepare(tf.constant(full)))[: len(batch)])
    return np.concatenate(outputs)


def features(model: keras.Model, pixels: np.ndarray | Pixels) -> np.ndarray:
    """Return a network's pooled features before its head; float32, shape (n, channels)."""
    return apply(keras.Model(model.inputs, model.get_layer(HEAD[0]).output), pixels)


def rate_shares(network: keras.Model, early_rate: float) -> list[float]:
    """Return the share of the learning rate of each trainable weight of a network with a backbone.

    Layer-wise learning-rate decay (Howard and Ruder 2018, arXiv:1801.06146): it rises geometrically
    from `early_rate` in the first layer of the backbone to 1 in its last, as early layers see edges
    and textures that serve X-rays as well.
    """
    rising = [layer for layer in backbone_of(network).layers if layer.trainable_variables]
    last = max(len(rising) - 1, 1)
    depth: dict[int, int] = {}
    for place, layer in enumerate(rising):
        depth |= dict.fromkeys(map(id, layer.trainable_variables), place)
    places = [depth.get(id(weight), last) for weight in network.trainable_variables]
    return [early_rate ** (1 - place / last) for place in places]
