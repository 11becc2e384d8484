"""What may be wrong with a data set: duplicates, patients and shortcuts; each finding with a verdict and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .images import Fold, XRays, load_pixels
from .manifest import LABELS, NO_IMAGE, Manifest
from .pixels import Square

HASH_SIDE = 16  # a perceptual hash has its square of bits
# Of 256 bits; a film saved again in JPEG differs in fewer, and different films of the real set in no fewer than 34.
NEAR_BITS = 20
BLOCK = 512  # images compared with all others at a time
NOTED, WARNED = 0.65, 0.8  # AUROC of a shortcut from which on it is a note, or a warning
SHIFT = 0.05  # difference in the share of PNEUMONIA from which on it is a note
METADATA = ("width", "height", "aspect", "bytes a pixel", "sharpness")  # and the colour mode
EXPOSURE = ("brightness", "contrast")
LEAK_IMAGES, LEAK_SIZE = 600, 16
FOLDS_OF_PATIENTS = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Parameters
    ----------
    check : str
        What was looked for.
    verdict : str
        ``fine``, ``note`` (know it) or ``warning`` (scores may mislead).
    says : str
        What was found, in numbers.
    remedy : str
        What to do; empty where all is fine.
    files : tuple of str
        The files concerned, in groups that belong together.
    """

    check: str
    verdict: str
    says: str
    remedy: str = ""
    files: tuple[str, ...] = ()


def audit(data: XRays) -> list[Finding]:
    """Look for what would make scores on a data set mislead.

    Parameters
    ----------
    data : XRays
        The data set, opened at ``images.OVERVIEW_SIZE``.

    Returns
    -------
    list of Finding
        In the order of a reader's questions: files, duplicates, patients, shortcuts, prior.
    """
    groups = [rows for rows in data.files.groupby("sha256", sort=False).indices.values() if len(rows) > 1]
    near = near_duplicates(data.stored, data.files)
    looks = traits(data)
    return [
        _left_out(data.manifest),
        _duplicates("exact duplicates", "are identical to the byte", groups, data.files),
        _duplicates("near duplicates", "show the same film, saved again", near, data.files),
        _twins(groups + near, data.files),
        _patients(data.files),
        _numbers(data.files),
        _metadata(looks, data.files),
        _single_traits(looks, data.files),
        _prior(data.files),
    ]


def _left_out(manifest: Manifest) -> Finding:
    problems = manifest.left_out["problem"]
    named = tuple(f"{path}: {problem}" for path, problem in zip(manifest.left_out["path"], problems, strict=True))
    damaged = int((~problems.isin(NO_IMAGE)).sum())
    says = f"{len(named)} files were left out, {damaged} of them damaged or unreadable."
    if not named:
        return Finding("usable files", "fine", says)
    return Finding("usable files", "warning" if damaged else "note", says, "fetch the damaged ones again, or delete them", named)


def near_duplicates(stored: np.ndarray, files: pd.DataFrame) -> list[np.ndarray]:
    """Return pairs of rows whose files differ and whose pictures hardly do.

    Pictures are compared by a perceptual hash of 256 bits: the signs of the low frequencies of their
    cosine transform (Zauner 2010, *Implementation and benchmarking of perceptual image hash functions*).

    Parameters
    ----------
    stored : ndarray of uint8, shape (n, size, size)
        The images.
    files : DataFrame
        Their rows of the manifest.
    """
    hashes = np.array([imagehash.phash(Image.fromarray(picture), HASH_SIDE).hash.ravel() for picture in stored])
    signs = hashes.astype(np.float32) * 2 - 1
    content = files["sha256"].to_numpy()
    pairs = []
    for start in range(0, len(signs), BLOCK):
        distance = (signs.shape[1] - signs[start : start + BLOCK] @ signs.T) / 2
        first, second = np.nonzero(distance <= NEAR_BITS)
        first += start
        later = (second > first) & (content[first] != content[second])
        pairs += [np.array(pair) for pair in zip(first[later], second[later], strict=True)]
    return pairs


def _duplicates(check: str, what: str, groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    fold, path = files["fold"].to_numpy(), files["path"].to_numpy()
    across = [rows for rows in groups if len(set(fold[rows])) > 1]
    tested = sum("test" in fold[rows] and bool({"train", "validation"} & set(fold[rows])) for rows in across)
    says = f"Groups of files that {what}: {len(groups)}; across our folds: {len(across)}; across train and test: {tested}."
    named = tuple(" = ".join(path[rows]) for rows in across + [rows for rows in groups if len(set(fold[rows])) == 1])
    if across:
        return Finding(check, "warning", says, "delete one of each group; a model has seen what it is tested on", named)
    return Finding(check, "note" if groups else "fine", says, "they are kept, and weigh a little more" if groups else "", named)


def _twins(groups: list[np.ndarray], files: pd.DataFrame) -> Finding:
    label, path = files["label"].to_numpy(), files["path"].to_numpy()
    torn = [rows for rows in groups if len(set(label[rows])) > 1]
    says = f"Groups of duplicates that carry both labels: {len(torn)}."
    if not torn:
        return Finding("labels of twins", "fine", says)
    return Finding(
        "labels of twins", "warning", says, "one label is wrong: ask a radiologist", tuple(" = ".join(path[rows]) for rows in torn)
    )


def _patients(files: pd.DataFrame) -> Finding:
    folds = files.groupby("patient")["fold"].agg(lambda fold: sorted(set(fold)))
    across = folds[folds.str.len() > 1]
    ours = sum({"train", "validation"} <= set(fold) for fold in across)
    says = f"{len(across)} of {len(folds)} patients are in several folds, {ours} of them across our split, as far as file names tell."
    if across.empty:
        return Finding("patients across folds", "fine", says)
    named = tuple(" = ".join(files.loc[files["patient"] == patient, "path"]) for patient in across.index)
    return Finding("patients across folds", "warning", says, "move each patient's files to one folder", named)


def _numbers(files: pd.DataFrame) -> Finding:
    """The same person number under two kinds is not known to be one child; it is counted all the same."""
    number = files["patient"].str.extract(r"^(person\d+)_", expand=False)
    folds = files.assign(number=number).dropna(subset="number").groupby("number")[["patient", "fold"]].agg(lambda found: set(found))
    several = folds[(folds["patient"].str.len() > 1) & (folds["fold"].str.len() > 1)]
    says = f"{len(several)} person numbers stand in several folds under different kinds of pneumonia; we count them as different children."
    remedy = "the publisher does not say whether they are; an honest error bar is a little wider" if len(several) else ""
    return Finding("reused patient numbers", "note" if len(several) else "fine", says, remedy)


def traits(data: XRays) -> pd.DataFrame:
    """Return what can be told of each image without looking at the lungs.

    Returns
    -------
    DataFrame
        width, height (px), aspect, bytes a pixel, mode, brightness and contrast (mean and spread of
        the grey values, 0..255), sharpness (log of the spread of the Laplacian).
    """
    files = data.files
    looks = np.concatenate([_looks(data.stored[start : start + BLOCK]) for start in range(0, len(files), BLOCK)])
    table = files[["width", "height", "mode"]].assign(aspect=files["width"] / files["height"])
    table["bytes a pixel"] = files["bytes"] / (files["width"] * files["height"])
    return table.assign(brightness=looks[:, 0], contrast=looks[:, 1], sharpness=looks[:, 2])


def _looks(pictures: np.ndarray) -> np.ndarray:
    grey = np.asarray(pictures, np.float32)
    edges = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    return np.stack([grey.mean((1, 2)), grey.std((1, 2)), np.log(edges.std((1, 2)) + 1e-3)], axis=1)


def _metadata(looks: pd.DataFrame, files: pd.DataFrame) -> Finding:
    """Ask whether a classifier can tell the classes apart without seeing a lung."""
    features = looks[list(METADATA)].join(pd.get_dummies(looks["mode"]).astype(float))
    seen, hidden = metadata_floor(features, files)
    says = (
        f"A classifier on size, aspect, colour mode, bytes and sharpness alone reaches an AUROC of {seen:.3f} on training patients "
        f"it has not seen and of {hidden:.3f} on test: the floor that any model must beat."
    )
    return _judged("metadata floor", max(seen, hidden), says, "vary sharpness and scale in augmentation, and compare every AUROC with it")


def metadata_floor(features: pd.DataFrame, files: pd.DataFrame) -> tuple[float, float]:
    """Return the AUROC of gradient boosting on metadata: on unseen training patients, and on test."""
    labels, patients = (files["label"] == LABELS[1]).to_numpy(), files["patient"].to_numpy()
    train, test = files["split"].isin(["train", "validation"]).to_numpy(), (files["split"] == "test").to_numpy()
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    folds = GroupKFold(FOLDS_OF_PATIENTS)
    seen = cross_val_predict(model, features[train], labels[train], groups=patients[train], cv=folds, method="predict_proba")[:, 1]
    hidden = model.fit(features[train], labels[train]).predict_proba(features[test])[:, 1]
    return roc_auc_score(labels[train], seen), roc_auc_score(labels[test], hidden)


def _single_traits(looks: pd.DataFrame, files: pd.DataFrame) -> Finding:
    """Ask whether one number tells the classes apart."""
    train = files["split"].isin(["train", "validation"])
    areas = {name: trait_auroc(looks.loc[train, name], files.loc[train, "label"]) for name in (*METADATA, *EXPOSURE)}
    highest = sorted(areas, key=areas.get, reverse=True)[:3]
    says = "AUROC of one number alone, highest first: " + ", ".join(f"{name} {areas[name]:.3f}" for name in highest) + "."
    return _judged("single traits", areas[highest[0]], says, f"find out why the classes differ in {highest[0]}; vary it in augmentation")


def trait_auroc(values: pd.Series, labels: pd.Series) -> float:
    """Return the AUROC of one number, whichever way it points: 0.5 to 1."""
    area = roc_auc_score(labels == LABELS[1], values)
    return max(area, 1 - area)


def _judged(check: str, area: float, says: str, remedy: str) -> Finding:
    verdict = "warning" if area >= WARNED else "note" if area >= NOTED else "fine"
    return Finding(check, verdict, says, remedy if verdict != "fine" else "")


def _prior(files: pd.DataFrame) -> Finding:
    shares = (files["label"] == LABELS[1]).groupby(files["split"]).mean()
    says = f"PNEUMONIA makes up {shares['train']:.1%} of train and {shares['test']:.1%} of test."
    if abs(shares["train"] - shares["test"]) < SHIFT:
        return Finding("prior shift", "fine", says)
    return Finding("prior shift", "note", says, "calibrated probabilities and PPV hold for the share in validation only")


def fit_leaks(data: XRays, seed: int) -> pd.DataFrame:
    """Measure how well the pixels tell a wide film from a narrow one after each way of making it a square.

    A logistic regression on 16 x 16 pixels of up to 600 training images, on patients it has not seen. Where the classes differ in
    aspect, a network can use what it reads; where all files have one aspect, there is nothing to measure and the table is empty.

    Returns
    -------
    DataFrame
        fit, AUROC (of "wider than the median film").
    """
    return pd.DataFrame(list(_leaks(data, seed)), columns=["fit", "AUROC"])


def _leaks(data: XRays, seed: int) -> Iterator[tuple[str, float]]:
    train = data.files[data.files["split"] == "train"]
    chosen = train.sample(min(len(train), LEAK_IMAGES), random_state=seed)
    aspect = chosen["width"] / chosen["height"]
    if aspect.max() - aspect.min() < 0.02:
        return
    manifest = Manifest(data.manifest.root, chosen, data.manifest.left_out, f"{data.manifest.digest} sample {seed}")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    for fit in ("squash", "crop", "pad"):
        pictures = load_pixels(manifest, Square(LEAK_SIZE, fit)).reshape(len(chosen), -1).astype(np.float32)
        wide = (aspect > aspect.median()).to_numpy()
        guess = cross_val_predict(model, pictures, wide, groups=chosen["patient"], cv=GroupKFold(FOLDS_OF_PATIENTS), method="predict_proba")
        yield fit, roc_auc_score(wide, guess[:, 1])


def class_means(fold: Fold) -> dict[str, np.ndarray]:
    """Return the mean image of each class, and PNEUMONIA minus NORMAL; float32, shape (size, size), grey values."""
    totals = {label: np.zeros(fold.pixels.shape[1:], np.float64) for label in LABELS}
    for start in range(0, len(fold), BLOCK):
        pictures, labels = fold.pixels[start : start + BLOCK], fold.labels[start : start + BLOCK]
        for number, label in enumerate(LABELS):
            totals[label] += pictures[labels == number].sum(0, dtype=np.float64)
    means = {label: total / (fold.labels == number).sum() for number, (label, total) in enumerate(totals.items())}
    return means | {"difference": means[LABELS[1]] - means[LABELS[0]]}


def grey_histograms(fold: Fold) -> dict[str, np.ndarray]:
    """Return the share of pixels at each grey value, by class; float64, shape (256,)."""
    counts = {label: np.zeros(256) for label in LABELS}
    for start in range(0, len(fold), BLOCK):
        pictures, labels = fold.pixels[start : start + BLOCK], fold.labels[start : start + BLOCK]
        for number, label in enumerate(LABELS):
            counts[label] += np.bincount(pictures[labels == number].ravel(), minlength=256)
    return {label: count / count.sum() for label, count in counts.items()}
