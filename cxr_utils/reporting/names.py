"""What models, splits, kinds of images and scores are called in figures, tables and sentences."""

MODEL_NAMES = {"baseline_cnn": "Baseline CNN", "resnet50v2": "ResNet50V2"}
SPLIT_NAMES = {"train": "training", "validation": "validation", "val": "val", "test": "test"}
KIND_NAMES = {
    "normal": "NORMAL",
    "bacteria": "PNEUMONIA, bacterial",
    "virus": "PNEUMONIA, viral",
    "unknown": "PNEUMONIA",
}
POINT_NAMES = {"half": "0.5", "youden": "Youden", "sensitivity": "target sensitivity"}
FLOOR_NAMES = {"always_pneumonia": "floor: always PNEUMONIA", "metadata": "floor: metadata alone"}
SCORES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
SHOWN = ("accuracy", "auroc", "sensitivity", "specificity")  # where there is room for four
