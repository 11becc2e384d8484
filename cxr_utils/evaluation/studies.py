"""What the cells of a study say together: spread, paired differences, effects, learning curve."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..data.manifest import labels_of
from ..data.splits import chosen_on
from ..files import read_json, within
from ..parameters import Params
from ..paths import RunFolder
from . import metrics, results
from .comparison import Scored

SCORES = ("loss", "auroc", "sensitivity", "specificity", "accuracy")
SHARE = "data.training_share"  # the factor of a learning curve
LEVELS = 8  # values of a factor that are told apart; more are a scale
ALPHA = 0.05


@dataclass(frozen=True)
class StudyResults:
    """What a study came to, as its folder holds it."""

    folder: Path
    about: dict[str, Any]  # study.json
    rows: pd.DataFrame  # one for each cell that is done and each of its models

    @property
    def base(self) -> str:
        """The setting that changes nothing; an empty text where none is done."""
        for cell in within(self.about, "cells").values():
            if all(self.base_value(name) == value for name, value in cell["changes"].items()):
                return cell["setting"]
        return ""

    @property
    def factors(self) -> dict[str, list[Any]]:
        """The values of each parameter that the settings change, the base's first."""
        found: dict[str, list[Any]] = {}
        for cell in self.about["cells"].values():
            for name, value in cell["changes"].items():
                values = found.setdefault(name, [self.base_value(name)])
                values += [value] * (value not in values)
        return found

    def base_value(self, name: str) -> Any:
        """Return the value of a parameter where no setting changes it."""
        return functools.reduce(dict.__getitem__, name.split("."), self.about["parameters"])

    def losses(self, row: pd.Series) -> pd.DataFrame:
        """Return the log loss of each film that choices are made on, with its path and patient."""
        file = RunFolder(self.folder / "cells" / row["cell"]).predictions(row["file"])
        part = results.read_csv(file).query("split == @row.split")
        loss = metrics.cross_entropy(labels_of(part), part["score"].to_numpy())
        return part[["path", "patient"]].assign(loss=loss)


def read(folder: Path) -> StudyResults:
    """Read a study; a row of a cell holds each score on validation, and on test as ``test_...``.

    Of one that is published, ``rows.csv`` holds the rows.
    """
    about, rows = read_json(folder / "study.json"), []
    if (published := folder / "rows.csv").is_file():
        return StudyResults(folder, about, pd.read_csv(published))
    for name, cell in within(about, "cells").items():
        if cell["state"] != "done":
            continue
        run = RunFolder(folder / "cells" / name)
        sections = Params.model_validate(read_json(run.record)["parameters"]).sections
        for model in about["models"]:
            splits = results.read_metrics(run)["models"][sections[model].name]
            split, card = chosen_on(splits), read_json(run.model_card(sections[model].name))
            row = {"cell": name, "setting": cell["setting"], "seed": cell["seed"],
                   "fold": cell["fold"], "model": model, "file": sections[model].name,
                   "title": card["title"], "split": split,
                   "minutes": card["seconds"] / 60, "films": splits[split]["n"],
                   "patients": card["trained_on"]["patients"],
                   "precision": card["precision"]["used"]}  # fmt: skip
            row |= {score: splits[split][score] for score in SCORES}
            row |= {f"test_{score}": splits["test"][score] for score in SCORES}
            rows.append(row)
    return StudyResults(folder, about, pd.DataFrame(rows))


def of_seeds(model: str, folder: Path, record: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of a model in a study of seeds alone that a run is one of; or none.

    `folder` holds studies, `record` is the content of the run's ``run.json``; data and parameters
    must be the same, but for the seed.
    """
    for file in sorted(folder.glob("*/study.json")):
        about = read_json(file)
        ours, theirs = within(about, "parameters"), within(record, "parameters")
        parts = {"data", "augmentation", "evaluation", *about.get("models", ())}
        manifest = within(record, "data").get("manifest")
        same = manifest == within(about, "data").get("manifest") and all(
            within(ours, part).get(name) == value
            for part in parts
            for name, value in within(theirs, part).items()
            if name != "source"
        )
        if same and not about.get("folds"):
            found = read(file.parent)
            rows = found.rows[found.rows["file"] == model] if len(found.rows) else found.rows
            if len(rows) > 1 and not found.factors:
                return rows
    return pd.DataFrame()


def of_models(models: Sequence[Scored], run: RunFolder) -> dict[str, pd.DataFrame]:
    """Return `of_seeds` of each model of a run that has any, by title; studies lie beside runs."""
    record, folder = read_json(run.record), run.root.parent / "studies"
    found = {model.title: of_seeds(model.name, folder, record) for model in models}
    return {title: rows for title, rows in found.items() if len(rows)}


def spread(values: pd.Series) -> dict[str, float]:
    """Return mean, SD, range and the 95% t interval of the mean over cells; NaN of fewer than 2."""
    values, low, high = values.astype(float), math.nan, math.nan
    if len(values) > 1:
        reach = stats.t.ppf(1 - ALPHA / 2, len(values) - 1) * values.sem()
        low, high = values.mean() - reach, values.mean() + reach
    return {"mean": values.mean(), "sd": values.std(), "least": values.min(),
            "most": values.max(), "low": low, "high": high, "cells": len(values)}  # fmt: skip


def spread_of_shares(values: pd.Series) -> dict[str, float]:
    """As `spread`, of scores in 0..1, where the interval ends."""
    found = spread(values)
    return found | {side: float(np.clip(found[side], 0, 1)) for side in ("low", "high")}


def apart(values: pd.Series) -> float:
    """Return how far apart 95% of pairs of further runs are, by chance alone; NaN of fewer than 2.

    A prediction interval: Student's t times the SD of a difference.
    """
    if len(values) < 2:
        return math.nan
    return float(stats.t.ppf(1 - ALPHA / 2, len(values) - 1) * math.sqrt(2) * values.std())


def differences(study: StudyResults, model: str) -> pd.DataFrame:
    """Compare each setting's log loss on validation with the base's, over the same seeds and films.

    The variance of a mean difference is that between patients, whose films stay together, plus that
    between cells of one setting (seeds, folds), so the interval holds for other patients and other
    seeds. Degrees of freedom are Satterthwaite's (1946, doi:10.2307/3002019). With one cell a
    setting, the second is unknown and left out; where cells hold other patients, as folds do, that
    between patients is in both parts, and the interval too wide rather than too narrow. ``p`` is of
    a two-sided t test, ``holm`` the same corrected for the number of settings that were tried.
    """
    rows = study.rows[study.rows["model"] == model]
    base = {(row["seed"], row["fold"]): study.losses(row)
            for _, row in rows[rows["setting"] == study.base].iterrows()}  # fmt: skip
    found = []
    for setting, part in rows[rows["setting"] != study.base].groupby("setting", sort=False):
        gaps = []
        for _, row in part.iterrows():
            if (before := base.get((row["seed"], row["fold"]))) is not None:
                both = before.merge(study.losses(row), on=["path", "patient"])
                gaps.append(both.assign(gap=both["loss_y"] - both["loss_x"], cell=row["cell"]))
        if gaps:
            found.append({"setting": setting, **paired(gaps)})
    table = pd.DataFrame(found, columns=["setting", "cells", "value", "low", "high", "p"])
    tried = {cell["setting"] for cell in study.about["cells"].values()} - {study.base}
    corrected = holm(table["p"].to_numpy(float), len(tried))
    return table.assign(holm=corrected).sort_values("value")


def paired(gaps: list[pd.DataFrame]) -> dict[str, float]:
    """Return the mean of differences (columns patient and gap, a table a cell), interval and p."""
    means, count = np.array([one["gap"].mean() for one in gaps]), len(gaps)
    value = means.mean()
    films = pd.concat([one.assign(part=(one["gap"] - value) / len(one) / count) for one in gaps])
    of_patients = films.groupby("patient")["part"].sum().to_numpy()
    patients = len(of_patients)
    parts = [np.sum(of_patients**2) * patients / max(1, patients - 1)]
    if count > 1:
        parts.append(means.var(ddof=1) / count)
    error, freedoms = math.sqrt(sum(parts)), (patients - 1, count - 1)
    if not error:
        return {"cells": count, "value": value, "low": value, "high": value, "p": 1.0}
    freedom = sum(parts) ** 2 / sum(part**2 / df for part, df in zip(parts, freedoms, strict=False))
    reach = stats.t.ppf(1 - ALPHA / 2, freedom) * error
    p = 2 * stats.t.sf(abs(value) / error, freedom)
    return {"cells": count, "value": value, "low": value - reach, "high": value + reach, "p": p}


def holm(p: np.ndarray, tried: int) -> np.ndarray:
    """Correct p-values for the number `tried` by Holm's step-down (jstor.org/stable/4615733).

    Those that were tried and have no p, as they did not end, count as the largest.
    """
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (tried - np.arange(len(p))))
    return np.minimum(stepped, 1)[np.argsort(order)]


def effects(study: StudyResults, model: str) -> pd.DataFrame:
    """Return by least squares what each value of a factor adds to the log loss of the base's value.

    All factors are fitted at once, beside seed and fold; one of more than 8 numbers is one column,
    scaled from 0 at the lowest to 1 at the highest. NaN where the settings cannot tell, as where
    two factors always change together. Shows directions: what factors do together is not in it.
    """
    rows = study.rows[study.rows["model"] == model]
    cells = study.about["cells"]
    columns: dict[tuple[str, Any], np.ndarray] = {}
    for name, values in study.factors.items():
        base = values[0]
        own = [cells[cell]["changes"].get(name, base) for cell in rows["cell"]]
        scaled = all(isinstance(one, int | float) for one in own)
        if scaled and len(set(own)) > LEVELS:
            low, high = min(own), max(own)
            columns[name, f"{low:.3g} to {high:.3g}"] = (np.array(own) - low) / (high - low)
        else:
            columns |= {(name, value): np.array([one == value for one in own], float)
                        for value in values[1:]}  # fmt: skip
    blocks = pd.get_dummies([f"{row.seed}/{row.fold}" for row in rows.itertuples()])
    design = np.column_stack([*columns.values(), blocks.to_numpy(float)])
    fitted = np.linalg.lstsq(design, rows["loss"].to_numpy(float), rcond=None)[0]
    rank, found = np.linalg.matrix_rank(design), []
    for place, ((name, value), column) in enumerate(columns.items()):
        told = np.linalg.matrix_rank(np.delete(design, place, axis=1)) < rank
        effect = fitted[place] if told else math.nan
        found.append([name, study.base_value(name), value, effect, int((column != 0).sum())])
    return pd.DataFrame(found, columns=["factor", "base", "value", "effect", "cells"])


def doubling(study: StudyResults, model: str) -> dict[str, float] | None:
    """Return by how much the log loss falls when training patients are doubled, with its interval.

    The slope against log2 of the patients, of each seed and fold by itself; mean and 95% t interval
    over them (NaN of fewer than two). None without three numbers of patients.
    """
    rows = study.rows[study.rows["model"] == model]
    if SHARE not in study.factors or rows["patients"].nunique() < 3:
        return None
    slopes = [
        stats.linregress(np.log2(part["patients"].to_numpy(float)), part["loss"]).slope
        for _, part in rows.groupby(["seed", "fold"], dropna=False)
        if part["patients"].nunique() > 2
    ]
    if not slopes:
        return None
    told = spread(pd.Series(slopes))
    return {"value": told["mean"], "low": told["low"], "high": told["high"], "seeds": len(slopes),
            "least": int(rows["patients"].min()), "most": int(rows["patients"].max())}  # fmt: skip


def take(table: pd.DataFrame, base: str) -> str:
    """Return the setting to take: the best of those better by Holm's p, else the base.

    With one cell a setting none is: what another seed would give is not known.
    """
    better = table[(table["value"] < 0) & (table["holm"] < ALPHA) & (table["cells"] > 1)]
    return str(better["setting"].iloc[0]) if len(better) else base
