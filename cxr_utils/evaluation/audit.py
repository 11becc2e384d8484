"""What may be wrong with a data set: duplicates, patients, shortcuts; each with a verdict.

What is said of a finding, and what to do about it, stands in ``templates/audit.md.j2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import imagehash
import jinja2
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .. import paths
from ..data.dataset import Dataset
from ..data.manifest import LABELS, NO_IMAGE, Manifest
from ..data.splits import patients_known, reused_numbers
from . import intervals, shortcuts
from .shortcuts import BLOCK

HASH_SIDE = 16  # a perceptual hash has its square of bits
# Of 256 bits; a film saved again in JPEG differs in fewer, and two of the real set in 34 or more.
NEAR_BITS = 20
NOTED, WARNED = 0.65, 0.8  # AUROC of a shortcut from which on it is a note, or a warning
SHIFT = 0.05  # difference in the share of PNEUMONIA from which on it is a note


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    check: str
    verdict: str  # fine, note (know it) or warning (scores may mislead)
    facts: dict[str, Any]
    files: tuple[str, ...] = ()  # those that belong together joined by =

    @property
    def says(self) -> str:
        """What was found, in words and numbers."""
        return self._filled("")

    @property
    def remedy(self) -> str:
        """What to do; empty where all is fine."""
        return "" if self.verdict == "fine" else self._filled("_remedy")

    def _filled(self, part: str) -> str:
        macro = getattr(_sentences(), self.check.replace(" ", "_") + part)
        return " ".join(macro(self.facts | {"verdict": self.verdict}).split())


@cache
def _sentences() -> Any:
    loader = jinja2.FileSystemLoader(paths.TEMPLATES)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined)
    return environment.get_template("audit.md.j2").module


def audit(data: Dataset) -> list[Finding]:
    """Look for what would make scores mislead, in the order of a reader's questions.

    The data is to be opened at ``OVERVIEW_SIZE``.
    """
    files, metadata, border = data.files, shortcuts.metadata_reference(data), shortcuts.border(data)
    exact = files.groupby("sha256", sort=False).ngroup().to_numpy()
    pairs = near_pairs(data.stored, exact)
    same = _linked(exact.max() + 1, exact[pairs])[exact]
    return [
        _left_out(data.manifest),
        _duplicates("exact duplicates", _groups(exact), files),
        _duplicates("near duplicates", _groups(_linked(len(files), pairs)), files),
        _twins(_groups(same), files),
        _patients(files),
        _numbers(files, data.source.synthetic),
        _judged("metadata alone", np.fmax(metadata.seen, metadata.low), vars(metadata)),
        _single_traits(shortcuts.traits(data), files),
        _judged("border alone", np.fmax(border.seen, border.low), vars(border)),
        _prior(files),
    ]


def _left_out(manifest: Manifest) -> Finding:
    left = manifest.left_out
    damaged = int((~left["problem"].isin(NO_IMAGE)).sum())
    verdict = "warning" if damaged else "note" if len(left) else "fine"
    facts = {"files": len(left), "damaged": damaged}
    return Finding("usable files", verdict, facts, tuple(left["path"] + ": " + left["problem"]))


def near_pairs(stored: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return pairs of rows whose files differ and whose pictures hardly do.

    Pictures are compared by a perceptual hash of 256 bits: the signs of the low frequencies of
    their cosine transform (Zauner 2010, *Implementation and benchmarking of perceptual image hash
    functions*). `content` is equal for files that are identical to the byte.
    """
    hashes = [imagehash.phash(Image.fromarray(picture), HASH_SIDE).hash for picture in stored]
    signs = np.array(hashes).reshape(len(stored), -1).astype(np.float32) * 2 - 1
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(signs), BLOCK):
        distance = (signs.shape[1] - signs[start : start + BLOCK] @ signs.T) / 2
        first, second = np.nonzero(distance <= NEAR_BITS)
        first += start
        later = (second > first) & (content[first] != content[second])
        pairs.append(np.stack([first[later], second[later]], axis=1))
    return np.concatenate(pairs)


def _linked(count: int, pairs: np.ndarray) -> np.ndarray:
    """Number the groups that hang together by pairs, in the order of their first."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Rows of equal number, two at least."""
    rows = pd.Series(numbers).groupby(numbers).indices
    return [found for found in rows.values() if len(found) > 1]


def _duplicates(check: str, groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    path = files["path"].to_numpy()
    splits = [set(files["split"].iloc[rows]) for rows in groups]
    across = [found for found in splits if len(found) > 1]
    tested = sum("test" in found and not found.isdisjoint(shortcuts.TRAINING) for found in across)
    facts = {"groups": len(groups), "across": len(across), "tested": tested}
    verdict = "warning" if across else "note" if groups else "fine"
    worst_first = sorted(range(len(groups)), key=lambda number: len(splits[number]) == 1)
    named = tuple(" = ".join(path[groups[number]]) for number in worst_first)
    return Finding(check, verdict, facts, named)


def _twins(groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    path, label = files["path"].to_numpy(), files["label"].to_numpy()
    torn = tuple(" = ".join(path[rows]) for rows in groups if len(set(label[rows])) > 1)
    return Finding("labels of twins", "warning" if torn else "fine", {"groups": len(torn)}, torn)


def _patients(files: pd.DataFrame) -> Finding:
    splits = files.groupby("patient")["split"].agg(set)
    across = splits[splits.str.len() > 1]
    ours = sum(found >= shortcuts.TRAINING for found in across)
    known = patients_known(files)
    facts = {"across": len(across), "all": len(splits), "ours": ours, "known": known}
    verdict = "warning" if len(across) else "fine" if known else "note"
    shared = files[files["patient"].isin(across.index)]
    named = tuple(" = ".join(paths) for _, paths in shared.groupby("patient")["path"])
    return Finding("patients across splits", verdict, facts, named)


def _numbers(files: pd.DataFrame, synthetic: bool) -> Finding:
    """Person numbers in several splits under different kinds: perhaps one child, perhaps two."""
    several = files.assign(number=reused_numbers(files)).dropna(subset="number")
    test, tested = files[files["folder"] == "test"], several[several["folder"] == "test"]
    facts = {
        "numbers": several["number"].nunique(),
        "tested": tested["number"].nunique(),
        "images": len(tested),
        "sick": int((test["label"] == LABELS[1]).sum()),
        "synthetic": synthetic,
    }
    verdict = "fine" if several.empty or synthetic else "note"
    return Finding("reused patient numbers", verdict, facts)


def _single_traits(looks: pd.DataFrame, files: pd.DataFrame) -> Finding:
    areas = shortcuts.trait_aurocs(looks, files)
    best, area = next(iter(areas.items()))
    train = files[shortcuts.of_training_patients(files)]
    labels = (train["label"] == LABELS[1]).to_numpy().astype(int)
    scores = looks.loc[train.index, best].to_numpy(np.float64)
    found = intervals.delong(labels, scores, train["patient"].to_numpy())
    surely = max(area, 1 - area) - 1.96 * found.error if found else np.nan
    return _judged("single traits", surely, {"best": list(areas.items())[:3]})


def _judged(check: str, area: float, facts: dict[str, Any]) -> Finding:
    """Judge a shortcut by the AUROC that it surely has; NaN where there are too few patients."""
    facts = facts | {"known": not np.isnan(area), "least": shortcuts.LEAST_PATIENTS}
    noted = area >= NOTED or np.isnan(area)
    return Finding(check, "warning" if area >= WARNED else "note" if noted else "fine", facts)


def _prior(files: pd.DataFrame) -> Finding:
    shares = (files["label"] == LABELS[1]).groupby(files["folder"]).mean()
    facts = {"train": float(shares["train"]), "test": float(shares["test"])}
    apart = abs(facts["train"] - facts["test"]) >= SHIFT
    return Finding("prior shift", "note" if apart else "fine", facts)
