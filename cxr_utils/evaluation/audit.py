"""What may be wrong with a data set: duplicates, patients, shortcuts; each with a verdict."""

from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import radius_neighbors_graph

from ..data import looks
from ..data.dataset import Dataset
from ..data.manifest import NO_IMAGE, Manifest, labels_of
from ..data.splits import TRAINING, is_training, patients_known, reused_numbers
from . import intervals, shortcuts

NOTED, WARNED = 0.65, 0.8  # AUROC of a shortcut from which on it is a note, or a warning
HASH_SIDE = 16  # a perceptual hash has its square of bits
# Of 256 bits; a film saved again in JPEG differs in fewer, and two of the real set in 34 or more.
NEAR_BITS = 20
SHIFT = 0.05  # difference in the share of PNEUMONIA from which on it is a note


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for; reports put it into words by ``findings.md.j2``."""

    check: str
    verdict: str  # fine, note (know it) or warning (scores may mislead)
    facts: dict[str, Any]
    files: tuple[str, ...] = ()  # those that belong together joined by =


def audit(data: Dataset) -> list[Finding]:
    """Look for what makes scores mislead in data that was opened at ``OVERVIEW_SIZE`` px."""
    files, traits = data.files, looks.traits(data.files, data.stored)
    border = shortcuts.reach(shortcuts.border_scores(data), files)
    metadata = shortcuts.reach(shortcuts.metadata_scores(traits, files), files)
    exact, near, alike = find_duplicates(files, data.stored)
    return [
        _left_out(data.manifest),
        _duplicates("exact duplicates", exact, files),
        _duplicates("near duplicates", near, files),
        _twins(alike, files),
        _patients(files),
        _numbers(files, data.source.synthetic),
        _judged("metadata alone", np.fmax(metadata.seen, metadata.low), vars(metadata)),
        _single_traits(traits, files),
        _judged("border alone", np.fmax(border.seen, border.low), vars(border)),
        _prior(files),
    ]


def find_duplicates(files: pd.DataFrame, stored: np.ndarray) -> list[list[np.ndarray]]:
    """Group the rows of files that hold the same film: byte for byte, in files that differ, either.

    `stored` are their squares, uint8, (n, size, size), compared by a perceptual hash of 256 bits:
    the signs of the low frequencies of their cosine transform (Zauner 2010, *Implementation and
    benchmarking of perceptual image hash functions*). Films that were cropped or mirrored are not
    found.
    """
    hashes = [imagehash.phash(Image.fromarray(picture), HASH_SIDE).hash for picture in stored]
    bits = np.array(hashes, np.float32).reshape(len(stored), -1)
    # The squared distance of two hashes is the number of bits in which they differ.
    alike = coo_array(radius_neighbors_graph(bits, np.sqrt(NEAR_BITS + 0.5)))
    exact = files.groupby("sha256", sort=False).ngroup().to_numpy()
    differ = exact[alike.row] != exact[alike.col]
    near = coo_array((alike.data[differ], (alike.row[differ], alike.col[differ])), alike.shape)
    numbers = [exact, *(connected_components(graph)[1] for graph in (near, alike))]
    return [[rows for rows in pd.Series(one).groupby(one).indices.values() if len(rows) > 1]
            for one in numbers]  # fmt: skip


def _left_out(manifest: Manifest) -> Finding:
    left = manifest.left_out
    damaged = int((~left["problem"].isin(NO_IMAGE)).sum())
    verdict = "warning" if damaged else "note" if len(left) else "fine"
    facts = {"files": len(left), "damaged": damaged}
    return Finding("usable files", verdict, facts, tuple(left["path"] + ": " + left["problem"]))


def _duplicates(check: str, groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    parts = [files.iloc[rows] for rows in groups]
    parts.sort(key=lambda part: part["split"].nunique() == 1)  # the worst first
    across = [set(part["split"]) for part in parts if part["split"].nunique() > 1]
    tested = sum("test" in found and not found.isdisjoint(TRAINING) for found in across)
    facts = {"groups": len(groups), "across": len(across), "tested": tested}
    verdict = "warning" if across else "note" if groups else "fine"
    return Finding(check, verdict, facts, tuple(" = ".join(part["path"]) for part in parts))


def _twins(groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    path, label = files["path"].to_numpy(), files["label"].to_numpy()
    torn = tuple(" = ".join(path[rows]) for rows in groups if len(set(label[rows])) > 1)
    return Finding("labels of twins", "warning" if torn else "fine", {"groups": len(torn)}, torn)


def _patients(files: pd.DataFrame) -> Finding:
    splits = files.groupby("patient")["split"].agg(set)
    across = splits[splits.str.len() > 1]
    ours, known = sum(found >= TRAINING for found in across), patients_known(files)
    facts = {"across": len(across), "all": len(splits), "ours": ours, "known": known}
    verdict = "warning" if len(across) else "fine" if known else "note"
    shared = files[files["patient"].isin(across.index)]
    named = tuple(" = ".join(paths) for _, paths in shared.groupby("patient")["path"])
    return Finding("patients across splits", verdict, facts, named)


def _numbers(files: pd.DataFrame, synthetic: bool) -> Finding:
    """Person numbers in several splits under different kinds: perhaps one child, perhaps two."""
    several = files.assign(number=reused_numbers(files)).dropna(subset="number")
    tested = several[several["folder"] == "test"]
    sick = int(labels_of(files[files["folder"] == "test"]).sum())
    facts = {"numbers": several["number"].nunique(), "tested": tested["number"].nunique()}
    facts |= {"images": len(tested), "sick": sick, "synthetic": synthetic}
    verdict = "fine" if several.empty or synthetic else "note"
    return Finding("reused patient numbers", verdict, facts)


def _single_traits(traits: pd.DataFrame, files: pd.DataFrame) -> Finding:
    train = files[is_training(files)]
    labels, traits = labels_of(train), traits.loc[train.index]
    areas = [(name, float(roc_auc_score(labels, traits[name]))) for name in looks.TRAITS]
    areas.sort(key=lambda named: -abs(named[1] - 0.5))
    best, area = areas[0]
    found = intervals.delong(labels, traits[best].to_numpy(float), train["patient"].to_numpy())
    surely = max(area, 1 - area) - 1.96 * found.error if found else np.nan
    return _judged("single traits", surely, {"best": areas[:3]})


def _judged(check: str, area: float, facts: dict[str, Any]) -> Finding:
    """Judge a shortcut by the AUROC that it surely has; NaN where there are too few patients."""
    facts = facts | {"known": not np.isnan(area), "least": looks.LEAST_PATIENTS}
    verdict = "warning" if area >= WARNED else "fine" if area < NOTED else "note"
    return Finding(check, verdict, facts)


def _prior(files: pd.DataFrame) -> Finding:
    shares = files.assign(sick=labels_of(files)).groupby("folder")["sick"].mean()
    apart = abs(shares["train"] - shares["test"]) >= SHIFT
    return Finding("prior shift", "note" if apart else "fine", shares.to_dict())
