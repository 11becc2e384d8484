"""Intervals and tests against formulas, other libraries, and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from cxr_utils.evaluation import intervals
from cxr_utils.evaluation.results import best_interval, evaluate


def _sample(seed=0, n=300, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = 1 / (1 + np.exp(-rng.normal(labels * 2 - 1, 1.5)))
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_specificities_at_a_sensitivity_equal_those_of_scikit_learns_roc(ties):
    labels, scores = _sample(2, ties=ties)
    weights = np.random.default_rng(3).integers(0, 4, (5, len(labels))).astype(float)
    wanted = (0.8, 0.95)
    found = intervals.weighted_specificities(labels == 1, scores, weights, wanted)
    for row, weight in zip(found, weights, strict=True):
        alarms, hits, _ = sk.roc_curve(labels, scores, sample_weight=weight)
        best = [1 - alarms[hits >= sensitivity - 1e-9].min() for sensitivity in wanted]
        assert row == pytest.approx(best)
    for one_class in (labels >= 0, labels < 0):
        found = intervals.weighted_specificities(one_class, scores, weights, wanted)
        assert np.isnan(found).all()


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_scores_equal_scikit_learn_on_repeated_images(ties):
    """Weights are how often an image is in a resample: scoring the repeated images gives the
    same."""
    labels, scores = _sample(ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, (5, len(labels)))
    found = intervals.weighted_scores(labels, scores, 0.6, weights.astype(float))
    for number, row in enumerate(weights):
        y, p = np.repeat(labels, row), np.repeat(scores, row)
        called = p >= 0.6
        expected = {
            "auroc": sk.roc_auc_score(y, p),
            "auprc": sk.average_precision_score(y, p),
            "accuracy": sk.accuracy_score(y, called),
            "sensitivity": sk.recall_score(y, called),
            "specificity": sk.recall_score(1 - y, ~called),
            "ppv": sk.precision_score(y, called),
            "npv": sk.precision_score(1 - y, ~called),
            "f1": sk.f1_score(y, called),
            "brier": sk.brier_score_loss(y, p),
            "loss": sk.log_loss(y, np.clip(p, 1e-7, 1 - 1e-7)),
        }
        assert {name: values[number] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )


def test_patients_are_resampled_whole():
    weights = intervals.patient_weights(np.array(["a", "b", "a", "c", "b"]), 50, 0)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all() and weights.std() > 0


def test_intervals_can_be_repeated_from_the_predictions_alone():
    """Sorted patients, default_rng(seed), one draw of all resamples, percentiles: a loop that a
    reader could write.
    """
    labels, scores = _sample(n=60)
    patients = np.array([f"person{number // 2}" for number in range(60)])
    names = sorted(set(patients))
    found = []
    for drawn in np.random.default_rng(7).integers(0, len(names), (100, len(names))):
        rows = np.concatenate([np.flatnonzero(patients == names[number]) for number in drawn])
        found.append(sk.roc_auc_score(labels[rows], scores[rows]))
    frame = pd.DataFrame(
        {
            "patient": patients,
            "label": np.where(labels, "PNEUMONIA", "NORMAL"),
            "subtype": "unknown",
            "score": scores,
        }
    )
    entry = evaluate(frame, {"half": 0.5}, "half", 100, 7)
    assert entry["ci95"]["auroc"] == pytest.approx(
        np.quantile(found, (0.025, 0.975)).tolist(), abs=1e-12
    )


@pytest.mark.parametrize("part, whole", [(0, 16), (9, 16), (16, 16), (195, 312)])
def test_wilson_by_the_formula(part, whole):
    share, z = part / whole, stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * whole)) / (1 + z**2 / whole)
    reach = z * np.sqrt(share * (1 - share) / whole + z**2 / (4 * whole**2)) / (1 + z**2 / whole)
    assert intervals.wilson(part, whole) == pytest.approx(
        [middle - reach, middle + reach], abs=1e-9
    )
    assert intervals.wilson(0, 0) is None


def test_mcnemar_is_the_sign_test_on_the_images_they_differ_on():
    first = np.array([True] * 90 + [False] * 4 + [True] * 15)
    second = np.array([True] * 90 + [True] * 4 + [False] * 15)
    alone, other, p = intervals.mcnemar(first, second)
    assert (alone, other) == (15, 4)
    assert p == pytest.approx(2 * stats.binom.cdf(4, 19, 0.5))
    assert intervals.mcnemar(first, first) == (0, 0, 1.0)


def _delong_by_hand(labels, scores, other=None):
    """DeLong et al. 1988, by loops over pairs."""
    sick, well = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def kernel(values):
        return np.array(
            [
                [
                    1.0 if values[i] > values[j] else 0.5 if values[i] == values[j] else 0.0
                    for j in well
                ]
                for i in sick
            ]
        )

    psi = kernel(scores) - (kernel(other) if other is not None else 0)
    return psi.mean(), np.sqrt(
        psi.mean(axis=1).var(ddof=1) / len(sick) + psi.mean(axis=0).var(ddof=1) / len(well)
    )


@pytest.mark.parametrize("ties", [False, True])
def test_delong_with_one_image_a_patient_is_delongs(ties):
    labels, scores = _sample(n=80, ties=ties)
    other = _sample(seed=5, n=80, ties=ties)[1] * 0.5 + scores * 0.5
    patients = np.arange(80)
    one, gap = (
        intervals.delong(labels, scores, patients),
        intervals.delong(labels, scores, patients, less=other),
    )
    assert (one.value, one.error) == pytest.approx(_delong_by_hand(labels, scores), abs=1e-12)
    assert (gap.value, gap.error) == pytest.approx(
        _delong_by_hand(labels, scores, other), abs=1e-12
    )
    assert one.value == pytest.approx(sk.roc_auc_score(labels, scores))
    statistic = stats.mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert one.value == pytest.approx(statistic / ((labels == 1).sum() * (labels == 0).sum()))
    assert intervals.delong(np.ones(4), scores[:4], np.arange(4)) is None


def test_a_patients_copies_add_no_certainty():
    """Every image three times: the same AUROC, and Obuchowski's error is that of the single images;
    DeLong's alone would shrink.
    """
    labels, scores = _sample(n=120)
    patients = np.arange(120)
    once = intervals.delong(labels, scores, patients)
    thrice = intervals.delong(*(np.tile(values, 3) for values in (labels, scores, patients)))
    naive = intervals.delong(np.tile(labels, 3), np.tile(scores, 3), np.arange(360))
    assert (thrice.value, thrice.error) == pytest.approx((once.value, once.error))
    assert naive.error < 0.7 * once.error


# Patients of a simulated hospital: their images share a part of what the model makes of them.
PATIENTS, SHARE_SICK, SHARED = 300, 0.75, 0.5
TRUE_OF = {"accuracy": "accuracy", "images": "accuracy", "auroc": "auroc", "delong": "auroc"}
APART = stats.norm.ppf(0.95) * np.sqrt(2)  # of the latent scores' means: an AUROC of .95


def _threshold():
    """Where accuracy is .90 over the two normal distributions, on the side of fewer missed."""
    cuts = np.linspace(-2, 4, 60_001)
    accuracy = SHARE_SICK * stats.norm.sf(cuts - APART) + (1 - SHARE_SICK) * stats.norm.cdf(cuts)
    assert accuracy.max() > 0.9
    return cuts[np.argmax(accuracy >= 0.9)]


def _draw(rng):
    images = 1 + rng.geometric(0.5, PATIENTS).clip(max=6)
    patients = np.repeat(np.arange(PATIENTS), images)
    labels = (rng.random(PATIENTS) < SHARE_SICK).astype(int)[patients]
    noise = np.sqrt(SHARED) * rng.normal(size=PATIENTS)[patients] + np.sqrt(
        1 - SHARED
    ) * rng.normal(size=len(patients))
    return labels, labels * APART + noise, patients


@pytest.mark.long
def test_intervals_cover_the_truth():
    """In 93 to 97% of 1,000 draws of 300 patients with two to seven images each, for accuracy .90
    and AUROC .95.
    """
    cut, truth, rng = _threshold(), {"accuracy": 0.90, "auroc": 0.95}, np.random.default_rng(0)
    covered = {"accuracy": 0, "auroc": 0, "delong": 0, "images": 0}
    for draw in range(1000):
        labels, scores, patients = _draw(rng)
        weights = intervals.patient_weights(patients, 400, draw)
        sampled = intervals.weighted_rates(labels, scores, cut, weights) | intervals.weighted_areas(
            labels == 1, scores, weights
        )
        found = {name: intervals.interval(sampled[name]) for name in truth}
        found["delong"] = intervals.delong(labels, scores, patients).interval_of_share
        found["images"] = intervals.wilson(int(((scores >= cut) == labels).sum()), len(labels))
        for name, (low, high) in found.items():
            covered[name] += low <= truth[TRUE_OF[name]] <= high
    print(covered)
    for name in ("accuracy", "auroc", "delong"):
        assert 930 <= covered[name] <= 970, covered
    assert covered["images"] < 930, (
        "an interval that takes images for independent covers too little"
    )


def test_few_images_need_wilson():
    """Sixteen images of as many patients, accuracy .90: the bootstrap covers the truth too seldom,
    Wilson's interval does not.
    """
    rng, covered = np.random.default_rng(1), {"bootstrap": 0, "wilson": 0}
    for draw in range(1000):
        right = rng.random(16) < 0.9
        weights = intervals.patient_weights(np.arange(16), 200, draw)
        low, high = intervals.interval(weights @ right.astype(float) / 16)
        covered["bootstrap"] += low <= 0.9 <= high
        low, high = intervals.wilson(int(right.sum()), 16)
        covered["wilson"] += low <= 0.9 <= high
    print(covered)
    assert covered["wilson"] >= 930 > covered["bootstrap"]


def test_the_interval_that_is_shown():
    matrix = {"confusion_matrix": [[100, 40], [20, 140]]}
    entry = matrix | {
        "n": 300,
        "ci95": {"accuracy": [0.75, 0.85], "auroc": [0.7, 0.9]},
        "wilson95": {"accuracy": [0.74, 0.84]},
    }
    assert best_interval(entry, "accuracy") == [0.75, 0.85] and best_interval(entry, "auroc") == [
        0.7,
        0.9,
    ]
    few = entry | {"n": 16, "confusion_matrix": [[5, 2], [2, 7]]}
    assert best_interval(few, "accuracy") == [0.74, 0.84] and best_interval(few, "auroc") is None
    nearly_all = entry | {"confusion_matrix": [[137, 3], [2, 158]]}
    assert best_interval(nearly_all, "accuracy") == [0.74, 0.84]
    assert best_interval(entry | {"ci95": {"auroc": [1.0, 1.0]}}, "auroc") is None


def test_the_interval_that_is_shown_covers_a_share_near_one():
    """Sensitivity .98 of 200 images of 100 patients: Wilson's, which is shown there, covers it; the
    bootstrap does too seldom.
    """
    rng, covered = np.random.default_rng(2), {"bootstrap": 0, "shown": 0}
    patients = np.repeat(np.arange(100), 2)
    for draw in range(1000):
        latent = np.sqrt(0.3) * rng.normal(size=100)[patients] + np.sqrt(0.7) * rng.normal(size=200)
        right = latent < stats.norm.ppf(0.98)
        found = int(right.sum())
        bootstrap = intervals.interval(
            intervals.patient_weights(patients, 300, draw) @ right.astype(float) / 200
        )
        entry = {
            "n": 200,
            "right": found,
            "ci95": {"rate": bootstrap},
            "wilson95": {"rate": intervals.wilson(found, 200)},
        }
        for name, (low, high) in (
            ("bootstrap", bootstrap),
            ("shown", best_interval(entry, "rate")),
        ):
            covered[name] += low <= 0.98 <= high
    print(covered)
    assert covered["shown"] >= 930 > covered["bootstrap"]


def test_a_perfect_auroc_has_no_interval():
    labels = np.repeat([0, 1], 40)
    assert intervals.delong(labels, labels * 0.5, np.arange(80)).interval_of_share is None


def test_delong_of_a_difference_holds_for_patients_with_several_images():
    """The spread of the difference over 300 simulated hospitals is the error that the formula
    gives.
    """
    rng, gaps, errors = np.random.default_rng(3), [], []
    for _ in range(300):
        labels, scores, patients = _draw(rng)
        gap = intervals.delong(
            labels, scores, patients, less=scores + 1.5 * rng.normal(size=300)[patients]
        )
        gaps.append(gap.value)
        errors.append(gap.error)
    assert np.mean(errors) == pytest.approx(np.std(gaps), rel=0.12)
