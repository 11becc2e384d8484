"""What is fitted on validation does not make a model surer of itself than it can be."""

import numpy as np
import pytest

from cxr_utils.evaluation import calibration


def test_a_separable_validation_gets_no_temperature():
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], 50)
    logits = rng.normal((2 * labels - 1) * 8, 1.0)
    assert calibration.fit_temperature(logits, labels) == 1.0
    timid = np.where(labels == 1, 0.01, -0.01) * np.where(np.arange(100) == 3, -1, 1)
    assert calibration.fit_temperature(timid, labels) == pytest.approx(0.25, abs=0.01)
