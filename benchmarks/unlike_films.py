"""Counts how many films a model is unsure of, among such as it should be and such as it should not.

    python benchmarks/unlike_films.py reports/real DATA [PICTURES...] [--model NAME]

`DATA` is the folder that the run was trained on, in the Kaggle layout. Test films are answered as
they are. Some of the training films are changed in each way that should be noticed, blackened in
half, and turned into noise. `PICTURES` are folders of other pictures, such as those that
scikit-image and matplotlib ship.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_utils import prediction
from cxr_utils.data import films
from cxr_utils.models.distance import CHANGES
from cxr_utils.prediction import search
from cxr_utils.prediction.model import BATCH, Model

SOME = 400  # films that are changed


def main() -> None:
    """Print the shares."""
    about = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(**about)
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--model", default="baseline_cnn")
    asked = parser.parse_args()
    model = prediction.load(asked.run, asked.model, allow_synthetic=True)
    (part,) = model.parts
    answers = model.predict([asked.data / "test"])["unsure"].fillna("")
    unlike = answers.str.contains("unlike|blank")
    rows = [["test films, for any reason", len(answers), (answers != "").mean()]]
    rows.append(["test films, as unlike", len(answers), unlike.mean()])
    files = sorted(search.find([str(asked.data / "train")], sys.stdin))
    some = [files[place] for place in np.linspace(0, len(files) - 1, SOME).astype(int)]
    squares = np.stack([films.read(file, [part.square]).squares[0] for file in some])
    for name, changed in ways(squares):
        rows.append([f"training films, {name}", len(squares), doubted(model, changed)])
    for folder in asked.pictures:
        seen = model.predict([folder])
        seen = seen[seen["error"].isna()]
        rows.append([f"pictures in {Path(folder).name}", len(seen), seen["unsure"].notna().mean()])
    print(pd.DataFrame(rows, columns=["what", "films", "unsure"]).round(3).to_string(index=False))


def ways(squares: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what should be noticed: a name, and films, uint8, (n, size, size)."""
    half = squares.shape[1] // 2
    black = {
        "their left half black": np.s_[:, :, :half],
        "their lower half black": np.s_[:, half:],
    }
    for name, change in CHANGES.items():
        title = "as they are" if name == "nothing" else name
        yield title, np.ascontiguousarray(change(squares))
    yield "mirrored and turned", np.ascontiguousarray(np.rot90(squares[:, :, ::-1], 1, (1, 2)))
    for name, where in black.items():
        blackened = squares.copy()
        blackened[where] = 0
        yield name, blackened
    yield "noise in their place", np.random.default_rng(0).integers(0, 256, squares.shape, np.uint8)


def doubted(model: Model, squares: np.ndarray) -> float:
    """Return the share of films that are no films to answer for."""
    (part,) = model.parts
    starts = range(0, len(squares), BATCH)
    found = [doubt for start in starts for doubt in part.judge(squares[start : start + BATCH])[3]]
    return float(np.mean([doubt != "" for doubt in found]))


if __name__ == "__main__":
    main()
