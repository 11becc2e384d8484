"""Parts of films are hidden, and what a network loses by it shows what it looks at."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr_utils.models import explanation
from cxr_utils.reporting import tables, text


def test_the_parts_cover_a_film_between_them_and_do_not_overlap():
    covered = sum(explanation.part(name, 96).astype(int) for name in explanation.PARTS)
    assert (covered == 1).all()
    shares = {name: explanation.part(name, 96).mean() for name in explanation.PARTS}
    assert shares == pytest.approx(
        {"border": 7 / 16, "middle third": 1 / 4, "outer thirds": 5 / 16}
    )


def test_what_is_hidden_has_the_mean_of_what_is_in_view():
    films = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    for name in explanation.PARTS:
        here = explanation.part(name, 48)
        only = explanation.seen(films, f"only the {name}")
        without = explanation.seen(films, f"without the {name}")
        assert (only[:, here] == films[:, here]).all() and (
            only[:, ~here] == films[:, here].mean(axis=1).round()[:, None]
        ).all()
        assert (without[:, ~here] == films[:, ~here]).all()
        assert (without[:, here] == films[:, ~here].mean(axis=1).round()[:, None]).all()
    assert explanation.seen(films, "the whole film") is films


@pytest.mark.parametrize("looked_at", explanation.PARTS)
def test_a_network_that_reads_one_part_loses_all_without_it(looked_at):
    """Its films are noise but for a shade of that part, which goes with the label."""
    rng, labels = np.random.default_rng(1), np.arange(200) % 2
    films = rng.normal(120, 20, (200, 48, 48))
    here = explanation.part(looked_at, 48)
    films[:, here] += (9 * labels + rng.normal(0, 3, 200))[:, None]
    films = np.clip(films, 0, 255).astype(np.uint8)
    reads = SimpleNamespace(
        predict_on_batch=lambda batch: batch.numpy()[:, here, 0].mean(axis=1, keepdims=True)
    )
    views = explanation.occluded_logits(reads, films, flips=False)
    part = pd.DataFrame({"label": np.where(labels, "PNEUMONIA", "NORMAL")})
    table = tables.occlusion(views, part.assign(patient=np.arange(200)))
    assert list(table.index) == list(explanation.VIEWS)
    assert table.at["the whole film", "AUROC"] > 0.95
    assert table.at["the whole film", "AUROC lost"] == 0
    assert table.at[f"only the {looked_at}", "AUROC"] > 0.9
    lost = table["AUROC lost"].drop("the whole film").filter(like="without")
    assert lost.idxmax() == f"without the {looked_at}" and lost.max() > 0.2
    said = text.render("occlusion", **text.occlusion(table, "A network"))
    assert ("as it should" in said) == (looked_at == "outer thirds")
    assert ("outside the lungs" in said) == (looked_at == "border")
    assert ("hardly pneumonia" in said) == (looked_at == "border")


def test_what_chance_may_have_made_is_no_verdict():
    labels = np.arange(60) % 2
    part = pd.DataFrame({"label": np.where(labels, "PNEUMONIA", "NORMAL"), "patient": range(60)})
    noise = np.random.default_rng(2).normal(size=(len(explanation.VIEWS), 60))
    for frame, names in ((part, "none"), (part.assign(patient=labels), "undefined")):
        views = dict(zip(explanation.VIEWS, labels + noise, strict=True))
        table = tables.occlusion(views, frame)
        said = text.render("occlusion", **text.occlusion(table, "A network"))
        assert "as it should" not in said and "outside the lungs" not in said
        assert ("undefined" in said) == (names == "undefined")
    certain = dict.fromkeys(explanation.VIEWS, labels.astype(float))
    found = text.occlusion(tables.occlusion(certain, part), "A network")
    assert not found["lungs_most"] and "hardly pneumonia" not in text.render("occlusion", **found)
