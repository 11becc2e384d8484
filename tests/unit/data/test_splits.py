"""Validation is split by patient, and holds films that contradict their class."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_utils.data import dataset, looks
from cxr_utils.data.manifest import labels_of, read_manifest
from cxr_utils.data.splits import assign_splits, breakdown, carve_validation, children
from cxr_utils.parameters import Data, UsageError


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_on_both_sides(phantom_root, seed):
    files = carve_validation(read_manifest(phantom_root).files, Data(validation_fraction=0.2), seed)
    splits = {split: set(part["patient"]) for split, part in files.groupby("split")}
    assert set(splits) == {"train", "validation", "val", "test"}
    assert not splits["train"] & splits["validation"]
    train = files[files["folder"] == "train"]
    share = train.groupby("subtype")["split"].apply(lambda split: (split == "validation").mean())
    assert share.between(0.15, 0.35).all()
    assert (files["split"] == "validation").sum() == (train["split"] == "validation").sum()


def test_split_repeats_with_its_seed(phantom_root):
    files = read_manifest(phantom_root).files
    splits = [
        carve_validation(files, Data(validation_fraction=0.2), seed)["split"].tolist()
        for seed in (1, 1, 2)
    ]
    assert splits[0] == splits[1] != splits[2]


def test_no_number_on_both_sides(phantom_root):
    """The phantom numbers bacterial and viral patients alike, as the published set does."""
    files = carve_validation(read_manifest(phantom_root).files, Data(validation_fraction=0.2), 1)
    numbers = files["patient"].str.extract(r"^(person\d+)_", expand=False)
    splits = {
        split: set(numbers[files["split"] == split].dropna()) for split in ("train", "validation")
    }
    assert splits["validation"] and not splits["train"] & splits["validation"]


@pytest.mark.parametrize("seed", range(6))
def test_a_patient_with_most_images_does_not_empty_a_class(seed):
    rows = [("NORMAL", "a", "normal")] + [("NORMAL", "b", "normal")] * 12
    rows += [("PNEUMONIA", f"person{number}_virus", "virus") for number in range(20)]
    files = pd.DataFrame(rows, columns=["label", "patient", "subtype"]).assign(
        folder="train", path=range(33)
    )
    carved = carve_validation(files, Data(validation_fraction=0.15), seed)
    assert carved.groupby("label")["split"].nunique().tolist() == [2, 2]


@pytest.fixture
def films():
    """200 patients of two films, half of them sick, one in five looking like the other class."""
    number = np.arange(400) // 2
    names = [f"person{n}_virus" if n < 100 else f"NORMAL2-IM-{n:04d}" for n in number]
    sick = number < 100
    table = pd.DataFrame({"path": [f"{name}_{i}" for i, name in enumerate(names)]})
    table = table.assign(folder="train", patient=names, subtype=np.where(sick, "virus", "normal"))
    table["label"] = np.where(sick, "PNEUMONIA", "NORMAL")
    return table, np.where(number % 5 == 0, 0.2, 0.9)


def _patients(films, rows):
    return set(children(films[rows]))


def test_half_of_the_patients_that_contradict_their_class_are_set_aside(films):
    table, own = films
    plain = assign_splits(table, Data(validation="patients"), 3, own)
    found = assign_splits(table, Data(validation="adverse"), 3, own)
    assert (found["split"] == "validation").equals(
        (plain["split"] == "validation") | found["adverse"]
    )
    assert not plain["adverse"].any() and (own[found["adverse"]] < 0.5).all()
    for label in ("NORMAL", "PNEUMONIA"):
        contradict = (own < 0.5) & (table["label"] == label)
        left = len(_patients(table, contradict & (found["split"] == "train")))
        aside = len(_patients(table, found["adverse"] & (table["label"] == label)))
        assert aside == (left + aside) // 2 > 0
    train, validation = (_patients(table, found["split"] == n) for n in ("train", "validation"))
    assert not train & validation
    again, other = (assign_splits(table, Data(), seed, own)["adverse"] for seed in (3, 4))
    assert again.equals(found["adverse"]) and not other.equals(again)


def test_a_weighted_validation_has_as_many_films_of_unlike_looks_as_training_data(films):
    table, own = films
    found = assign_splits(table, Data(), 3, own)
    held = found["split"] == "validation"
    for label in ("NORMAL", "PNEUMONIA"):
        of_class = table["label"] == label
        share = np.average(own[held & of_class] < 0.5, weights=found["weight"][held & of_class])
        assert share == pytest.approx((own[of_class] < 0.5).mean())
        assert (own[held & of_class] < 0.5).mean() > 1.5 * share
    assert (found["weight"][~held] == 1).all()
    fewer = assign_splits(table, Data(training_share=0.5), 3, own)
    assert fewer["weight"].equals(found["weight"])
    for random in (Data(validation="patients"), Data(folds=5)):
        assert (assign_splits(table, random, 3, own)["weight"] == 1).all()
    named = np.where(np.arange(400) % 40 < 4, "validation", "train")
    assert (assign_splits(table.assign(folder=named), Data(), 3, own)["weight"] == 1).all()
    named = np.where(np.arange(400) % 40 < 4, "val", "train")
    kept = assign_splits(table.assign(folder=named), Data(validation="val"), 3, own)
    assert (kept["weight"] == 1).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table, own: own * np.nan,  # patients too few, or looks that tell nothing
        lambda table, own: np.full(len(own), 0.9),
        lambda table, own: np.where(table["label"] == "NORMAL", 0.9, own),
        lambda table, own: np.where(table["patient"] == "person5_virus", 0.2, 0.9),
    ],
)
def test_without_films_that_contradict_both_classes_patients_are_drawn_at_random(films, spoil):
    """One that is the only one of its class stays in training."""
    table, own = films
    found = assign_splits(table, Data(), 3, spoil(table, own))
    assert found["split"].equals(assign_splits(table, Data(validation="patients"), 3)["split"])
    assert (found["weight"] == 1).all()
    with pytest.raises(UsageError, match=r"adverse: .* take data.validation=patients"):
        assign_splits(table, Data(validation="adverse"), 3, spoil(table, own))


def test_a_validation_folder_is_kept(films):
    table, own = films
    table = table.assign(folder=np.where(np.arange(400) % 40 < 4, "validation", "train"))
    assert assign_splits(table, Data(), 3, own)["split"].equals(table["folder"].rename("split"))


def _drawn(films, bright):
    """Grey squares, those of some films brighter; nothing else tells them apart."""
    rng = np.random.default_rng(0)
    pictures = rng.normal(100, 5, (len(films), 32, 32)) + 40 * bright[:, None, None]
    about = {"width": 64, "height": 64, "mode": "L", "bytes": rng.integers(900, 1100, len(films))}
    return films.assign(**about), pictures.astype(np.uint8)


def test_a_film_that_looks_like_the_other_class_is_found(films):
    table, own = films
    sick = labels_of(table) == 1
    found = looks.own_class(*_drawn(table, sick ^ (own < 0.5)))
    assert ((found < 0.5) == (own < 0.5)).mean() > 0.9


def test_films_of_unlike_looks_reach_validation_and_training(planted, smoke):
    """Of a phantom in which PNEUMONIA is brighter, but for one patient in four, who is darker."""
    files = read_manifest(planted).files
    number = pd.factorize(children(files))[0]
    bright = (labels_of(files) == 1) ^ (number % 4 == 0)
    for name, lifted in zip(files["path"], bright, strict=True):
        with Image.open(planted / name) as image:
            grey = np.asarray(image) // 2 + 100 * np.uint8(lifted)
        Image.fromarray(grey).save(planted / name, quality=95)
    source = Data(source=str(planted))
    data = dataset.open_data(smoke.model_copy(update={"data": source}), 48)
    files, train = data.files, data.files["split"] == "train"
    assert set(files[files["adverse"]]["label"]) == {"NORMAL", "PNEUMONIA"}
    assert (files[files["adverse"]]["split"] == "validation").all()
    assert not set(children(files[train])) & set(children(files[files["split"] == "validation"]))
    assert files["own_class"].notna().equals(train)
    unlike = data.splits["train"].files["own_class"] < 0.5
    assert unlike.any() and (unlike == (bright ^ (labels_of(files) == 1))[train]).mean() > 0.8


def test_looks_that_tell_nothing_contradict_nothing(films):
    table, _ = films
    chance = np.random.default_rng(1).random(400) < 0.5
    assert np.isnan(looks.own_class(*_drawn(table, chance))).all()
    few = table.iloc[170:230].reset_index(drop=True)  # 15 patients of each class, less one
    few = few[few["patient"] != few["patient"].iloc[0]].reset_index(drop=True)
    assert np.isnan(looks.own_class(*_drawn(few, labels_of(few) == 1))).all()


def test_each_patient_is_in_one_fold(films):
    table, own = films
    folds = [assign_splits(table, Data(folds=5, fold=n), 3, own) for n in range(1, 6)]
    held = np.array([found["split"] == "validation" for found in folds])
    assert (held.sum(axis=0) == 1).all() and not any(found["adverse"].any() for found in folds)
    assert not any(_patients(table, one) & _patients(table, ~one) for one in held)
    assert held.sum(axis=1).tolist() == [80] * 5
    other = assign_splits(table, Data(folds=5, fold=1), 4)["split"]
    assert not other.equals(folds[0]["split"])
    with pytest.raises(UsageError, match=r"validation of its own; take data.folds=0"):
        assign_splits(table.assign(folder="validation"), Data(folds=5), 3)


def test_fewer_training_patients_are_some_of_the_more_and_validation_stays(films):
    table, own = films
    whole, half, fifth = (assign_splits(table, Data(training_share=share), 3, own)["split"]
                          for share in (1.0, 0.5, 0.2))  # fmt: skip
    learned = [_patients(table, split == "train") for split in (whole, half, fifth)]
    assert learned[0] > learned[1] > learned[2]
    assert [round(len(one) / len(learned[0]), 1) for one in learned] == [1.0, 0.5, 0.2]
    assert ((fifth == "validation") == (whole == "validation")).all()
    assert set(fifth) == {"train", "validation", "unused"}
    assert breakdown(table.assign(split=fifth), "split").index.get_level_values(0)[-1] == "unused"


@pytest.mark.parametrize("asked", [{"folds": 1}, {"fold": 2}, {"folds": 5, "fold": 6}])
def test_a_fold_is_one_of_the_folds(asked):
    with pytest.raises(ValueError, match="take two folds or more, and one of them"):
        Data(**asked)
