"""Copies what may be shown of a finished run into ``docs/``: no radiographs, no machine's paths.

    python docs/publish.py results reports/real reports/xception  # real X-rays: scores, plots, a
                                                     # page; further runs are rows of that page
    python docs/publish.py studies reports/studies/*  # real X-rays: a page each, and rows of the
                                                     # README's table
    python docs/publish.py pictures reports/example  # the SYNTHETIC phantom: pictures of its pages

``docs/results/README.md`` is written from the files of the run alone; a test writes it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cxr_utils import paths
from cxr_utils.evaluation import comparison, results, studies
from cxr_utils.files import read_json
from cxr_utils.reporting import published, study, tables, text

DOCS = Path(__file__).resolve().parent
STUDIES = DOCS / "results" / "studies"
# Figures that show scores alone; those of examples, errors, means and preparation show radiographs.
PLOTS = ("comparison", "class_counts")
PLOTS_OF_MODEL = (
    "confusion_matrix_{}_test",
    "confusion_matrix_{}_validation",
    "roc_{}",
    "reliability_{}",
    "learning_curves_{}",
)
OTHERS = "others"  # where runs lie that are rows of the page only
PARTS = ("headline", "scores")  # of the README, between marks


def main() -> int:
    """Copy one run; returns 2 where it must not be shown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["results", "studies", "pictures"])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    asked = parser.parse_args()
    if asked.what == "studies":
        return publish_studies(asked.runs)
    runs, target = [paths.RunFolder(run.resolve()) for run in asked.runs], DOCS / asked.what
    synthetic = read_json(runs[0].record)["data"]["synthetic"]
    if any(synthetic != read_json(run.record)["data"]["synthetic"] for run in runs) or (
        synthetic != (asked.what == "pictures")
    ):
        print(
            f"error: {asked.what} is not for {'SYNTHETIC' if synthetic else 'real'} data",
            file=sys.stderr,
        )
        return 2
    target.mkdir(exist_ok=True)
    for one in (one for one in target.iterdir() if one != STUDIES):
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    if synthetic:
        publish_pictures(runs[0], target)
        return 0
    for run in runs:
        first = run is runs[0]
        publish_results(run, target if first else target / OTHERS / run.name, plots=first)
    write_pages(paths.RunFolder(target))
    return 0


def write_pages(run: paths.RunFolder) -> None:
    """Write the page of results and the README's part, from the files that are published."""
    (run.root / "README.md").write_text(page(run), encoding="utf-8")
    readme = paths.ROOT / "README.md"
    told = update_readme(run, readme.read_text(encoding="utf-8"))
    readme.write_text(told, encoding="utf-8")


def publish_studies(folders: Sequence[Path]) -> int:
    """Copy the rows, differences and figures of studies; returns 2 for SYNTHETIC data."""
    for folder in folders:
        found, target = studies.read(folder.resolve()), STUDIES / folder.name
        if found.about["data"]["synthetic"]:
            print(f"error: {folder}: studies are published of real data alone", file=sys.stderr)
            return 2
        gaps = {model: studies.differences(found, model) for model in found.rows["model"].unique()}
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        about = found.about | {"workers": {}}
        about["parameters"]["data"]["source"] = "folder"
        for cell in about["cells"].values():
            cell.pop("host", None)
            cell.pop("worker", None)
            cell.pop("error", None)
        (target / "study.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        hidden = [name for name in found.rows if name.startswith("test_")] * bool(found.factors)
        found.rows.drop(columns=hidden).to_csv(target / "rows.csv", index=False)
        for model, table in gaps.items():
            table.to_csv(target / f"differences_{model}.csv", index=False)
        for figure in sorted((folder / "figures").glob("*.png")):
            shutil.copy(figure, target)
        (target / "README.md").write_text(study_page(target), encoding="utf-8")
    write_pages(paths.RunFolder(DOCS / "results"))
    return 0


def study_page(folder: Path) -> str:
    """Return the page of a published study, every number from the files beside it."""
    found, parts = studies.read(folder), []
    for model in found.rows["model"].unique():
        rows = found.rows[found.rows["model"] == model]
        gaps = pd.read_csv(folder / f"differences_{model}.csv")
        splits = ("",) if found.factors else ("", "test_")
        tabled = study.settings(found, rows) if found.factors else study.spreads(rows, splits)
        answer = text.render("study", **text.study(found, model, gaps))
        parts.append({"answer": answer, "scores": tabled, "gaps": study.gaps(gaps)})
    figures = {file.name: Image.open(file).info["Description"] for file in folder.glob("*.png")}
    return text.render("study_page", about=found.about, parts=parts, figures=figures) + "\n"


def publish_results(run: paths.RunFolder, target: Path, plots: bool) -> None:
    """Copy scores, predictions and, where asked, `plots` of a run on real X-rays."""
    for folder in ("predictions", "floors"):
        if (run.root / folder).is_dir():
            shutil.copytree(run.root / folder, target / folder)
    for file in (run.metrics, run.comparison):
        if file.is_file():  # there is nothing to compare in a run of one notebook
            shutil.copy(file, target)
    (target / "run.json").write_text(
        _without_paths(run.record.read_text(encoding="utf-8"), run), encoding="utf-8"
    )
    (target / "models").mkdir()
    models = list(results.read_metrics(run)["models"])
    for model in models:
        shutil.copy(run.model_card(model), target / "models")
    if plots:
        (target / "figures").mkdir()
        for name in (*PLOTS, *(plot.format(model) for model in models for plot in PLOTS_OF_MODEL)):
            shutil.copy(run.figure(name), target / "figures")


def publish_pictures(run: paths.RunFolder, target: Path) -> None:
    """Take the picture of the top of every page of a run, with Debian's chromium."""
    from playwright.sync_api import sync_playwright

    lines = ["# What the reports look like", "", "Made by `make example` on the SYNTHETIC phantom."]
    with sync_playwright() as driver:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        size: Any = {"width": 1280, "height": 1500}
        shown = browser.new_context(viewport=size, offline=True).new_page()
        for page in sorted(run.root.glob("*.html"), key=lambda file: file.stem != "index"):
            shown.goto(page.resolve().as_uri())
            picture = target / f"{page.stem}.png"
            shown.screenshot(path=picture)
            with Image.open(picture) as taken:
                small = taken.convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
            small.save(picture, optimize=True)
            lines += ["", f"![The top of the page {page.stem}, SYNTHETIC]({picture.name})"]
        browser.close()
    (target / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _without_paths(text: str, run: paths.RunFolder) -> str:
    """Name the folders of data, run and project by what they are, not by where they lay."""
    record = json.loads(run.record.read_text(encoding="utf-8"))
    data = Path(record["data"]["root"])
    named = {
        str(run.root): f"reports/{run.name}",
        str(data): data.name,
        str(paths.ROOT): ".",
        str(paths.cache_folder()): "cache",
    }
    named |= {
        word: "reports" for word in record["command"] if word == str(run.root.parent)
    }  # as of --out
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
    told, pairs = _told(run), comparison.read(run)
    models, record, references = told["models"], told["record"], told["known"]["floors"]
    filled = text.render(
        "results_page",
        **told,
        pairs=pairs,
        references=references,
        standing="published",
        scores=tables.scores(models, references, ["test"]),
        beside=_beside(models, run),
        differences=[tables.differences(pair).map(_rounded) for pair in pairs],
        subtypes=tables.subtypes(models),
        others=_others(run),
        studies=_studies(),
        kept=sum(step["seconds"] for step in record["steps"].values())
        < sum(model.card["seconds"] for model in models),
        folder=Path(record["data"]["root"]).name,
    )
    return f"{filled}\n"


def _told(run: paths.RunFolder) -> dict[str, Any]:
    """What the page and the README's part say of the models of a run."""
    models, record = comparison.read_models(run), read_json(run.record)
    best = min(models, key=lambda model: model.scores["validation"]["loss"])  # not by test
    minutes = round(best.card["seconds"] / 60)
    told = {"models": models, "known": results.read_metrics(run), "record": record}
    return told | {"best": best, "minutes": minutes}


def _others(run: paths.RunFolder) -> pd.DataFrame:
    """The models of the runs that are rows of the page only."""
    rows, own = [], results.read_metrics(run)
    keys = {model.card["training_key"] for model in comparison.read_models(run)}
    for folder in map(paths.RunFolder, sorted(run.root.glob(f"{OTHERS}/*"))):
        if results.read_metrics(folder)["data"] != own["data"]:
            raise SystemExit(f"error: {folder.root} is of other data")
        for model in comparison.read_models(folder):
            if model.card["training_key"] in keys:
                continue
            card = model.card
            many = f", ensemble of {card['members']} seeds" if card["members"] > 1 else ""
            about = [f"{model.title}{many}", f"{card['image_size']} px"]
            about.append(tables.STARTS[card["start"]["kind"]])
            scores = [tables.with_interval(model.test, score) for score in tables.SHOWN]
            made = (read_json(folder.record)["git"] or "unknown")[:7]
            about += [f"{card['seconds'] / 60:.0f}", card["precision"]["used"]]
            rows.append([*about, *scores, f"`{made}`"])
            if card["members"] > 1:
                alone, blank = pd.DataFrame(card["seeds"]).T.drop("ensemble"), [""] * 4
                spread = [study.mean_sd(alone[tables.SCORES[score]]) for score in tables.SHOWN]
                rows.append(["its members alone, at its threshold, mean ± SD", *blank, *spread, ""])
    names = [tables.SCORES[score] for score in tables.SHOWN]
    known = ["model", "input", "initial weights", "training, min", "precision", *names, "revision"]
    return pd.DataFrame(rows, columns=known)


def _studies() -> list[dict[str, str]]:
    """Name, question and page of each published study."""
    found = [read_json(file) for file in sorted(STUDIES.glob("*/study.json"))]
    return [{"name": one["study"], "question": one["question"]} for one in found]


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def update_readme(run: paths.RunFolder, readme: str) -> str:
    """Return the README with its scores and times taken from a run."""
    told = _told(run)
    told["beside"] = _beside(told["models"], run)[: -len(published.OTHERS)]
    minutes = sum(model.card["seconds"] for model in told["models"]) / 60
    told["minutes_of_all"] = round(minutes)
    for part in PARTS:
        start, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
        before, rest = readme.split(start)
        after = rest.split(end)[1]
        readme = f"{before}{start}\n{text.render(f'readme_{part}', **told)}\n{end}{after}"
    return readme


def _beside(models: Sequence[comparison.Scored], run: paths.RunFolder) -> pd.DataFrame:
    """The run's models, each below the original project's, and what others reported."""
    rows = []
    for model in models:
        original = published.ORIGINAL.get(model.name)
        rows += [_row(original)] if original else []
        scores = (tables.with_interval(model.test, score) for score in tables.SHOWN)
        start = f"from {tables.STARTS[model.card['start']['kind']]}"
        rows.append([f"**this run, {model.title}**", *scores, start])
        if len(seeds := studies.of_seeds(model.name, STUDIES, read_json(run.record))):
            scores = (study.mean_sd(seeds[f"test_{score}"]) for score in tables.SHOWN)
            rows.append(
                [
                    f"{model.title}, mean ± SD of {len(seeds)} seeds",
                    *scores,
                    "validation patients and threshold of their own",
                ]
            )
    names = (tables.SCORES[score] for score in tables.SHOWN)
    rows += [_row(other) for other in published.OTHERS]
    return pd.DataFrame(rows, columns=["model", *names, "protocol"])


def _row(score: published.Score) -> list[str]:
    values = (getattr(score, name) for name in tables.SHOWN)
    source = score.source
    if source.startswith("doi:"):
        source = f"[{source}](https://doi.org/{source.removeprefix('doi:')})"
    said = ", ".join(filter(None, (score.note, source)))
    return [score.who, *("–" if value is None else f"{value:.3f}" for value in values), said]


if __name__ == "__main__":
    sys.exit(main())
