"""The model card of a run (Mitchell et al. 2019, doi:10.1145/3287560.3287596), from its data, parameters and scores."""

from __future__ import annotations

from typing import Any

from ..data.splits import chosen_on
from . import published
from .findings import number, with_interval
from .names import MODEL_NAMES, POINT_NAMES, SCORES, SPLIT_NAMES

CHANGED = ("sensitivity", "specificity", "auroc")
SYNTHETIC_USE = (
    "These models were trained on SYNTHETIC drawings. They show that the analysis runs; they know nothing of children's lungs and must "
    "not be applied to radiographs."
)
RESEARCH_USE = (
    "For teaching, and for research into methods on this data. Not a medical device: nobody may be treated, or left untreated, by its "
    "answers."
)
FAIRNESS = {
    "synthetic": "The children were drawn: there is nothing to be fair to.",
    "published": "Neither age nor sex, origin, weight or severity of a child is given, and no image is marked with its machine. "
    "Whether the models do worse for some children cannot be known from this data, so no claim is made. The one division there is, "
    "bacterial or viral, is in the table of subtypes.",
    "medmnist": "Nothing is given of a child but the image. Whether the models do worse for some children cannot be known from this "
    "data, so no claim is made.",
    "own": "This analysis knows no more of a child than its image and its file's name. Whether the models do worse for some children "
    "was not looked at.",
}


def sections(
    models: dict[str, Any], cards: dict[str, Any], data: dict[str, Any], standing: str
) -> dict[str, list[str]]:
    """Return the model card; title -> sentences.

    Parameters
    ----------
    models, cards : dict
        Both models' scores and cards; none of them may be missing.
    data : dict
        ``data`` of ``metrics.json``.
    standing : str
        As `published.standing` returns it.
    """
    synthetic = standing == "synthetic"
    counts = ", ".join(
        f"{sum(by_class.values())} in {split}" for split, by_class in data["counts"].items()
    )
    return {
        "Intended use": [SYNTHETIC_USE if synthetic else RESEARCH_USE],
        "Models": [_model(model, cards[model]) for model in models],
        "Data": [f"{published.STANDINGS[standing]} Usable files: {counts}. {_split(models)}"],
        "Scores on test": [
            _scores(model, splits["test"], synthetic) for model, splits in models.items()
        ],
        "Operating point": [
            _operating_point(model, splits, cards[model]) for model, splits in models.items()
        ],
        "Limits": _limits(models, standing),
        "Fairness": [FAIRNESS[standing]],
    }


def _model(model: str, card: dict[str, Any]) -> str:
    return (
        f"{MODEL_NAMES[model]}: {card['network']}, {card['parameters']:,} parameters. Input: one image, {card['preprocessing']}. "
        f"Output: {card['output']}. Weights at the start: {card['weights'].split(' (')[0]}. Keras {card['versions']['keras']}, "
        f"TensorFlow {card['versions']['tensorflow']}."
    )


def _split(models: dict[str, Any]) -> str:
    splits = next(iter(models.values()))
    chosen = chosen_on(splits)
    return (
        f"Choices were made on “{SPLIT_NAMES[chosen]}” ({splits[chosen]['n']} images of {splits[chosen]['patients'] or 'unknown'} "
        f"patients); test ({splits['test']['n']} images) was scored only."
    )


def _scores(model: str, test: dict[str, Any], synthetic: bool) -> str:
    drawn = "SYNTHETIC " if synthetic else ""
    found = ", ".join(
        f"{SCORES[name]} {with_interval(test, name)}" for name in ("accuracy", *CHANGED)
    )
    return f"{MODEL_NAMES[model]}, {test['n']} {drawn}images: {found}."


def _operating_point(model: str, splits: dict[str, Any], card: dict[str, Any]) -> str:
    test = splits["test"]
    share = sum(test["confusion_matrix"][1]) / test["n"]
    ppv = f" PPV {with_interval(test, 'ppv')} holds where {share:.1%} have PNEUMONIA, as here; elsewhere move the slider."
    return (
        f"{MODEL_NAMES[model]}: PNEUMONIA from a score of {test['threshold']:.3f} on ({POINT_NAMES[test['operating_point']]}), after "
        f"division of the logit by {card['temperature']:.3f}.{ppv if test['ppv'] is not None else ''}"
    )


def _limits(models: dict[str, Any], standing: str) -> list[str]:
    if standing == "synthetic":
        return ["Everything: what was learned here is how the phantom draws."]
    limits = []
    for model, splits in models.items():
        chosen = chosen_on(splits)
        pairs = [
            f"{SCORES[name]} {number(splits[chosen], name)} to {number(splits['test'], name)}"
            for name in CHANGED
        ]
        limits.append(
            f"{MODEL_NAMES[model]} from {SPLIT_NAMES[chosen]} to test: {', '.join(pairs)}. Elsewhere it may be less."
        )
    if standing in ("published", "medmnist"):
        limits.append(
            "All radiographs are frontal ones of children of one to five years at one hospital (Guangzhou); those of poor quality were "
            "removed before publication. Nothing is known of adults, of lateral views, of other machines, or of other diseases: every "
            "image is NORMAL or PNEUMONIA."
        )
        limits.append(
            "Labels are those of physicians who looked at the images, not of a laboratory: the models learn what was seen, mistakes "
            "included."
        )
        limits.append(
            "File size, sharpness and the rim of the picture tell the classes apart to a degree (report 1 measures it), so part of a "
            "score may be bought by that. Whether some test patients are also in training cannot be told from the names for sure; "
            "reports 2 and 3 score test without the doubtful ones."
        )
    if standing == "own":
        limits.append(
            "Where these images come from is not known to this analysis; whoever uses the models must find out."
        )
    return limits
