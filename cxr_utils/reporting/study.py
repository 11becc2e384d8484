"""Tables and figures of a study's page."""

import numpy as np
import pandas as pd

from ..evaluation import studies
from ..evaluation.studies import StudyResults
from .display import SPLIT_COLOURS, Figure
from .figures import canvas
from .tables import SCORES, SHOWN, three

SPLITS = {"": "validation", "test_": "test"}  # prefix of a score's column: where it is from
MOST = 40  # settings in a figure


def mean_sd(values: pd.Series) -> str:
    """Return the mean and, of two values or more, their SD as text."""
    return three(values.mean()) + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def beside(table: pd.DataFrame, seeds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return `tables.scores` of test with mean and SD over seeds beside the models that have some.

    `seeds` are rows of `studies.of_seeds` by the model's title.
    """
    for title, rows in seeds.items():
        known = {name: rows[f"test_{score}"] for score, name in SCORES.items()
                 if f"test_{score}" in rows}  # fmt: skip
        column = pd.Series({name: mean_sd(one) for name, one in known.items()}).reindex(
            table.index, fill_value=""
        )
        name = f"{title}, {len(rows)} seeds: mean ± SD"
        table.insert(table.columns.get_loc(title) + 1, name, column)
    return table


def spreads(rows: pd.DataFrame, splits: tuple[str, ...]) -> pd.DataFrame:
    """Return mean, SD, range and interval of the scores over cells; `splits` are prefixes."""
    found = []
    for split in splits:
        for score in (*SHOWN, "loss"):
            spread = studies.spread if score == "loss" else studies.spread_of_shares
            known = spread(rows[split + score])
            found.append([SPLITS[split], SCORES[score], three(known["mean"]), three(known["sd"]),
                          f"{known['least']:.3f} to {known['most']:.3f}",
                          f"[{three(known['low'])}, {three(known['high'])}]"])  # fmt: skip
    columns = ["split", "score", "mean", "SD over runs", "range", "95% CI of the mean over runs"]
    return pd.DataFrame(found, columns=columns)


def cells(rows: pd.DataFrame, splits: tuple[str, ...]) -> pd.DataFrame:
    """Return the scores of each cell."""
    table = (
        rows[["cell", "patients", "minutes"]]
        .round({"minutes": 1})
        .astype(str)
        .rename(columns={"patients": "training patients", "minutes": "minutes of training"})
    )
    for split in splits:
        for score in (*SHOWN, "loss"):
            table[f"{SCORES[score]}, {SPLITS[split]}"] = rows[split + score].map(three)
    return table


def settings(study: StudyResults, rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and SD of each setting's scores on validation, the lowest loss first."""
    found = []
    for setting, part in rows.groupby("setting", sort=False):
        row = {"setting": setting, "cells": len(part)}
        for score in ("loss", *SHOWN):
            row[SCORES[score]] = mean_sd(part[score])
        row["minutes of training"] = f"{part['minutes'].mean():.1f}"
        found.append((part["loss"].mean(), row))
    return pd.DataFrame([row for _, row in sorted(found, key=lambda one: one[0])])


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return differences against the base as text."""
    words = {
        "setting": table["setting"],
        "cells": table["cells"],
        "log loss minus the base's [95% CI]": [
            f"{row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]" for row in table.itertuples()
        ],
        "p": table["p"].map(_p),
        "p (Holm)": table["holm"].map(_p),
    }
    return pd.DataFrame(words)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else three(value)


def gap_plot(table: pd.DataFrame, model: str, title: str) -> Figure:
    """Draw the difference of each setting's log loss from the base's, with its interval."""
    shown = table.head(MOST)
    drawn, ((axis,),) = canvas(width=7.5, height=1 + 0.24 * len(shown))
    span = np.array([shown["value"] - shown["low"], shown["high"] - shown["value"]])
    look = {"fmt": "o", "color": SPLIT_COLOURS[1], "ecolor": "#999999", "capsize": 3}
    axis.errorbar(shown["value"], range(len(shown)), xerr=span, **look)
    axis.axvline(0, color="grey", linestyle=":")
    axis.set(yticks=range(len(shown)), yticklabels=shown["setting"], ylim=(-0.6, len(shown) - 0.4))
    axis.set(xlabel="difference in validation log loss, setting minus base (nats)")
    axis.invert_yaxis()
    caption = "Left of the line a setting is better than the base; bars are 95% intervals, "
    caption += "not corrected for the number of settings."
    best = shown.iloc[0]
    alt = f"{len(shown)} settings of {title} against the base, from {best['setting']} "
    alt += (
        f"({best['value']:+.4f}) to {shown.iloc[-1]['setting']} ({shown.iloc[-1]['value']:+.4f})."
    )
    return Figure(drawn, f"settings_{model}", f"{title}: log loss against the base", caption, alt)


def spread_plot(rows: pd.DataFrame, splits: tuple[str, ...], model: str, title: str) -> Figure:
    """Draw every cell's scores, and their mean."""
    drawn, ((axis,),) = canvas(width=7.5, height=3)
    for number, split in enumerate(splits):
        for place, score in enumerate(SHOWN):
            values = rows[split + score].astype(float)
            where = place + 0.2 * (number - (len(splits) - 1) / 2)
            look = {"color": SPLIT_COLOURS[number], "zorder": 3}
            label = SPLITS[split] if not place else None
            axis.plot(values, [where] * len(values), "o", alpha=0.6, label=label, **look)
            axis.plot(values.mean(), where, "|", markersize=18, markeredgewidth=2, **look)
    axis.set(yticks=range(len(SHOWN)), yticklabels=[SCORES[score] for score in SHOWN])
    axis.set(xlabel="score")
    axis.invert_yaxis()
    axis.legend(bbox_to_anchor=(0, 1), loc="lower left", ncols=2, fontsize="small")
    alt = f"{', '.join(SCORES[score] for score in SHOWN)} of {len(rows)} runs of {title}."
    caption = "Each dot is one run; the vertical bar is the mean."
    return Figure(drawn, f"spread_{model}", f"{title}: {len(rows)} runs", caption, alt)


def curve_plot(rows: pd.DataFrame, model: str, title: str) -> Figure:
    """Draw log loss and AUROC on validation against the number of training patients."""
    drawn, axes = canvas(2, width=4.2)
    for axis, score in zip(axes[0], ("loss", "auroc"), strict=True):
        axis.plot(rows["patients"], rows[score], "o", color=SPLIT_COLOURS[1], alpha=0.6)
        means = rows.groupby("setting")[["patients", score]].mean().set_index("patients")[score]
        means = means.sort_index()
        axis.plot(means.index, means, "-", color=SPLIT_COLOURS[1])
        axis.set(xscale="log", xlabel="training patients", ylabel=f"{SCORES[score]} on validation")
        axis.set_xticks(means.index, [f"{patients:,.0f}" for patients in means.index], minor=False)
        axis.minorticks_off()
    alt = f"Log loss and AUROC of {title} on validation, for {means.index.min():.0f} to "
    alt += f"{means.index.max():.0f} training patients."
    caption = "Each dot is one run; the line joins the means."
    name = f"{title}: learning curve over training patients"
    return Figure(drawn, f"learning_curve_{model}", name, caption, alt)
