"""Copies what may be shown of a finished run into ``docs/``, without radiographs and without the machine's paths.

    python docs/publish.py results reports/real          # real X-rays: scores, predictions, plots and a page
    python docs/publish.py example-report reports/default # the SYNTHETIC phantom: its HTML reports

``docs/results/README.md`` is written from ``metrics.json`` and ``run.json`` alone; a test writes it again from
the predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cxr_utils import paths
from cxr_utils.evaluation import results
from cxr_utils.parameters import MODELS
from cxr_utils.reporting import comparison, findings, published
from cxr_utils.reporting.names import MODEL_NAMES, SHOWN

DOCS = Path(__file__).resolve().parent
# Figures that show scores alone; those of examples, errors, means and preparation show radiographs.
PLOTS = ("comparison", "decision_curve", "class_counts")
PLOTS_OF_MODEL = (
    "confusion_matrix_{}_test",
    "confusion_matrix_{}_validation",
    "roc_{}",
    "reliability_{}",
    "learning_curves_{}",
    "scores_{}",
)
MARKS = ("<!-- scores -->", "<!-- end of scores -->")  # in the README
ALL_RUNS = ' <a href="../index.html">All runs in this folder</a>.'


def main() -> int:
    """Copy one run; returns 2 where it must not be shown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["results", "example-report"])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    asked = parser.parse_args()
    run, target = paths.RunFolder(asked.run.resolve()), DOCS / asked.what
    synthetic = json.loads(run.record.read_text(encoding="utf-8"))["data"]["synthetic"]
    if synthetic != (asked.what == "example-report"):
        print(
            f"error: {asked.what} is for {'real' if synthetic else 'SYNTHETIC'} data; give another run",
            file=sys.stderr,
        )
        return 2
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (publish_example if synthetic else publish_results)(run, target)
    return 0


def publish_results(run: paths.RunFolder, target: Path) -> None:
    """Copy scores, predictions and plots of a run on real X-rays, and write their page."""
    shutil.copytree(run.root / "predictions", target / "predictions")
    shutil.copytree(run.root / "floors", target / "floors")
    shutil.copy(run.metrics, target)
    (target / "run.json").write_text(
        _without_paths(run.record.read_text(encoding="utf-8"), run), encoding="utf-8"
    )
    (target / "models").mkdir()
    (target / "figures").mkdir()
    for model in MODELS:
        shutil.copy(run.model_card(model), target / "models")
    for name in (*PLOTS, *(plot.format(model) for model in MODELS for plot in PLOTS_OF_MODEL)):
        shutil.copy(run.figure(name), target / "figures")
    (target / "README.md").write_text(page(paths.RunFolder(target)), encoding="utf-8")
    readme = paths.ROOT / "README.md"
    readme.write_text(
        update_readme(paths.RunFolder(target), readme.read_text(encoding="utf-8")), encoding="utf-8"
    )


def publish_example(run: paths.RunFolder, target: Path) -> None:
    """Copy the HTML reports of a run on the SYNTHETIC phantom, and what they link to."""
    for file in (*sorted(run.root.glob("*.html")), run.record, run.log, run.metrics):
        text = file.read_text(encoding="utf-8")
        (target / file.name).write_text(
            _without_paths(text, run).replace(ALL_RUNS, ""), encoding="utf-8"
        )

    picture(target / "index.html", DOCS / "report.png")


def picture(page: Path, target: Path) -> None:
    """Take the picture of a page's first screen, with Debian's chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox"],
        )
        shown = browser.new_context(
            viewport={"width": 1000, "height": 1250}, offline=True
        ).new_page()
        shown.goto(page.resolve().as_uri())
        shown.screenshot(path=target)
        browser.close()
    with Image.open(target) as taken:
        taken.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(target, optimize=True)


def _without_paths(text: str, run: paths.RunFolder) -> str:
    """Name the folders of the data, of the run and of the project by what they are, not by where they lay."""
    record = json.loads(run.record.read_text(encoding="utf-8"))
    data = Path(record["data"]["root"])
    named = {
        str(run.root): f"reports/{run.name}",
        str(data): data.name,
        str(paths.ROOT): ".",
        str(paths.cache_folder()): "cache",
    }
    named |= {
        word: data.name
        for word in record["command"]
        if "/" in word and Path(word).name == data.name
    }
    for place in sorted(named, key=len, reverse=True):
        text = text.replace(place, named[place])
    return text


def page(run: paths.RunFolder) -> str:
    """Return the page of published results, every number from the files beside it."""
    known, record = (
        json.loads(run.metrics.read_text(encoding="utf-8")),
        json.loads(run.record.read_text(encoding="utf-8")),
    )
    models, floors = known["models"], known["floors"]
    frames = {model: results.read_predictions(model, run) for model in MODELS}
    gaps = comparison.differences(
        comparison.pair(frames, models), known["bootstrap"]["resamples"], known["bootstrap"]["seed"]
    )
    width, height = known["data"]["median_size"]
    whole, scored = published.TEST_IMAGES, models[MODELS[0]]["test"]["n"]
    tested = record["versions"]
    lines = [
        "# Results on real X-rays",
        "",
        f"One run of the profile `{record['profile']}` on a reduced copy of the published data set: train and val are whole, of "
        f"test **{scored} of {whole} images** are there, which is {scored / whole:.0%} of it, split by patient; and the files had "
        f"been squashed to {width} x {height} px before. Original size and aspect are lost, so the floor of metadata is that of "
        f"these files. Rows of others are on all {whole}, so the comparison is not row for row. {_start(run)}".rstrip(),
        "",
        *(f"- {sentence}" for sentence in comparison.verdict(models, floors, gaps, "published")),
        "",
        "## Test",
        "",
        _markdown(findings.score_table(models, floors, ["test"]), index=True),
        "",
        findings.about_splits(known),
        "",
        "## Beside published work",
        "",
        _markdown(_beside(run)),
        "",
        "Protocols differ: read the last column. Claims of .98 and more on this data, where it was split anew or choices were made on its "
        "test images, are left out.",
        "",
        "## ResNet50V2 minus baseline",
        "",
        _markdown(gaps.round(4)),
        "",
        "## By subtype",
        "",
        _markdown(findings.subtype_table(models)),
        "",
        *(
            f"![{_alt(name, models)}](figures/{name}.png)"
            for name in (
                "comparison",
                *(f"confusion_matrix_{model}_test" for model in MODELS),
                "decision_curve",
            )
        ),
        "",
        "## How it was made",
        "",
        f"`python {' '.join(record['command'])}`, seed {record['seed']}, revision `{record['git']}`, Python {tested['python']}, "
        f"TensorFlow {tested['tensorflow']}, Keras {tested['keras']}, {record['machine']['processor']} with "
        f"{record['machine']['cores']} cores. Everything else is in [run.json](run.json), every score in [metrics.json](metrics.json), "
        "every prediction in `predictions/`. No radiograph is shown: this repository holds none. "
        f"`{Path(record['data']['root']).name}` is the reduced copy, which is not distributed here; "
        "`python run_all.py --data kaggle --run real` runs the same on the original files and gives other numbers.",
    ]
    return "\n".join(lines) + "\n"


def scores(run: paths.RunFolder) -> str:
    """Return the table of scores in the project's README, with what must be known to read it."""
    known = results.read_metrics(run)
    models, (width, height) = known["models"], known["data"]["median_size"]
    whole, scored = published.TEST_IMAGES, models[MODELS[0]]["test"]["n"]
    size = results.read_card(MODELS[0], run)["image_size"]
    said = (
        f"One run of the default profile on {scored} of the {whole} published test images ({scored / whole:.0%}, split by patient). "
        f"The files came as {width} x {height} px and were seen at {size} x {size}. In brackets 95 % intervals, from resampling "
        f"patients; a share with fewer than 10 errors has Wilson's. The other rows are on all {whole} images and by other "
        f"protocols, so this is not row for row. {_start(run)}"
    )
    return f"{said.rstrip()}\n\n{_markdown(_beside(run))}"


def update_readme(run: paths.RunFolder, readme: str) -> str:
    """Return the README with its scores taken from a run."""
    before, rest = readme.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{scores(run)}\n{MARKS[1]}{after}"


def _from_random(run: paths.RunFolder) -> bool:
    return results.read_card("resnet50v2", run)["weights"].startswith("random")


def _start(run: paths.RunFolder) -> str:
    """What must be said of the weights that ResNet50V2 started from."""
    if not _from_random(run):
        return ""
    return (
        "ImageNet weights could not be fetched on that machine, so ResNet50V2 started from random ones, unlike most of the large networks "
        "in the table; where they can be fetched, the same command starts from them and gives other scores."
    )


def _beside(run: paths.RunFolder) -> pd.DataFrame:
    models, rows = results.read_metrics(run)["models"], []
    for model in MODELS:
        original, test = published.ORIGINAL[model], models[model]["test"]
        rows.append([original.who, f"{original.accuracy:.3f}", "–", "–", "–", original.note])
        start = (
            "from random weights"
            if model == MODELS[0] or _from_random(run)
            else "from ImageNet weights"
        )
        rows.append(
            [
                f"**this run, {MODEL_NAMES[model]}**",
                *(findings.with_interval(test, score) for score in SHOWN),
                start,
            ]
        )
    for other in published.OTHERS:
        values = (getattr(other, score) for score in SHOWN)
        source = (
            f"[{other.source}](https://doi.org/{other.source.removeprefix('doi:')})"
            if other.source.startswith("doi:")
            else other.source
        )
        said = ", ".join(filter(None, (other.note, source)))
        rows.append(
            [other.who, *("–" if value is None else f"{value:.3f}" for value in values), said]
        )
    return pd.DataFrame(
        rows, columns=["who", "accuracy", "AUROC", "sensitivity", "specificity", "protocol"]
    )


def _markdown(table: pd.DataFrame, index: bool = False) -> str:
    table = table.rename_axis("").reset_index() if index else table
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _alt(name: str, models: dict[str, Any]) -> str:
    for model in MODELS:
        if model in name:
            return f"Confusion matrix of {MODEL_NAMES[model]} on test: {findings.matrix_in_words(models[model]['test'])}"
    return {
        "comparison": "Test scores of both models with their 95 % intervals.",
        "decision_curve": "Net benefit on test of both models.",
    }[name]


if __name__ == "__main__":
    sys.exit(main())
