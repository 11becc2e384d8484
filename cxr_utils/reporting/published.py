"""What others reported on this data set, and how a run's data stands to it."""

from dataclasses import dataclass

from ..data.sources import COUNTS, SOURCES

TEST_IMAGES = sum(COUNTS["test"].values())
MEDMNIST = "doi:10.1038/s41597-022-01721-8"
STANDINGS = ("synthetic", "published", "medmnist", "own")

# As the original project counted them: one hidden .DS_Store per folder went in as an image.
ORIGINAL_COUNTS = {
    "train": {"NORMAL": 1342, "PNEUMONIA": 3876},
    "val": {"NORMAL": 9, "PNEUMONIA": 9},
    "test": {"NORMAL": 234, "PNEUMONIA": 390},
}


@dataclass(frozen=True)
class Score:
    """A score on the published test images; None where it is not given here."""

    who: str
    accuracy: float
    auroc: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    note: str = ""
    source: str = ""
    val_accuracy: float | None = None
    loss: str | None = None


# fmt: off
# By the name of the model that stands beside it.
ORIGINAL = {
    "baseline_cnn": Score("original project, baseline CNN", 0.625, val_accuracy=0.5,
        note="390 of 624: it answered PNEUMONIA for every image", loss="19 to 30"),
    "resnet50v2": Score("original project, ResNet50V2", 0.915,
                        note="ImageNet weights; chosen on 16 validation images"),
}
KERMANY = Score("Kermany et al. 2018, Inception V3", 0.928, 0.968, 0.932, 0.901,
                "ImageNet weights", "doi:10.1016/j.cell.2018.02.010")
OTHERS = (
    KERMANY,
    Score("MedMNIST v2, ResNet-50", 0.884, 0.962, source=MEDMNIST,
          note="PneumoniaMNIST, 28 px enlarged to 224, from scratch"),
    Score("MedMNIST v2, Google AutoML Vision", 0.946, 0.991, source=MEDMNIST,
          note="PneumoniaMNIST, 28 px"),
    Score("Keras example, X-rays with TPUs", 0.814, note="small CNN at 180 px",
          source="keras.io, xray_classification_with_tpus"),
    Score("Rajaraman et al. 2018, VGG16", 0.962, 0.993, source="doi:10.3390/app8101715",
          note="ImageNet weights, cropped to the lungs"),
    Score("ConvNeXtV2-Tiny, fine-tuned", 0.960,
          note="ImageNet weights; a published model whose protocol is not known here"),
)
# fmt: on


def standing(kind: str, counts: dict[str, dict[str, int]]) -> str:
    """Return how the data of a kind of source stands to the published set: one of `STANDINGS`.

    It is that set if train has as many images of each class and test no more; some may be missing.
    """
    if kind in SOURCES and SOURCES[kind].standing:
        return SOURCES[kind].standing
    found = counts.get("test", {})
    part = all(found.get(label, 0) <= images for label, images in COUNTS["test"].items())
    return "published" if part and counts.get("train") == COUNTS["train"] else "own"
