import ast
import graphlib
import re
import tomllib

import yaml

from cxr_utils import paths, profiles
from cxr_utils.models import fingerprint

NAMED = {"jupyterlab", "papermill", "tensorflow", "pandas", "seaborn", "scikit-learn", "nbconvert"}
# Who may import whom, by folder; "" holds what all use.
BELOW = {
    "": set(),
    "data": {""},
    "models": {"", "data"},
    "evaluation": {"", "data"},
    "reporting": {"", "data", "models", "evaluation"},
    "pipeline": {"", "data", "models", "evaluation", "reporting"},
    "prediction": {"", "data", "models", "evaluation", "reporting", "pipeline"},
    "studies": {"", "data", "models", "evaluation", "reporting", "pipeline"},
}


def _lock():
    lines = (paths.ROOT / "requirements.lock").read_text().splitlines()
    return {
        re.split("==", line)[0].lower(): line for line in lines if line and not line.startswith("#")
    }


def test_lock_is_exact_and_holds_every_dependency():
    lock = _lock()
    assert all(re.match(r"^[\w.-]+(\[\w+\])?==[\w.]+( ; .+)?$", line) for line in lock.values())
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [
        name for extra in project["optional-dependencies"].values() for name in extra
    ]
    assert {re.split("[<>=]", name)[0] for name in asked} <= set(lock)
    assert set(lock) >= NAMED


def test_environment_takes_its_packages_from_the_lock():
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert "-r requirements.lock" in pip
    others = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [entry.split("=")[0] for entry in others] == ["python", "pip"]
    readme = (paths.ROOT / "README.md").read_text()
    assert (
        "`conda env create -f environment.yml`" in readme
        and f"`conda activate {environment['name']}`" in readme
    )


def _imported(file):
    """The modules of the package that a module imports, as (folder, module)."""
    room = "" if file.parent == paths.PACKAGE else file.parent.name
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (
                paths.PACKAGE
                / (room if node.level == 1 else "")
                / (node.module or "").replace(".", "/")
            )
            for name in node.names:
                found = next(
                    path
                    for path in (base / f"{name.name}.py", base.with_suffix(".py"), base)
                    if path.exists()
                )
                yield ("" if found.parent == paths.PACKAGE else found.parent.name), found.stem


def test_imports_run_one_way():
    """From folder to folder as data flows, without circles; ``cli`` may import all."""
    for folder in BELOW:
        files = sorted((paths.PACKAGE / folder).glob("*.py"))
        inside = {}
        for file in files:
            if folder or file.stem not in ("cli", "__main__", "__init__"):
                used = set(_imported(file))
                above = {
                    f"{room}/{module}"
                    for room, module in used
                    if room not in BELOW[folder] | {folder}
                }
                assert not above, f"{folder}/{file.stem} imports {above}"
                inside[file.stem] = {module for room, module in used if room == folder}
        list(graphlib.TopologicalSorter(inside).static_order())
    assert {
        folder.name for folder in paths.PACKAGE.iterdir() if (folder / "__init__.py").is_file()
    } == set(BELOW) - {""}


def test_training_is_keyed_by_every_module_that_it_uses():
    """The digest of the data stands for where it came from."""
    asked, found = [("models", "training")], set()
    while asked:
        folder, module = asked.pop()
        found.add(f"{folder}/{module}")
        asked += [
            other
            for other in _imported(paths.PACKAGE / folder / f"{module}.py")
            if other[0] and "/".join(other) not in found
        ]
    assert set(fingerprint.SOURCES) == found - {"data/sources", "data/phantom"}
    assert {"models/networks", "models/augmentation", "data/decoding", "data/splits"} <= set(
        fingerprint.SOURCES
    )


def _documents():
    return [*sorted(paths.ROOT.glob("*.md")), *sorted(paths.ROOT.glob("docs/**/*.md"))]


def test_links_in_the_documents_lead_somewhere():
    for file in _documents():
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text()):
            assert link.startswith("https://") or (file.parent / link).exists(), (
                f"{file.name}: {link}"
            )


def test_documents_name_files_and_parameters_that_exist():
    """Whatever stands in backticks and looks like a file of the project, or like a parameter."""
    known = set(profiles.parameter_names())
    for file in _documents():
        text = file.read_text()
        for name in re.findall(
            r"`((?:cxr_utils|tests|params|notebooks|docs|benchmarks)/[\w/.-]+\.\w+)`", text
        ):
            assert (paths.ROOT / name).is_file() or "/07_" in name, f"{file.name}: {name}"
        for name in re.findall(r"--set ((?:\w+\.)?\w+)=", text):
            assert name in known or name.startswith(("SECTION", "tiny_cnn")), f"{file.name}: {name}"


def test_citation_is_valid_and_of_this_version():
    citation = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert (
        citation["version"] == project["version"]
        and citation["cff-version"] == "1.2.0"
        and citation["title"]
        and citation["authors"]
    )
    assert f"## {project['version']}" in (paths.ROOT / "CHANGELOG.md").read_text()
