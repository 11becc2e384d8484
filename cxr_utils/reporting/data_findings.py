"""Tables and sentences about the data, computed from the files so that none can disagree with them."""

from __future__ import annotations

import pandas as pd

from ..data.dataset import Dataset
from ..data.manifest import LABELS, Manifest
from ..data.sources import COUNTS, Kaggle
from ..evaluation.audit import Finding
from . import published
from .names import KIND_NAMES


def count_table(manifest: Manifest, standing: str) -> pd.DataFrame:
    """Return images per folder and class beside the published counts and the original project's."""
    rows = []
    for split, counts in manifest.counts().items():
        for label in LABELS:
            row = {"folder": split, "class": label, "here": counts[label]}
            if standing == "published":
                row["published"] = COUNTS.get(split, {}).get(label, "")
                row["original project"] = published.ORIGINAL_COUNTS.get(split, {}).get(label, "")
            rows.append(row)
    return pd.DataFrame(rows)


def origin(data: Dataset, standing: str) -> dict[str, str]:
    """Return where the data comes from and under which terms, in the words of the table of sources."""
    known = data.source.origin() | {
        "source": data.source.kind,
        "manifest digest": data.manifest.digest,
    }
    if standing == "published" and not data.source.counts:
        known |= {
            "licence": f"{Kaggle.licence}, if this is a copy of it",
            "citation": Kaggle.citation,
        }
    names = ("source", "address", "version", "manifest digest", "checks", "licence", "citation")
    return {name: known[name] for name in names}


def origin_table(data: Dataset, standing: str) -> pd.DataFrame:
    """Return `origin` as a table."""
    return pd.DataFrame(
        [{"": name, "this data": value} for name, value in origin(data, standing).items()]
    )


def against_published(data: Dataset, standing: str) -> list[str]:
    """Return how the counts of each folder stand to the published ones."""
    if standing != "published":
        return []
    counts = data.manifest.counts()
    return [_against_published(split, counts[split]) for split in COUNTS if split in counts]


def about_data(data: Dataset, standing: str, audited: list[Finding]) -> list[str]:
    """Return what the counts, the split and the audit say."""
    counts, files = data.manifest.counts(), data.files
    test = counts["test"]
    sentences = [
        f"{len(files)} images are usable.",
        f"A model that always answers PNEUMONIA has an accuracy of {test['PNEUMONIA'] / sum(test.values()):.1%} on test.",
        *against_published(data, standing),
    ]
    if standing == "published":
        sentences.append(
            "Where the original project counted one image more in a folder, it had counted the hidden file .DS_Store."
        )
    if "val" in counts and standing == "published":
        images = sum(counts["val"].values())
        sentences.append(
            f"One image of the published val changes accuracy on it by {100 / images:.1f} points: too coarse to choose anything on."
        )
    train, chosen = (files[files["split"] == split] for split in ("train", data.chosen_on))
    shared = len(set(train["patient"]) & set(chosen["patient"]))
    sentences.append(
        f"{'Validation' if data.chosen_on == 'validation' else 'The published val, which choices are made on here,'} holds {len(chosen)} "
        f"images of {chosen['patient'].nunique()} patients, {shared} of whom are also in the {len(train)} images that remain for training, "
        "as far as file names tell."
    )
    found = [finding for finding in audited if finding.verdict != "fine"]
    return sentences + [
        f"Audit, {finding.verdict}: {finding.check}. {finding.says} Remedy: {finding.remedy}."
        for finding in found
    ]


def about_children(files: pd.DataFrame) -> list[str]:
    """Return how many children stand behind the test images, which is what counts."""
    test = files[files["folder"] == "test"]
    kinds = ", ".join(
        f"{KIND_NAMES[kind]} {count}"
        for kind, count in test.groupby("subtype")["patient"].nunique().items()
    )
    return [
        f"Images of one child are alike, so what counts is children: the {len(test)} test images are of {test['patient'].nunique()} "
        f"patients by their names ({kinds})."
    ]


def about_sizes(files: pd.DataFrame) -> list[str]:
    """Return what the sizes of the files say, by split and by class."""
    if len(files[["width", "height"]].drop_duplicates()) == 1:
        width, height = files[["width", "height"]].iloc[0]
        return [
            f"Every file is {width} x {height} px. X-rays are not taken so: they were resized before they came here. Their own size and "
            "aspect are no longer recorded, though an aspect that was squashed may still show as distortion."
        ]
    means = files.groupby("folder", sort=False)[["width", "height"]].mean()
    sizes = ", ".join(
        f"{row.width:.0f} x {row.height:.0f} px in {row.Index}" for row in means.itertuples()
    )
    aspect = (files["width"] / files["height"]).groupby(files["label"]).mean()
    return [
        f"The mean size is {sizes}.",
        f"A NORMAL film is {aspect['NORMAL']:.2f} times as wide as high on average, one with PNEUMONIA {aspect['PNEUMONIA']:.2f} times.",
    ]


def about_fits(leaks: pd.DataFrame, fit: str) -> list[str]:
    """Return how much of a film's aspect each way of making it a square lets through."""
    if leaks.empty:
        return [
            "All files here have one aspect, so the ways do not differ. If they were squashed from films of different aspect, that is "
            "still in the picture as distortion; a model may read it, and it cannot be measured here."
        ]
    areas = ", ".join(f"{row.AUROC:.3f} after {row.fit}" for row in leaks.itertuples())
    return [
        f"How well a linear model tells a wide film from a narrow one by 16 x 16 of its pixels, as AUROC: {areas} (0.5 is not at all).",
        "Squash distorts the chest by the aspect, pad shows it as black bars, and crop hides it but cuts the sides of wide films.",
        f"This run uses {fit}. It matters where the classes differ in aspect; stretching in augmentation is meant to blur it.",
    ]


def audit_table(audited: list[Finding]) -> pd.DataFrame:
    """Return what the audit looked for, its verdict, what it found and the remedy."""
    rows = [[finding.verdict, finding.check, finding.says, finding.remedy] for finding in audited]
    return pd.DataFrame(rows, columns=["verdict", "looked for", "found", "remedy"])


def audit_files(audited: list[Finding]) -> pd.DataFrame:
    """Return the files that the audit names; those joined by = belong together."""
    rows = [[finding.check, finding.verdict, name] for finding in audited for name in finding.files]
    return pd.DataFrame(rows, columns=["looked for", "verdict", "files"])


def _against_published(split: str, counts: dict[str, int]) -> str:
    expected = COUNTS[split]
    if counts == expected:
        return f"{split} holds as many images as were published: {counts['NORMAL']} NORMAL and {counts['PNEUMONIA']} PNEUMONIA."
    return (
        f"{split} holds other numbers than were published: {counts['NORMAL']} NORMAL and {counts['PNEUMONIA']} "
        f"PNEUMONIA here, {expected['NORMAL']} and {expected['PNEUMONIA']} published."
    )
