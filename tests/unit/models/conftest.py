"""Trains as the notebooks do."""

import pytest
from cells import train_of

from cxr_utils import paths
from cxr_utils.models import callbacks, training, weights

RANDOM = weights.Start("random")


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """Train; the state is kept in a folder of its own, or in `saved`."""

    def call(section, changes, seed, splits, start=RANDOM, saved=None):
        run = paths.RunFolder(tmp_path_factory.mktemp("fit")).make()
        saved = saved or callbacks.Saved(run.checkpoint(section.name), "key")
        train = train_of(section, changes, seed, splits, run)
        return training.fit(train, section, seed, splits, start, saved)

    return call
