"""Which measures pay: the baseline's recipe with one thing changed, judged on validation.

    python benchmarks/ablation.py ../path/to/chest_xray
    python benchmarks/ablation.py phantom --only recipe "no noise" --set baseline_cnn.epochs=4

Each row is a training from scratch. It is judged on shifted copies of all validation images
(``cxr_utils/models/robustness.py``): log loss after temperature scaling and AUROC, each as the mean
over the shifts; the shift with the worst log loss; AUROC in the border of the other class; and
AUROC on the validation images as they are, which is nearly the same for all. Test is not looked at.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd

VARIANTS = {
    "recipe": [],
    "no borders of other images": ["augmentation.rim=0"],
    "no stretch": ["augmentation.stretch=0"],
    "no blur, sharpening": ["augmentation.sharpness=0"],
    "no change of exposure": [
        "augmentation.brightness=0",
        "augmentation.contrast=0",
        "augmentation.gamma=0",
    ],
    "no noise": ["augmentation.noise=0"],
    "no move, turn, zoom": [
        "augmentation.shift=0",
        "augmentation.rotation=0",
        "augmentation.zoom=0",
    ],
    "no average of weights": ["baseline_cnn.average=0"],
    "not standardised": ["baseline_cnn.standardise=false"],
    "label smoothing 0.1": ["baseline_cnn.label_smoothing=0.1"],
    "class weights": ["baseline_cnn.class_weights=true"],
}
NO_FLIPS = "recipe, no test-time flips"


def main() -> None:
    """Train each variant and print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--set", action="append", default=[], help="override one parameter of all variants"
    )
    parser.add_argument("--csv", type=Path, help="file that the rows are added to")
    asked = parser.parse_args()
    source = str(Path(asked.source).resolve()) if os.path.lexists(asked.source) else asked.source
    for variant in asked.only:
        for row in measure(variant, source, asked.set):
            frame = pd.DataFrame([row])
            print(frame.to_string(index=False, float_format="%.4f"), flush=True)
            if asked.csv:
                frame.to_csv(asked.csv, mode="a", index=False, header=not asked.csv.exists())


def measure(variant: str, source: str, overrides: list[str]) -> list[dict]:
    """Train one variant and judge it; the recipe is judged without test-time flips as well."""
    from cells import namespace_of

    from cxr_utils import paths, profiles
    from cxr_utils.data import dataset
    from cxr_utils.evaluation import thresholds
    from cxr_utils.models import callbacks, robustness, training, weights

    chosen = profiles.load("default", [*overrides, *VARIANTS[variant]], source)
    data = dataset.open_data(chosen, chosen.baseline_cnn.image_size)
    run = paths.RunFolder(Path(tempfile.mkdtemp()))
    section = chosen.baseline_cnn
    names = namespace_of(section, chosen.augmentation, chosen.seed, data.splits, run)
    saved = callbacks.Saved(run.root / "checkpoint", "ablation")
    start = weights.find(section)
    trained = training.fit(names["train"], section, chosen.seed, data.splits, start, saved)
    validation, rows = data.splits["validation"], []
    for name, flips in [(variant, chosen.evaluation.test_time_flips)] + [(NO_FLIPS, False)] * (
        variant == "recipe"
    ):
        temperature = thresholds.fit_temperature(
            robustness.mixed_logits(trained.model, validation, flips), validation.labels
        )
        table = robustness.table(
            trained.model, validation, temperature, 0.5, chosen.seed, len(validation), flips
        ).set_index("shift")
        rows.append(
            {
                "variant": name,
                "log loss": table["log loss"].mean(),
                "AUROC": table["AUROC"].mean(),
                "worst log loss": table["log loss"].max(),
                "worst shift": table["log loss"].idxmax(),
                "AUROC in the other border": table.loc["other border", "AUROC"],
                "AUROC as it is": table.loc["as it is", "AUROC"],
                "best epoch": trained.card["epochs"]["best"],
                "seed": chosen.seed,
            }
        )
    return rows


if __name__ == "__main__":
    main()
