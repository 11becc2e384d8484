"""Defects planted in the phantom are found, with their files; a clean phantom raises no warning."""

import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cxr_utils import profiles
from cxr_utils.data import dataset, looks
from cxr_utils.evaluation import audit, shortcuts
from cxr_utils.reporting import tables


def _findings(root, *overrides):
    data = dataset.open_data(profiles.load("smoke", overrides, str(root)), dataset.OVERVIEW_SIZE)
    return {finding.check: finding for finding in audit.audit(data)}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_clean_phantom_raises_no_warning(seed):
    found = _findings("phantom", f"data.phantom_seed={seed}", "data.phantom_images=300")
    assert {finding.verdict for finding in found.values()} <= {"fine", "note"}
    assert (
        found["exact duplicates"].verdict
        == found["labels of twins"].verdict
        == found["patients across splits"].verdict
        == "fine"
    )


def _first(root, folder):
    return min((root / folder).glob("*.jpeg"))


def test_a_duplicate_across_splits(planted):
    original = _first(planted, "test/NORMAL")
    shutil.copy(original, planted / "train" / "NORMAL" / "IM-9999-0001.jpeg")
    finding = _findings(planted)["exact duplicates"]
    assert finding.verdict == "warning" and "1 across train and test" in tables.says(finding)
    assert set(finding.files[0].split(" = ")) == {
        "train/NORMAL/IM-9999-0001.jpeg",
        f"test/NORMAL/{original.name}",
    }


def test_a_re_encoded_near_duplicate(planted):
    original = _first(planted, "test/PNEUMONIA")
    with Image.open(original) as image:
        image.resize((image.width * 2, image.height * 2)).convert("RGB").save(
            planted / "train" / "PNEUMONIA" / "person9999_virus_1.jpeg", quality=40
        )
    found = _findings(planted)
    assert (
        found["exact duplicates"].verdict == "fine"
        and found["near duplicates"].verdict == "warning"
    )
    assert set(found["near duplicates"].files[0].split(" = ")) == {
        "train/PNEUMONIA/person9999_virus_1.jpeg",
        f"test/PNEUMONIA/{original.name}",
    }


def test_a_patient_across_splits(planted):
    child = _first(planted, "train/NORMAL")
    moved = child.with_stem(child.stem[:-1] + "9").name
    _first(planted, "test/NORMAL").rename(planted / "test" / "NORMAL" / moved)
    finding = _findings(planted)["patients across splits"]
    assert finding.verdict == "warning" and tables.says(finding).startswith("1 of ")
    assert {f"train/NORMAL/{child.name}", f"test/NORMAL/{moved}"} <= set(
        finding.files[0].split(" = ")
    )


def test_twins_with_different_labels(planted):
    original = _first(planted, "train/NORMAL")
    shutil.copy(original, planted / "train" / "PNEUMONIA" / "person9999_virus_1.jpeg")
    finding = _findings(planted)["labels of twins"]
    assert finding.verdict == "warning"
    assert set(finding.files[0].split(" = ")) == {
        f"train/NORMAL/{original.name}",
        "train/PNEUMONIA/person9999_virus_1.jpeg",
    }


def _change(root, label, change):
    for file in root.glob(f"*/{label}/*.jpeg"):
        with Image.open(file) as image:
            change(image).save(file, quality=90)


def test_a_brightness_shortcut(planted):
    _change(planted, "NORMAL", lambda image: image.point(lambda value: value * 0.5))
    finding = _findings(planted)["single traits"]
    assert (
        finding.verdict == "warning"
        and "brightness" in tables.says(finding).split(":")[1]
        and tables.remedy(finding)
    )


def test_a_size_shortcut(planted):
    _change(
        planted,
        "PNEUMONIA",
        lambda image: image.resize((image.width * 5 // 4, image.height * 5 // 4)),
    )
    found = _findings(planted)
    assert found["metadata alone"].verdict == found["single traits"].verdict == "warning"
    assert "height" in tables.says(found["single traits"])


def test_a_shortcut_at_the_border(planted):
    """A burnt-in mark in the corner of every PNEUMONIA film."""

    def marked(image):
        grey = np.array(image)
        grey[: grey.shape[0] // 10, : grey.shape[1] // 10] = 255
        return Image.fromarray(grey)

    _change(planted, "PNEUMONIA", marked)
    assert _findings(planted)["border alone"].verdict == "warning"


def test_damaged_files_are_a_warning_and_hidden_ones_a_note(planted):
    (planted / "train" / "NORMAL" / ".DS_Store").touch()
    assert _findings(planted)["usable files"].verdict == "note"
    (planted / "train" / "NORMAL" / "empty.jpeg").touch()
    finding = _findings(planted)["usable files"]
    assert finding.verdict == "warning" and any(
        name.startswith("train/NORMAL/empty.jpeg: ") for name in finding.files
    )


def test_what_each_fit_lets_through_of_an_aspect_shortcut(tmp_path):
    """Planted: wide films are filed as PNEUMONIA whatever they show. Crop hides that from a model,
    squash and pad do not.
    """
    drawn = dataset.open_data(
        profiles.load("default", ["data.phantom_images=600"], "phantom"), dataset.OVERVIEW_SIZE
    )
    for row in drawn.files.itertuples():
        label = "PNEUMONIA" if row.width > 1.15 * row.height else "NORMAL"
        target = tmp_path / row.folder / label / f"case{row.Index}.jpeg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn.manifest.root / row.path, target)
    found = {}
    for fit in ("squash", "crop", "pad"):
        data = dataset.open_data(profiles.load("default", [f"data.fit={fit}"], str(tmp_path)), 16)
        train, test = data.splits["train"], data.splits["test"]
        model = LogisticRegression(C=1e-6, max_iter=1000).fit(
            train.pixels[:].reshape(len(train), -1), train.labels
        )
        found[fit] = roc_auc_score(
            test.labels, model.decision_function(test.pixels[:].reshape(len(test), -1))
        )
    assert found["crop"] < 0.6 < 0.8 < min(found["squash"], found["pad"])


def test_class_means_are_those_of_the_pixels(smoke):
    split = dataset.open_data(smoke, 48).splits["train"]
    pixels, sick = split.pixels[:], split.labels == 1
    means = shortcuts.class_means(split)
    assert np.allclose(means["difference"], pixels[sick].mean(0) - pixels[~sick].mean(0), atol=1e-6)


def test_metadata_alone_find_a_planted_trait(smoke):
    """On patients the classifier has not seen: chance without a shortcut, near 1 with one."""
    data = dataset.open_data(smoke, dataset.OVERVIEW_SIZE)
    blind = looks.traits(data.files, data.stored).assign(**dict.fromkeys(looks.METADATA, 0.0))
    found = shortcuts.reach(shortcuts.metadata_scores(blind, data.files), data.files)
    assert abs(found.seen - 0.5) < 0.1
    planted = blind.assign(width=1000.0 * (data.files["label"] == "PNEUMONIA"))
    found = shortcuts.reach(shortcuts.metadata_scores(planted, data.files), data.files)
    assert found.seen > 0.95 and found.test > 0.95
    assert found.low <= found.test <= found.high or (found.test == 1 and np.isnan(found.low))


def test_every_warning_and_note_has_a_remedy(planted):
    shutil.copy(_first(planted, "test/NORMAL"), planted / "train" / "PNEUMONIA" / "x.jpeg")
    for finding in _findings(planted).values():
        assert bool(tables.remedy(finding)) == (finding.verdict != "fine"), finding


def test_copies_of_one_film_are_one_group(planted):
    """Two exact copies and two re-encodings of a film in another split: one group each way, one
    pair of twins.
    """
    original = _first(planted, "test/NORMAL")
    for number in (1, 2):
        shutil.copy(original, planted / "train" / "NORMAL" / f"IM-990{number}-0001.jpeg")
    with Image.open(original) as image:
        for number, quality in ((1, 50), (2, 70)):
            image.save(
                planted / "train" / "PNEUMONIA" / f"person990{number}_virus_1.jpeg", quality=quality
            )
    found = _findings(planted)
    assert (
        len(found["exact duplicates"].files)
        == len(found["near duplicates"].files)
        == len(found["labels of twins"].files)
        == 1
    )
    assert found["labels of twins"].files[0].count(" = ") == 4


def test_a_number_used_twice_is_noted(planted):
    """The person of a bacterial film in train has the number of one with a viral film in test."""
    number = _first(planted, "train/PNEUMONIA").name.split("_")[0]
    shutil.move(
        _first(planted, "test/PNEUMONIA"),
        planted / "test" / "PNEUMONIA" / f"{number}_virus_9999.jpeg",
    )
    (planted / "phantom.json").unlink()
    for file in planted.glob("*/*/*.jpeg"):
        with Image.open(file) as image:
            image.save(file, quality=95, comment=b"")  # no longer known as drawn
    finding = _findings(planted)["reused patient numbers"]
    assert finding.verdict == "note" and "films of test" in tables.says(finding)


def test_names_that_tell_no_patient_are_noted(planted):
    for number, file in enumerate(sorted(planted.glob("*/*/*.jpeg"))):
        file.rename(file.with_name(f"case{number}.jpeg"))
    assert _findings(planted)["patients across splits"].verdict == "note"


def test_prior_shift_is_noted_and_its_absence_fine(planted):
    assert _findings(planted)["prior shift"].verdict == "note"
    sick = sorted((planted / "train" / "PNEUMONIA").glob("*.jpeg"))
    for file in sick[: len(sick) - 53]:  # 31 NORMAL and 53 PNEUMONIA, as 11 to 19 in test
        file.unlink()
    assert _findings(planted)["prior shift"].verdict == "fine"


def test_a_handful_of_images_is_too_few_to_tell(planted):
    for folder in planted.glob("t*/*"):
        for file in sorted(folder.glob("*.jpeg"))[6:]:
            file.unlink()
    found = _findings(planted)
    assert found["metadata alone"].verdict == found["border alone"].verdict == "note"
    assert "too few" in tables.says(found["metadata alone"])
