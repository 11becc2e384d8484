"""Turns executed notebooks into HTML files and writes the page of a run to open first."""

from __future__ import annotations

from typing import Any

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from . import findings, paths, published, scoring
from .folds import chosen_on
from .params import STEPS
from .plots import MODEL_NAMES, SPLIT_NAMES
from .sources import REAL_RUN, REAL_RUN_COST

STEP_TITLES = {
    "01_eda": "1 The data",
    "02_baseline_cnn": "2 Baseline CNN",
    "03_resnet50v2": "3 ResNet50V2",
    "04_comparison": "4 Comparison",
}
PAGES = [("index.html", "Overview"), *((f"{step}.html", title) for step, title in STEP_TITLES.items())]


def render(step: str, folder: paths.RunFolder, synthetic: bool, failed: bool = False) -> None:
    """Write the HTML report of a step from its executed notebook, marked where the step failed.

    Parameters
    ----------
    step : str
        Stem of the notebook.
    folder : RunFolder
        The run; ``executed/<step>.ipynb`` must be there.
    synthetic : bool
        Whether the data is the phantom's; the report then carries a banner.
    failed : bool
        Whether the step did not run to its end; the report then says so.
    """
    notebook = nbformat.read(folder.executed(step), as_version=4)
    cells = [cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    notebook.cells = cells
    exporter = HTMLExporter(template_name=paths.TEMPLATE.name, extra_template_basedirs=[str(paths.PACKAGE)])
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    about = {
        "title": f"{'SYNTHETIC: ' if synthetic else ''}{STEP_TITLES[step]}, run {folder.name}",
        "style": _style(),
        "pages": PAGES,
        "here": f"{step}.html",
        "synthetic": synthetic,
        "failed": failed,
        "command": REAL_RUN,
        "cost": REAL_RUN_COST,
    }
    body, _ = exporter.from_notebook_node(notebook, resources={"report": about})
    paths.write_atomically(folder.html(step), body)


def write_index(folder: paths.RunFolder, record: dict[str, Any], problems: list[str]) -> None:
    """Write ``index.html``: verdict, scores, confusion matrices, links, provenance.

    Parameters
    ----------
    folder : RunFolder
        The run.
    record : dict
        Content of ``run.json``.
    problems : list of str
        What failed, if anything.
    """
    known = scoring.read_metrics(folder)
    models = known.get("models", {})
    synthetic = record["data"]["synthetic"]
    standing = published.standing(known.get("data", {}).get("source", ""), known.get("data", {}).get("counts", {}))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(paths.TEMPLATE), autoescape=False, trim_blocks=True)
    page = environment.get_template("overview.html.j2").render(
        run=folder.name,
        style=_style(),
        pages=[page for page in PAGES if page[0] == "index.html" or (folder.root / page[0]).is_file()],
        synthetic=synthetic,
        command=REAL_RUN,
        cost=REAL_RUN_COST,
        problems=problems,
        verdict=[*findings.about_networks(models, folder), *findings.verdict(models, standing)],
        scores=findings.score_table(models).to_html(border=0) if models else "",
        splits=findings.about_splits(known) if models else "",
        matrices=_matrices(folder, models, synthetic),
        provenance=_provenance(record),
    )
    paths.write_atomically(folder.index, page)


def _style() -> str:
    return (paths.TEMPLATE / "style.css").read_text(encoding="utf-8")


def _matrices(folder: paths.RunFolder, models: dict[str, Any], synthetic: bool) -> list[tuple[str, str]]:
    mark = "SYNTHETIC data. " if synthetic else ""
    found = []
    for model, splits in models.items():
        for split in (chosen_on(splits), "test"):
            name = f"confusion_matrix_{model}_{split}"
            if split in splits and folder.figure(name).is_file():
                (tn, fp), (fn, tp) = splits[split]["confusion_matrix"]
                alt = (
                    f"{mark}Confusion matrix of {MODEL_NAMES[model]}, {SPLIT_NAMES[split]}: {tn} true "
                    f"negatives, {fp} false positives, {fn} false negatives, {tp} true positives."
                )
                found.append((name, alt))
    return found


def _provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    data, versions, steps = record["data"], record["versions"], record.get("steps", {})
    seconds = sum(steps.get(step, {}).get("seconds", 0) for step in STEPS)
    return [
        ("data", f"{data['source']}{' (SYNTHETIC)' if data['synthetic'] else ''}, manifest {data['manifest'][:12]}"),
        ("profile", record["profile"]),
        ("seed", str(record["seed"])),
        ("code", record["git"] or "not under version control"),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in ("python", "tensorflow", "keras", "scikit-learn"))),
        ("machine", f"{record['machine']['processor']}, {record['machine']['cores']} cores"),
        ("notebooks ran for", f"{seconds / 60:.1f} minutes"),
    ]
