"""Which validation sees the shift: ten recipes, each judged by several, over three choices.

    python benchmarks/validations.py ../path/to/chest_xray --csv rows.csv
    python benchmarks/validations.py phantom --csv rows.csv --choices 1 --only recipe
    python benchmarks/validations.py --csv rows.csv            # the tables of what is there

For each choice of patients a recipe is trained once, from random weights, without any of these:

random       patients drawn at random within classes and subtypes, as ``data.validation=patients``
blocks       one of six runs of neighbouring file numbers in each series (IM, NORMAL2-IM, person)
adverse      half of the patients whose films look like the other class to a classifier that sees
             metadata, tone, sharpness and the border only, and has not seen the patient

Beside them stand ``shifted``, the random ones changed as by ``cxr_utils/models/robustness.py``, and
``mixed``, the random and the adverse ones together. Rows that the file of rows has already are not
trained again, so that a study which was stopped goes on. Test is not looked at.
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

CHANGES = ("rotation", "shift", "zoom", "stretch", "brightness", "contrast", "gamma")
CHANGES += ("sharpness", "noise", "rim")
RECIPES = {
    "recipe": [],
    "no augmentation": [f"augmentation.{name}=0" for name in CHANGES],
    "no borders of other images": ["augmentation.rim=0"],
    "no change of exposure": [f"augmentation.{n}=0" for n in ("brightness", "contrast", "gamma")],
    "stronger exposure": ["augmentation.contrast=0.4", "augmentation.gamma=0.7"],
    "stronger blur and noise": ["augmentation.sharpness=1", "augmentation.noise=0.08"],
    "stronger zoom and shift": ["augmentation.zoom=0.4", "augmentation.shift=0.15"],
    "contradicting films more often": [],
    "label smoothing 0.1": ["baseline_cnn.label_smoothing=0.1"],
    "class weights": ["baseline_cnn.class_weights=true"],
}
MORE_OFTEN = ((0.8, 3), (0.5, 5))  # P(own class) under which a film is shown so many times
RANDOM, BLOCKS = 0.1, 6
LEAST_SENSITIVITY = 0.97


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--csv", type=Path, required=True, help="file that the rows are added to")
    parser.add_argument("--choices", type=int, default=3, help="choices of patients")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--set", action="append", default=[], help="a parameter of all recipes")
    asked = parser.parse_args()
    if asked.source:
        source = asked.source if asked.source == "phantom" else str(Path(asked.source).resolve())
        for choice, recipe in itertools.product(range(asked.choices), asked.only):
            if not _is_done(asked.csv, choice, recipe):
                rows = pd.DataFrame(measure(recipe, choice, source, asked.set))
                print(rows.to_string(index=False, float_format="%.4f"), flush=True)
                rows.to_csv(asked.csv, mode="a", index=False, header=not asked.csv.exists())
    for table in tables(pd.read_csv(asked.csv)):
        print("\n" + table.to_string(float_format="%.3f"))


def _is_done(file: Path, choice: int, recipe: str) -> bool:
    known = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["choice", "recipe"])
    return bool(((known["choice"] == choice) & (known["recipe"] == recipe)).any())


def measure(recipe: str, choice: int, source: str, overrides: list[str]) -> list[dict]:
    """Train one recipe without the patients of a choice; a row for each validation."""
    from cells import train_of

    from cxr_utils import paths, profiles
    from cxr_utils.data import dataset
    from cxr_utils.models import callbacks, networks, robustness, training, weights

    chosen = profiles.load("default", [*overrides, *RECIPES[recipe]], source)
    section = chosen.baseline_cnn
    data = dataset.open_data(chosen, section.image_size)
    own = own_class(data)
    sides = choose(data.files, own, choice)
    known = {side: _split(data, np.flatnonzero(sides == side)) for side in sorted(set(sides))}
    rows = np.flatnonzero(sides == "train")
    if recipe == "contradicting films more often":
        times = np.ones(len(rows), int)
        for under, often in MORE_OFTEN:
            times[own[rows] < under] = often
        rows = np.repeat(rows, times)
    splits = {"train": _split(data, rows), "validation": known["random"]}
    run = paths.RunFolder(Path(tempfile.mkdtemp()))
    train = train_of(section, chosen.augmentation, choice, splits, run)
    saved = callbacks.Saved(run.root / "checkpoint", "validations")
    trained = training.fit(train, section, choice, splits, weights.Start("random"), saved)
    found = {
        side: (networks.logits(trained.model, known[side].pixels, flips=True), known[side].labels)
        for side in ("random", "blocks", "adverse")
        if side in known
    }
    shifted = robustness.mixed_logits(trained.model, known["random"], flips=True)
    found["shifted"] = shifted, known["random"].labels
    parts = [found["random"], found["adverse"]]
    found["mixed"] = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    about = {"choice": choice, "recipe": recipe, "seconds": trained.card["seconds"]}
    return [about | {"validation": side, **_judged(*one)} for side, one in found.items()]


def own_class(data) -> np.ndarray:
    """Return P(own class) of each film by its looks alone, by a model of other patients."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from cxr_utils.evaluation import metrics, shortcuts

    looks = shortcuts.traits(data)
    side = data.stored.shape[1]
    rim = side // 8
    borders = np.ones((side, side), bool)
    borders[rim:-rim, rim:-rim] = False
    films = [data.stored[start : start + 512] for start in range(0, len(data.stored), 512)]
    for name, rows in (("top", slice(None, rim)), ("bottom", slice(-rim, None))):
        looks[name] = np.concatenate([film[:, rows].mean((1, 2)) for film in films])
        looks[f"{name} sides"] = np.concatenate([film[:, :, rows].mean((1, 2)) for film in films])
    for share in (5, 25, 50, 75, 95):
        looks[f"tone {share}"] = np.concatenate(
            [np.percentile(film.reshape(len(film), -1), share, axis=1) for film in films]
        )
    features = looks.drop(columns="mode").join(pd.get_dummies(looks["mode"]).astype(float))
    model = HistGradientBoostingClassifier(max_iter=100, min_samples_leaf=20, random_state=0)
    sick = shortcuts._guesses(model, features.to_numpy(np.float64), data.files)
    return np.where(metrics.labels_of(data.files) == 1, sick, 1 - sick)


def choose(files: pd.DataFrame, own: np.ndarray, choice: int) -> np.ndarray:
    """Return what each film is for: train, random, blocks, adverse, or nothing (empty)."""
    training = files["folder"].isin({"train", "validation"}).to_numpy()
    side = np.where(training, "train", "").astype(object)
    by = files[training].assign(own=own[training]).groupby("patient")
    patients = by.agg(label=("label", "first"), own=("own", "mean"), kind=("subtype", "first"))
    number = patients.index.str.extract(r"(\d+)", expand=False).astype(float)
    patients["number"] = np.nan_to_num(number.to_numpy())
    patients["series"] = patients.index.str.extract(r"^(\D*)", expand=False)
    rng = np.random.default_rng([choice, 5])
    taken = pd.Series("train", index=patients.index)
    for _, few in patients[patients["own"] < 0.5].groupby("label"):
        taken[rng.permutation(few.index)[: len(few) // 2]] = "adverse"
    for _, series in patients.groupby("series"):
        rank = series["number"].rank(pct=True, method="first")
        block = rank.index[np.ceil(rank * BLOCKS) == 1 + 2 * choice % BLOCKS]
        taken[[name for name in block if taken[name] == "train"]] = "blocks"
    for _, kind in patients[taken == "train"].groupby("kind"):
        taken[rng.permutation(kind.index)[: round(RANDOM * len(kind))]] = "random"
    side[training] = files.loc[training, "patient"].map(taken)
    return side


def _split(data, rows: np.ndarray):
    """A split of some rows of a data set, which may be there several times."""
    one = next(iter(data.splits.values()))
    files = data.files.iloc[rows].reset_index(drop=True)
    labels = (files["label"] == "PNEUMONIA").to_numpy(np.int64)
    return replace(one, pixels=replace(one.pixels, rows=rows), labels=labels, files=files)


def _judged(logit: np.ndarray, labels: np.ndarray) -> dict:
    from sklearn.metrics import roc_auc_score, roc_curve

    from cxr_utils.evaluation import thresholds
    from cxr_utils.models import robustness

    alarms, hits, _ = roc_curve(labels, logit)
    cool = logit / thresholds.fit_temperature(logit, labels)
    return {
        "films": len(labels),
        "AUROC": roc_auc_score(labels, logit),
        "log loss": robustness.log_loss(cool, labels),
        "specificity": 1 - alarms[np.argmax(hits >= LEAST_SENSITIVITY)],
    }


def tables(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """How hard each validation is, how far its choices agree, and how it ranks the recipes."""
    scores = ["AUROC", "log loss", "specificity"]
    hard = rows.groupby("validation")[["films", *scores]].mean()
    agreed = pd.DataFrame(
        {
            score: {
                name: _agreement(part.pivot(index="recipe", columns="choice", values=score))
                for name, part in rows.groupby("validation")
            }
            for score in scores
        }
    ).rename_axis("Spearman between choices")
    ranked = rows.pivot_table(index="recipe", columns="validation", values="AUROC")
    return [hard, agreed, ranked.sort_values("adverse")]


def _agreement(scores: pd.DataFrame) -> float:
    """The mean rank correlation of the recipes between two choices of patients."""
    found = scores.corr("spearman").to_numpy()
    return float(found[np.triu_indices(len(found), 1)].mean()) if len(found) > 1 else np.nan


if __name__ == "__main__":
    main()
