"""Which validation sees the shift: ten recipes, each judged by several, over three draws.

    python benchmarks/validations.py ../path/to/chest_xray --csv rows.csv
    python benchmarks/validations.py phantom --csv rows.csv --draws 1 --only "class weights"
    python benchmarks/validations.py --csv rows.csv            # the tables of what is there

For each draw of patients a recipe is trained once, from random weights, without any of these:

random       patients drawn at random within classes, as ``data.validation=patients``
adverse      half of the other patients whose films look like the other class to a classifier that
             sees metadata, tone, sharpness and the border only, and has not seen the patient
blocks       of the rest, one of six runs of neighbouring file numbers in each series
stopping     of the rest, a few at random: they choose the epoch, so that the others do not

Beside them stand ``mixed``, the random and the adverse ones together, and ``shifted`` copies,
changed as by ``cxr_utils/models/robustness.py``, and films with only the border in view, or
with the outer thirds hidden, where most of the lungs is. Log losses are before any temperature.
What a threshold that is chosen on ``mixed, shifted`` gives on the others is told as well, with each
film of it counted equally and weighted. Rows that the file has already, of the same data and
parameters, are not trained again, so that a study that was stopped goes on; nor are kinds of
validation that came later added to them. Test is not looked at.
"""

import argparse
import hashlib
import itertools
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

CHANGES = ("rotation", "shift", "zoom", "stretch", "brightness", "contrast", "gamma")
CHANGES += ("sharpness", "noise", "rim")
ONCE = "all films once"
RECIPES = {
    ONCE: [],
    "no augmentation": [f"augmentation.{name}=0" for name in CHANGES],
    "no borders of other images": ["augmentation.rim=0"],
    "no change of exposure": [f"augmentation.{n}=0" for n in ("brightness", "contrast", "gamma")],
    "stronger exposure": ["augmentation.contrast=0.4", "augmentation.gamma=0.7"],
    "stronger blur and noise": ["augmentation.sharpness=1", "augmentation.noise=0.08"],
    "stronger zoom and shift": ["augmentation.zoom=0.4", "augmentation.shift=0.15"],
    "films of unlike looks five times": ["baseline_cnn.oversampling=5"],
    "label smoothing 0.1": ["baseline_cnn.label_smoothing=0.1"],
    "class weights": ["baseline_cnn.class_weights=true"],
}
FURTHER = {  # of docs/stretch.csv
    "stretched by 35%": ["augmentation.stretch=0.35"],
    "stretched by 50%": ["augmentation.stretch=0.5"],
    "stretched by 15%": ["augmentation.stretch=0.15"],
    "not stretched": ["augmentation.stretch=0"],
    "15%, 16 epochs": ["augmentation.stretch=0.15", "baseline_cnn.epochs=16"],
    "15%, borders of others in .3": ["augmentation.stretch=0.15", "augmentation.rim=0.3"],
    # Of as many pixels in all.
    "96 px, 16 epochs": ["baseline_cnn.image_size=96", "baseline_cnn.epochs=16"],
    "64 px, 36 epochs": ["baseline_cnn.image_size=64", "baseline_cnn.epochs=36"],
}
SHARES = {"random": 0.1, "stopping": 0.05}
BLOCKS = (0, 2, 4)  # which sixth of a series, by draw
SIDES = ("random", "adverse", "blocks")
VIEWS = ("only the border", "without the outer thirds")  # as in reports 2 and 3
LEAST_SENSITIVITY = 0.97
LEAST_RECIPES = 4  # for a rank correlation
KNOWN = ["draw", "recipe", "settings"]
SCORES = ["AUROC", "log loss", "specificity"]
RULES = ("equal", "weighted")  # how films count for a threshold
RATES = ("sensitivity", "specificity")
COLUMNS = [*KNOWN, *SCORES, *(f"{rate}, {rule}" for rule in RULES for rate in RATES)]


def main() -> None:
    """Train what is missing and print the tables."""
    from cxr_utils.files import write_atomically

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--csv", type=Path, required=True, help="file that the rows are added to")
    parser.add_argument("--draws", type=int, default=3, choices=range(1, len(BLOCKS) + 1))
    parser.add_argument("--only", nargs="+", choices=RECIPES | FURTHER, default=RECIPES)
    parser.add_argument("--set", action="append", default=[], help="a parameter of all recipes")
    asked = parser.parse_args()
    if asked.source:
        source = asked.source if asked.source == "phantom" else str(Path(asked.source).resolve())
        settings = json.dumps([Path(source).name, *asked.set, _defaults()])
        for draw, recipe in itertools.product(range(asked.draws), asked.only):
            known = pd.read_csv(asked.csv) if asked.csv.exists() else pd.DataFrame(columns=COLUMNS)
            if missing := set(COLUMNS) - set(known):
                raise SystemExit(f"{asked.csv}: has no {min(missing)}; name another file")
            if not (known[KNOWN] == [draw, recipe, settings]).all(axis=1).any():
                rows = pd.DataFrame(measure(recipe, draw, source, asked.set))
                print(rows.to_string(index=False, float_format="%.4f"), flush=True)
                rows = rows.assign(settings=settings)
                if asked.csv.exists():  # as it is now: another process may have added to it
                    rows = pd.concat([pd.read_csv(asked.csv), rows])
                write_atomically(asked.csv, rows.to_csv(index=False))
    for _, rows in pd.read_csv(asked.csv).groupby("settings"):
        for table in tables(rows):
            print("\n" + table.to_string(float_format="%.3f", na_rep="–"))


def _defaults() -> str:
    """A digest of what all recipes share: the default parameters and the stress copies."""
    from cxr_utils import parameters
    from cxr_utils.models import robustness

    shared = f"{parameters.Params()} {robustness.STRENGTH} {robustness.SHIFTS}"
    return hashlib.sha256(shared.encode()).hexdigest()[:8]


def measure(recipe: str, draw: int, source: str, overrides: list[str]) -> list[dict]:
    """Train one recipe without the patients of a draw; a row for each validation."""
    from cells import train_of
    from scipy.special import expit

    from cxr_utils import paths, profiles
    from cxr_utils.data import dataset, looks
    from cxr_utils.data.splits import TRAINING, validation_weights
    from cxr_utils.evaluation import thresholds
    from cxr_utils.models import callbacks, explanation, networks, robustness, training, weights

    given = ["baseline_cnn.oversampling=1", *overrides, *(RECIPES | FURTHER)[recipe]]
    chosen = profiles.load("default", given, source)
    section, data = chosen.baseline_cnn, dataset.open_data(chosen, chosen.baseline_cnn.image_size)
    part = partial(dataset.split_of, data.files, data.stored)
    films = data.files.assign(row=range(len(data.files)))
    films = films[films["folder"].isin(TRAINING)]
    square = dataset.Square(dataset.OVERVIEW_SIZE, data.asked.fit)
    pictures = dataset.load_pixels(data.manifest, square)
    own = looks.own_class(films, pictures[films["row"]], 0)
    side = draw_patients(films, own, draw)
    known = {name: part(films["row"][side == name].to_numpy()) for name in (*SIDES, "stopping")}
    train = films[side == "train"]
    splits = {"train": part(train["row"].to_numpy()), "validation": known["stopping"]}
    # By a classifier that has not seen the validation patients either.
    splits["train"].files["own_class"] = looks.own_class(train, pictures[train["row"]])
    with tempfile.TemporaryDirectory() as folder:
        run = paths.RunFolder(Path(folder))
        code = train_of(section, chosen.augmentation, draw, splits, run)
        saved = callbacks.Saved(run.root / "checkpoint", "validations")
        trained = training.fit(code, section, draw, splits, weights.Start("random"), saved)
    found = {
        name: (networks.logits(trained.model, known[name].pixels, flips=True), known[name].labels)
        for name in SIDES
    }
    for name in ("random", "adverse"):
        shifted = robustness.mixed_logits(trained.model, known[name], flips=True)
        found[f"{name}, shifted"] = shifted, known[name].labels
        views = explanation.occluded_logits(trained.model, known[name].pixels, flips=True)
        found |= {f"{name}, {view}": (views[view], known[name].labels) for view in VIEWS}
    for kind in ("", ", shifted", *(f", {view}" for view in VIEWS)):
        both = zip(found[f"random{kind}"], found[f"adverse{kind}"], strict=True)
        found[f"mixed{kind}"] = tuple(np.concatenate(pair) for pair in both)
    held = np.isin(side, ("random", "adverse"))
    weights = validation_weights(films.assign(split=np.where(held, "validation", "train")), own)
    weights = np.concatenate([weights[side == name] for name in ("random", "adverse")])
    logit, labels = found["mixed, shifted"]
    cuts = {
        rule: thresholds.choose(labels, expit(logit), LEAST_SENSITIVITY, by)["sensitivity"]
        for rule, by in zip(RULES, (None, weights), strict=True)
    }
    about = {"draw": draw, "recipe": recipe, "seconds": trained.card["seconds"]}
    return [about | {"validation": name, **_judged(*one, cuts)} for name, one in found.items()]


def draw_patients(films: pd.DataFrame, own: np.ndarray, draw: int) -> np.ndarray:
    """Return what each training film is for: train, stopping, or one of `SIDES`.

    Raises SystemExit where no film contradicts its class.
    """
    from cxr_utils.data.splits import children

    by = films.assign(own=own, child=children(films)).groupby("child")
    known = by.agg(label=("label", "first"), own=("own", "mean"), patient=("patient", "first"))
    known[["series", "number"]] = known["patient"].str.extract(r"^(.*?)(\d+)(?:_|$)").to_numpy()
    rng, taken = np.random.default_rng([draw, 5]), pd.Series("train", index=known.index)

    def some(of: pd.DataFrame, share: float, name: str) -> None:
        for _, label in of.groupby("label"):
            taken[rng.permutation(label.index)[: round(share * len(label))]] = name

    some(known, SHARES["random"], "random")
    some(known[(taken == "train") & (known["own"] < 0.5)], 0.5, "adverse")
    if set(known["label"][taken == "adverse"]) != {"NORMAL", "PNEUMONIA"}:
        raise SystemExit("too few films contradict their class: no adverse validation can be made")
    for _, series in known.groupby("series"):
        sixth = pd.to_numeric(series["number"]).rank(pct=True, method="first") * 6
        block = sixth.index[(sixth > BLOCKS[draw]) & (sixth <= BLOCKS[draw] + 1)]
        taken[block[(taken[block] == "train").to_numpy()]] = "blocks"
    some(known[taken == "train"], SHARES["stopping"], "stopping")
    return taken[children(films)].to_numpy()


def _judged(logit: np.ndarray, labels: np.ndarray, cuts: dict[str, float]) -> dict:
    from scipy.special import expit
    from sklearn.metrics import roc_auc_score, roc_curve

    from cxr_utils.evaluation import metrics
    from cxr_utils.models import robustness

    alarms, hits, _ = roc_curve(labels, logit)
    at = {rule: metrics.rates(labels, expit(logit), cut) for rule, cut in cuts.items()}
    return {
        "films": len(labels),
        "AUROC": roc_auc_score(labels, logit),
        "log loss": robustness.log_loss(logit, labels),
        "specificity": 1 - alarms[np.argmax(hits >= LEAST_SENSITIVITY)],
    } | {f"{rate}, {rule}": at[rule][rate] for rule in cuts for rate in RATES}


def tables(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """How hard each validation is and how far its draws agree; what recipes gain; thresholds.

    In the first table scores are means over the draws of the first recipe of the file. In the
    second, gains on shifted copies are mean differences from it for the same draws, less log loss
    being better; beside them stand the gain in log loss on the same films as they are and, where
    rows tell it, the mean AUROC on these with only parts in view. The third is what a threshold
    gives on blocks, patients it was not chosen on, as means over trainings.
    """
    base = rows["recipe"].iloc[0]
    hard = rows[rows["recipe"] == base].groupby("validation")[["films", *SCORES]].mean()
    for score in SCORES[:2]:
        by = {name: part.pivot(index="recipe", columns="draw", values=score)
              for name, part in rows.groupby("validation")}  # fmt: skip
        hard[f"Spearman, {score}"] = pd.Series({name: _agreement(one) for name, one in by.items()})
    shifted, plain = (
        _gains(rows, name, base).groupby("recipe") for name in ("mixed, shifted", "mixed")
    )
    found = shifted[SCORES].mean().add_prefix("gain in ").assign(spread=shifted["log loss"].std())
    found = found.reindex(plain.size().index)
    found["draws"], found["time"] = plain.size(), plain["time"].mean()
    found["log loss as they are"] = plain["log loss"].mean()
    for view in VIEWS:
        seen = rows[rows["validation"] == f"mixed, {view}"]
        if len(seen):
            found[f"AUROC {view}"] = seen.groupby("recipe")["AUROC"].mean()
    return [hard.round({"films": 0}), found.sort_values("gain in log loss", ascending=False),
            *_transfer(rows)]  # fmt: skip


def _gains(rows: pd.DataFrame, validation: str, base: str) -> pd.DataFrame:
    """The gain of each recipe and draw over the base recipe's, and its time as a multiple."""
    judged = rows[rows["validation"] == validation].set_index(["recipe", "draw"])
    first = judged.loc[base].reindex(judged.index, level="draw")
    gains = judged[SCORES] - first[SCORES]
    gains["log loss"] *= -1
    return gains.assign(time=judged["seconds"] / first["seconds"])


def _transfer(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """What thresholds give on blocks, whose patients they were not chosen on; none in old rows."""
    if not set(COLUMNS) <= set(rows):
        return []
    by = rows[rows["validation"] == "blocks"].dropna().groupby("draw")
    rates = [f"{rate}, {rule}" for rate in RATES for rule in RULES]
    return [by[rates].mean().assign(trainings=by.size())]


def _agreement(scores: pd.DataFrame) -> float:
    """The mean rank correlation of the recipes between two draws of patients."""
    found = scores.corr("spearman", min_periods=LEAST_RECIPES).to_numpy()
    pairs = found[np.triu_indices(len(found), 1)]
    return float(np.nanmean(pairs)) if np.isfinite(pairs).any() else np.nan


if __name__ == "__main__":
    main()
