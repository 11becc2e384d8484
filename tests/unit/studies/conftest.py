import pytest

from cxr_utils import study_plan
from cxr_utils.studies import cluster


@pytest.fixture
def study_of(tmp_path):
    """Write a study's file and read it."""

    def make(text, source="phantom"):
        file = tmp_path / "trial.yaml"
        file.write_text(f"question: Does it?\nprofile: smoke\nmodels: [baseline_cnn]\n{text}")
        return study_plan.read(file, source)

    return make


@pytest.fixture(scope="session")
def client():
    """A cluster of two workers."""
    with cluster.connected(2, "") as client:
        yield client
