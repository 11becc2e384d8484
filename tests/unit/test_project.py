import ast
import re
import tomllib

import yaml

from cxr_utils import params, paths, reference

NAMED = {"jupyterlab", "papermill", "tensorflow", "pandas", "seaborn", "scikit-learn", "nbconvert"}
ORDER = [
    *["paths", "params", "published", "download", "pixels", "phantom", "manifest", "folds", "sources"],
    *["images", "metrics", "uncertainty", "shortcuts", "audit"],
    *["augmentation", "models", "weights", "stress", "hardware", "optimizer", "gradient", "transfer", "checkpoint", "keys", "training"],
    *["gradcam", "evaluation", "calibration", "scoring"],
    *["names", "plots", "model_plots", "data_findings", "findings", "closer_look"],
    *["comparison", "beside_published", "recommendations", "model_card", "slider"],
    *["run_state", "provenance", "occupancy", "report", "execution", "pipeline", "repetition", "reference", "description", "cli"],
]


def _lock():
    lines = (paths.ROOT / "requirements.lock").read_text().splitlines()
    return {re.split("==", line)[0].lower(): line for line in lines if line and not line.startswith("#")}


def test_lock_is_exact_and_holds_every_dependency():
    lock = _lock()
    assert all(re.match(r"^[\w.-]+(\[\w+\])?==[\w.]+( ; .+)?$", line) for line in lock.values())
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    assert {re.split("[<>=]", name)[0] for name in asked} <= set(lock)
    assert set(lock) >= NAMED


def test_environment_takes_its_packages_from_the_lock():
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert "-r requirements.lock" in pip
    others = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [entry.split("=")[0] for entry in others] == ["python", "pip"]
    readme = (paths.ROOT / "README.md").read_text()
    assert "`conda env create -f environment.yml`" in readme and f"`conda activate {environment['name']}`" in readme


def test_imports_run_one_way():
    for module in ORDER:
        tree = ast.parse((paths.PACKAGE / f"{module}.py").read_text())
        used = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                used |= {node.module} if node.module else {name.name for name in node.names}
        later = used & set(ORDER[ORDER.index(module) :])
        assert not later, f"{module} imports {later}"
    assert {file.stem for file in paths.PACKAGE.glob("*.py")} == {*ORDER, "__init__", "__main__"}


def test_training_is_keyed_by_every_module_that_it_uses():
    """What decides the weights, by way of imports; params, paths and published files are keyed by what is in them."""
    from cxr_utils.keys import MODULES

    found, asked = set(), ["training"]
    while asked:
        module = asked.pop()
        found.add(module)
        for node in ast.walk(ast.parse((paths.PACKAGE / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                asked += ({node.module} if node.module else {name.name for name in node.names}) - found
    assert set(MODULES) == found - {"paths", "params", "download", "sources", "published", "phantom"}


def test_default_profile_states_every_parameter():
    from cxr_utils.params import Params

    assert yaml.safe_load((paths.PARAMS / "default.yaml").read_text()) == Params().model_dump()


def test_parameter_reference_is_the_models():
    assert (paths.ROOT / "docs" / "parameters.md").read_text() == reference.reference(), "run make docs"


def _documents():
    return [*sorted(paths.ROOT.glob("*.md")), *sorted(paths.ROOT.glob("docs/**/*.md"))]


def test_links_in_the_documents_lead_somewhere():
    for file in _documents():
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text()):
            assert link.startswith("https://") or (file.parent / link).exists(), f"{file.name}: {link}"


def test_documents_name_files_and_parameters_that_exist():
    """Whatever stands in backticks and looks like a file of the project, or like a parameter."""
    known = set(params.parameter_names())
    for file in _documents():
        text = file.read_text()
        for name in re.findall(r"`((?:cxr_utils|tests|params|notebooks|docs|benchmarks)/[\w/.-]+\.\w+)`", text):
            assert (paths.ROOT / name).is_file() or name == "notebooks/05_mine.ipynb", f"{file.name}: {name}"
        for name in re.findall(r"--set ((?:\w+\.)?\w+)=", text):
            assert name in known or "SECTION" in name, f"{file.name}: {name}"


def test_citation_is_valid_and_of_this_version():
    citation = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] and citation["cff-version"] == "1.2.0" and citation["title"] and citation["authors"]
    assert f"## {project['version']}" in (paths.ROOT / "CHANGELOG.md").read_text()
