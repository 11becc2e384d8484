"""Every number of ``metrics.json`` again, from the predictions and without the project's code."""

import csv
import json

import numpy as np
from scipy import stats

RATES = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")


def read(file):
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def entry(rows, known, resamples, seed):
    """The entry of one split; thresholds and temperature are those of the one that is checked."""
    labels, scores = (rows["label"] == "PNEUMONIA").astype(int), rows["score"].astype(float)
    draws = _draws(rows["patient"], resamples, seed)
    cut, sick, well = known["threshold"], labels == 1, labels == 0
    shares = {
        "accuracy": np.ones(len(labels), bool),
        "sensitivity": sick,
        "specificity": well,
        "ppv": scores >= cut,
        "npv": scores < cut,
    }
    right = (scores >= cut) == sick
    before = 1 / (1 + np.exp(-np.log(scores / (1 - scores)) * known["temperature"]))
    return {
        "n": len(labels),
        "patients": len(set(rows["patient"])),
        **_of_scores(labels, scores),
        **_rates(labels, scores, cut),
        "operating_point": known["operating_point"],
        "operating_points": {
            name: _point(labels, scores, point["threshold"], draws)
            for name, point in known["operating_points"].items()
        },
        "ci95": _intervals(
            lambda y, p: _rates(y, p, cut) | _of_scores(y, p),
            labels,
            scores,
            draws,
            [*RATES, "auroc", "auprc", "loss", "brier"],
        ),
        "wilson95": {
            name: _wilson(right[among].sum(), among.sum()) for name, among in shares.items()
        },
        "delong95": {"auroc": _obuchowski(labels, scores, rows["patient"])},
        "temperature": known["temperature"],
        "uncalibrated": {
            name: _of_scores(labels, before)[name] for name in ("loss", "brier", "ece")
        },
        "subtypes": {
            kind: _subtype(rows["subtype"] == kind, labels, scores, right, draws)
            for kind in sorted(set(rows["subtype"]))
        },
    }


def _draws(patients, resamples, seed):
    """The rows of each resample: patients, sorted, drawn with replacement, all images of each."""
    names = sorted(set(patients))
    images = [np.flatnonzero(patients == name) for name in names]
    return [
        np.concatenate([images[number] for number in drawn])
        for drawn in np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    ]


def _rates(labels, scores, cut):
    tp, fp = (
        int(((scores >= cut) & (labels == 1)).sum()),
        int(((scores >= cut) & (labels == 0)).sum()),
    )
    fn, tn = int((labels == 1).sum()) - tp, int((labels == 0).sum()) - fp

    def share(part, whole):
        return part / whole if whole else None

    return {
        "threshold": cut,
        "accuracy": share(tp + tn, len(labels)),
        "sensitivity": share(tp, tp + fn),
        "specificity": share(tn, tn + fp),
        "ppv": share(tp, tp + fp),
        "npv": share(tn, tn + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "confusion_matrix": [[tn, fp], [fn, tp]],
    }


def _of_scores(labels, scores):
    clipped, both = np.clip(scores, 1e-7, 1 - 1e-7), 0 < labels.sum() < len(labels)
    bins = [(scores >= low / 15) & ((scores < (low + 1) / 15) | (low == 14)) for low in range(15)]
    return {
        "loss": -np.mean(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped)),
        "auroc": _area(labels, scores) if both else None,
        "auprc": _average_precision(labels, scores) if both else None,
        "brier": np.mean((scores - labels) ** 2),
        "ece": sum(
            among.mean() * abs(scores[among].mean() - labels[among].mean())
            for among in bins
            if among.any()
        ),
    }


def _area(labels, scores):
    """By ranks (Mann and Whitney)."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    return (stats.rankdata(scores)[labels == 1].sum() - positives * (positives + 1) / 2) / (
        positives * negatives
    )


def _average_precision(labels, scores):
    """The precision at each cut, weighted by the sensitivity that it adds."""
    order = np.argsort(-scores)
    ends = np.flatnonzero(
        np.diff(scores[order], append=-np.inf)
    )  # where the next score is another one
    hits = np.cumsum(labels[order])[ends]
    return np.sum(np.diff(hits, prepend=0) / labels.sum() * hits / (ends + 1))


def _intervals(function, labels, scores, draws, names):
    found, whole = (
        [function(labels[rows], scores[rows]) for rows in draws],
        function(labels, scores),
    )
    intervals = {}
    for name in names:
        values = [values[name] for values in found if values[name] is not None]
        intervals[name] = (
            np.quantile(values, (0.025, 0.975)).tolist()
            if values and whole[name] is not None
            else None
        )
    return intervals


def _point(labels, scores, cut, draws):
    found, called = _rates(labels, scores, cut), scores >= cut
    among = {
        "accuracy": np.ones(len(labels), bool),
        "sensitivity": labels == 1,
        "specificity": labels == 0,
        "ppv": called,
        "npv": ~called,
    }
    wilson = {
        name: _wilson((called == (labels == 1))[rows].sum(), rows.sum())
        for name, rows in among.items()
    }
    return {
        "n": len(labels),
        **found,
        "ci95": _intervals(lambda y, p: _rates(y, p, cut), labels, scores, draws, RATES),
        "wilson95": wilson,
    }


def _wilson(part, whole):
    if not whole:
        return None
    share, z = part / whole, stats.norm.ppf(0.975)
    middle, reach = (
        share + z**2 / (2 * whole),
        z * np.sqrt(share * (1 - share) / whole + z**2 / (4 * whole**2)),
    )
    return [(middle - reach) / (1 + z**2 / whole), (middle + reach) / (1 + z**2 / whole)]


def _obuchowski(labels, scores, patients):
    """Obuchowski 1997, equations by loops over patients, and the interval on the logit scale."""
    sick, well = scores[labels == 1], scores[labels == 0]
    if min(len(set(patients[labels == label])) for label in (0, 1)) < 2:
        return None
    area, names = _area(labels, scores), sorted(set(patients))
    if not 0 < area < 1:
        return None
    x, y = [], []
    for name in names:
        own = patients == name
        x.append(
            sum(
                np.mean((score > well) + 0.5 * (score == well)) - area
                for score in scores[own & (labels == 1)]
            )
        )
        y.append(
            sum(
                np.mean((sick > score) + 0.5 * (sick == score)) - area
                for score in scores[own & (labels == 0)]
            )
        )
    with_sick, with_well = (len(set(patients[labels == label])) for label in (1, 0))
    s10 = with_sick / ((with_sick - 1) * len(sick)) * np.dot(x, x)
    s01 = with_well / ((with_well - 1) * len(well)) * np.dot(y, y)
    s11 = len(names) / (len(names) - 1) * np.dot(x, y)
    error = np.sqrt(max(s10 / len(sick) + s01 / len(well) + 2 * s11 / (len(sick) * len(well)), 0))
    if not error:
        return None
    reach = stats.norm.ppf(0.975) * error / (area * (1 - area))
    return [1 / (1 + np.exp(-(np.log(area / (1 - area)) + side * reach))) for side in (-1, 1)]


def _subtype(own, labels, scores, right, draws):
    found = {"n": int(own.sum()), "right": int(right[own].sum()), "rate": right[own].mean()}
    shares = [right[rows][own[rows]].mean() for rows in draws if own[rows].any()]
    intervals, against = {"rate": np.quantile(shares, (0.025, 0.975)).tolist()}, own | (labels == 0)
    if labels[own].any() and (labels == 0).any():
        found["auroc"] = _area(labels[against], scores[against])
        areas = [
            _area(labels[rows][against[rows]], scores[rows][against[rows]])
            for rows in draws
            if 0 < labels[rows][against[rows]].sum() < against[rows].sum()
        ]
        intervals["auroc"] = np.quantile(areas, (0.025, 0.975)).tolist()
    return found | {"ci95": intervals, "wilson95": {"rate": _wilson(found["right"], found["n"])}}


def flat(value, name=""):
    """A nested entry as one dict of numbers, to be compared with a tolerance."""
    if isinstance(value, dict):
        return {
            key: number
            for part in value
            for key, number in flat(value[part], f"{name}/{part}").items()
        }
    if isinstance(value, list | tuple):
        return {
            key: number
            for place, part in enumerate(value)
            for key, number in flat(part, f"{name}[{place}]").items()
        }
    return {name: value}


def differences(root):
    """Return what of ``metrics.json`` does not follow from predictions, and what was compared."""
    known = json.loads((root / "metrics.json").read_text())
    settings, compared, wrong = known["bootstrap"], 0, []
    folders = dict.fromkeys(known["models"], "predictions") | dict.fromkeys(
        known["floors"], "floors"
    )
    for name, splits in (known["models"] | known["floors"]).items():
        rows = read(root / folders[name] / f"{name}.csv")
        if set(rows["split"]) != set(splits):
            wrong.append((name, "other splits than in the file", sorted(splits)))
        for split in set(splits) & set(known["data"]["counts"]):
            counts = {
                label: int(((rows["split"] == split) & (rows["label"] == label)).sum())
                for label in ("NORMAL", "PNEUMONIA")
            }
            wrong += [] if counts == known["data"]["counts"][split] else [(name, split, counts)]
        for split, said in splits.items():
            if said["threshold"] != said["operating_points"][said["operating_point"]]["threshold"]:
                wrong.append((name, split, "the threshold is not that of the operating point"))
            part = {key: values[rows["split"] == split] for key, values in rows.items()}
            said, found = (
                flat(said),
                flat(entry(part, said, settings["resamples"], settings["seed"])),
            )
            if set(said) != set(found):
                wrong.append((name, split, sorted(set(said) ^ set(found))))
            for key in set(said) & set(found):
                compared += 1
                same = said[key] == found[key] or (
                    isinstance(said[key], float)
                    and found[key] is not None
                    and abs(said[key] - found[key]) <= 1e-9
                )
                wrong += [] if same else [(name, split, key, said[key], found[key])]
    return wrong, compared
