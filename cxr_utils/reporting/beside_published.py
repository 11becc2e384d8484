"""A run beside the original project and other published work: tables and sentences, with protocols and caveats."""

from __future__ import annotations

from typing import Any

import pandas as pd

from . import published
from .findings import in_place_of, with_interval
from .names import MODEL_NAMES, SCORES, SHOWN, SPLIT_NAMES


def published_table(
    models: dict[str, Any], cards: dict[str, Any], data: dict[str, Any]
) -> pd.DataFrame:
    """Return the original project's scores, this run's with intervals, and those of others, each with protocol and caveat.

    Parameters
    ----------
    models : dict
        Model -> split -> scores; empty where this run is not comparable, and then its rows are left out.
    cards : dict
        Model -> its card.
    data : dict
        ``data`` of ``metrics.json``.
    """
    rows = [_published_row(score) for score in published.ORIGINAL.values()]
    for model, splits in models.items():
        test, card = splits["test"], cards[model]
        row = {
            "who": f"this run, {MODEL_NAMES[model]}{in_place_of(model, card['network'])}",
            "test images": str(test["n"]),
        }
        row |= {SCORES[score]: with_interval(test, score) for score in SHOWN}
        rows.append(row | {"protocol and caveat": _own_caveat(test, card, data)})
    return pd.DataFrame(rows + [_published_row(score) for score in published.OTHERS])


def _published_row(score: published.Score) -> dict[str, str]:
    row = {"who": score.who, "test images": str(published.TEST_IMAGES)}
    for name in SHOWN:
        value = getattr(score, name)
        row[SCORES[name]] = "–" if value is None else f"{value:.3f}"
    return row | {"protocol and caveat": "; ".join(filter(None, (score.note, score.source)))}


def _own_caveat(test: dict[str, Any], card: dict[str, Any], data: dict[str, Any]) -> str:
    whole = published.TEST_IMAGES
    width, height = data["median_size"]
    part = (
        ""
        if test["n"] == whole
        else f"only {test['n']} of the {whole} published test images, so not row for row comparable; "
    )
    return (
        f"{part}files of {width} x {height} px (median), seen at {card['image_size']} x {card['image_size']}; weights at the start: "
        f"{card['weights'].split(',')[0]}; threshold from "
        f"{'validation, split by patient' if card['chosen_by'] == 'stress_loss' else 'val'}"
    )


def beside_original(models: dict[str, Any]) -> pd.DataFrame:
    """Return loss and accuracy of each model and split beside what the original project reported for it."""
    rows = []
    for model, splits in models.items():
        original = published.ORIGINAL[model]
        reported = {"val": original.val_accuracy, "test": original.accuracy}
        for split, entry in splits.items():
            found = {
                "accuracy": with_interval(entry, "accuracy"),
                "log loss": with_interval(entry, "loss"),
            }
            theirs = {
                "original's accuracy": reported.get(split),
                "original's log loss": original.loss if split in reported else None,
            }
            rows.append(
                {"model": MODEL_NAMES[model], "split": SPLIT_NAMES[split], **found, **theirs}
            )
    return pd.DataFrame(rows).astype(object).fillna("–")


def _against_original(model: str, test: dict[str, Any]) -> str:
    original = published.ORIGINAL[model]
    images = published.TEST_IMAGES
    gap = test["accuracy"] - original.accuracy
    word = "above" if gap > 0 else "below" if gap < 0 else "at"
    caveat = (
        ""
        if test["n"] == images
        else f", though on {test['n']} of its {images} test images, so not row for row"
    )
    return (
        f"{MODEL_NAMES[model]}: test accuracy is {test['accuracy']:.3f}, {abs(gap) * 100:.1f} "
        f"percentage points {word} the original project's {original.accuracy:.3f}{caveat}."
    )


def about_published(models: dict[str, Any]) -> list[str]:
    """Return how each model of a comparable run stands to the original project and to the reference with all four scores."""
    reference = next(
        score
        for score in published.OTHERS
        if all(getattr(score, name) is not None for name in SHOWN)
    )
    sentences = []
    for model, splits in models.items():
        test = splits["test"]
        sentences.append(_against_original(model, test))
        others = ", ".join(
            f"{SCORES[name]} {with_interval(test, name)} against {getattr(reference, name):.3f}"
            for name in SHOWN
        )
        sentences.append(f"{MODEL_NAMES[model]} beside {reference.who}: {others}.")
    return sentences
