"""ImageNet weights of the backbones: where they are published, and how they get into a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import files, paths
from ..files import one_line, sha256_of
from ..parameters import ModelSection, Resnet50v2, UsageError

if TYPE_CHECKING:
    import keras

# Backbone, folder, file (without its ending) and checksum (MD5; SHA-256 where it is longer), as
# keras.applications names them.
ENDINGS = {
    "_weights_tf_dim_ordering_tf_kernels_notop.h5": """
ResNet50 resnet resnet50 4d473c1dd8becc155b73f8504c6f6626
ResNet101 resnet resnet101 88cf7a10940856eca736dc7b7e228a21
ResNet152 resnet resnet152 ee4c566cf9a93f14d82f913c2dc6dd0c
ResNet50V2 resnet resnet50v2 fac2f116257151a9d068a22e544a4917
ResNet101V2 resnet resnet101v2 c0ed64b8031c3730f411d2eb4eea35b5
ResNet152V2 resnet resnet152v2 ed17cf2e0169df9d443503ef94b23b33
DenseNet121 densenet densenet121 30ee3e1110167f948a6b9946edeeb738
DenseNet169 densenet densenet169 b8c4d4c20dd625c148057b9ff1c1176b
DenseNet201 densenet densenet201 c13680b51ded0fb44dff2d8f86ac8bb1
VGG16 vgg16 vgg16 6d6bbae143d832006294945121d1f1fc
VGG19 vgg19 vgg19 253f8cb515780f3b799900260a226db6
Xception xception xception b0042744bf5b25fce3cb969f33bebb97
InceptionV3 inception_v3 inception_v3 bcbd6486424b2319ff4ef7d526e38f63
InceptionResNetV2 inception_resnet_v2 inception_resnet_v2 d19885ff4a710c122648d3b5c3b684e4
""",
    "_notop.h5": """
EfficientNetV2B0 efficientnet_v2 efficientnetv2-b0 893217f2bb855e2983157299931e43ff
EfficientNetV2B1 efficientnet_v2 efficientnetv2-b1 0e80663031ca32d657f9caa404b6ec37
EfficientNetV2B2 efficientnet_v2 efficientnetv2-b2 1dfe2e7a5d45b6632553a8961ea609eb
EfficientNetV2B3 efficientnet_v2 efficientnetv2-b3 f6abf7b5849ac99a89b50dd3fd532856
EfficientNetV2S efficientnet_v2 efficientnetv2-s af0682fb74e8c54910f2d4393339c070
ConvNeXtTiny convnext convnext_tiny d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1
""",
}
PUBLISHED = {
    row[0]: (row[1], row[2] + ending, row[3])
    for ending, rows in ENDINGS.items()
    for row in map(str.split, rows.strip().splitlines())
}
HDF5 = b"\x89HDF\r\n\x1a\n"  # the first bytes of each file in that format
MEGABYTES = 300  # of room that the largest of them needs


def backbone_of(model: keras.Model) -> keras.Model:
    """Return the network of keras.applications inside a model."""
    return next(layer for layer in model.layers if hasattr(layer, "layers"))


class Start(NamedTuple):
    """What a training starts from."""

    kind: str  # random, imagenet or file
    file: Path | None = None  # the weights; None for random ones
    reason: str = ""  # why they are random where other weights would have been taken

    @property
    def digest(self) -> str:
        """SHA-256 of the file, or ``random``."""
        return sha256_of(self.file) if self.file else "random"

    def told(self) -> dict[str, str]:
        """What the model card says of it."""
        return {"kind": self.kind, "reason": self.reason, "sha256": self.digest}


def find(section: ModelSection) -> Start:
    """Return what a model's section asks a training to start from.

    Raises UsageError where weights that were named cannot be had.
    """
    if not isinstance(section, Resnet50v2) or section.weights == "none":
        return Start("random")
    if section.weights_file:
        return Start("file", section.weights_file)
    try:
        return Start("imagenet", fetch(section.backbone, section.weights_address))
    except UsageError as error:
        if section.weights == "imagenet":
            raise
        return Start("random", reason=str(error))


def fetch(backbone: str, address: str) -> Path:
    """Return the file of a backbone's ImageNet weights, downloaded where it is not in the cache.

    Raises UsageError where none with a checksum is published, or it cannot be downloaded.
    """
    if backbone not in PUBLISHED:
        said = f"no ImageNet weights with a checksum are known for {backbone}"
        raise UsageError(f"{said}; save some to a file and set resnet50v2.weights to it")
    folder, name, checksum = PUBLISHED[backbone]
    target = paths.cache_folder() / "weights" / name
    return files.fetch(f"{address.rstrip('/')}/{folder}/{name}", checksum, target, MEGABYTES)


def load_weights(network: keras.Model, backbone: str, file: Path) -> None:
    """Load a file of weights into a backbone; raises UsageError where they do not fit."""
    check_file(file)
    try:
        network.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        said = f"does not fit {backbone} ({one_line(str(error))[:160]})"
        remedy = "give weights of that architecture, without its classifier"
        raise UsageError(f"resnet50v2.weights {file}: {said}; {remedy}") from None


def check_file(file: Path) -> None:
    """Raise UsageError where a file is not one of weights: known without building a network."""
    if not file.is_file():
        said = "there is no such file; give auto, imagenet, none or a weights file"
        raise UsageError(f"resnet50v2.weights {file}: {said}")
    with file.open("rb") as content:
        is_hdf5 = content.read(len(HDF5)) == HDF5
    if not (is_hdf5 and file.suffix == ".h5"):
        said = "not a weights file (HDF5, its name ending in .h5); save one by model.save_weights"
        raise UsageError(f"resnet50v2.weights {file}: {said}")
