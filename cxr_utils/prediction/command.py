"""The commands ``predict`` and ``export`` of ``python -m cxr_utils``."""

import argparse
import contextlib
import csv
import itertools
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from .. import paths, profiles
from ..data import dataset, sources
from ..files import silenced_errors
from ..models import onnx
from ..parameters import UsageError
from . import model, search
from .model import FIELDS

NOTEBOOK = "05_predict"
TOLERANCE = 1e-4  # of a score by onnxruntime against Keras'


def add_parsers(commands: Any) -> None:
    """Add both commands to the parser of ``python -m cxr_utils``."""
    predict = commands.add_parser("predict", help="apply a trained model to X-rays")
    export = commands.add_parser("export", help="write a trained model as ONNX")
    for add in (predict.add_argument, export.add_argument):
        add("--run", required=True, metavar="DIR", help="folder of a run, or its name in reports/")
        add("--model", default="", metavar="NAME", help="default: the lowest loss on validation")
        add("--allow-synthetic", action="store_true", help="accept a model trained on the phantom")
        add("--force", action="store_true", help="overwrite existing files")
    export.add_argument("--format", choices=["onnx"], default="onnx", help="only onnx")
    add = predict.add_argument
    named = "films (JPEG, PNG, TIFF, DICOM), folders, patterns, or - to read names from stdin"
    add("paths", nargs="+", metavar="PATH", help=named)
    add("--format", choices=["jsonl", "csv"], default="jsonl", help="default: jsonl")
    add("--out", metavar="DIR", help="write answers.jsonl or answers.csv there")
    add("--report", action="store_true", help="also write predict.html there")
    add("--engine", choices=["keras", "onnx"], default="keras", help="onnx needs an export")


def predict(asked: argparse.Namespace) -> bool:
    """Answer for films, a line each; returns whether all of them could be read.

    Raises UsageError where nothing can begin.
    """
    warnings.simplefilter("ignore")  # Pillow's and pydicom's, of films that get an answer
    if asked.report and not (asked.out and asked.format == "jsonl"):
        raise UsageError("--report needs --out, and --format jsonl; give both")
    folder = Path(asked.out or ".").expanduser().resolve()
    target, page = folder / f"answers.{asked.format}", folder / "predict.html"
    for file in [target] * bool(asked.out) + [page] * asked.report:
        if file.exists() and not asked.force:
            raise UsageError(f"{file}: already exists; --force overwrites it")
    if asked.out:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "give another folder with --out"
            raise UsageError(f"{folder}: cannot be written ({error.strerror}); {remedy}") from None
    if "-" in asked.paths:
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    found = search.find(asked.paths, sys.stdin)
    first = next(found, None)
    if first is None:
        remedy = "give JPEG, PNG, TIFF or DICOM files"
        raise UsageError(f"{', '.join(asked.paths)[:200]}: no films there; {remedy}")
    with silenced_errors():
        trained = model.load(asked.run, asked.model, asked.engine, asked.allow_synthetic)
    whole = True
    with contextlib.ExitStack() as opened:
        stream: TextIO = sys.stdout
        if asked.out:
            stream = opened.enter_context(target.open("w", encoding="utf-8", newline=""))
        rows = csv.writer(stream, lineterminator="\n")
        if asked.format == "csv":
            rows.writerow(FIELDS)
        answers = trained.answers(itertools.chain([first], found))
        for answer in tqdm(answers, "predict", unit=" films", disable=None):
            if asked.format == "csv":
                rows.writerow(answer.values())
            else:
                stream.write(json.dumps(answer) + "\n")
            stream.flush()
            whole &= not answer["error"]
    if trained.synthetic:
        print("SYNTHETIC model: its answers say nothing about real X-rays", file=sys.stderr)
    return (not asked.report or _report(target, page, trained)) and whole


def _report(answers: Path, page: Path, trained: model.Model) -> bool:
    """Run the notebook on answers and make it a page; returns whether it ran to its end."""
    from ..pipeline import pages

    values = {"answers": str(answers), "run_dir": str(trained.folder.root), "base": str(Path.cwd())}
    with tempfile.TemporaryDirectory(prefix="cxr-") as temporary:
        where = paths.RunFolder(page.parent), page.stem, trained.synthetic, Path(temporary)
        return pages.of_command(NOTEBOOK, values, *where)


def export(asked: argparse.Namespace) -> bool:
    """Write a model as ONNX, and compare it with Keras on the validation films.

    Returns whether their scores agree. Raises UsageError where it cannot be written.
    """
    with silenced_errors():
        from ..models import serving

        trained = model.load(asked.run, asked.model, allow_synthetic=asked.allow_synthetic)
    files, alike = [trained.folder.onnx(part.card["model"]) for part in trained.parts], True
    for file in (file for file in files if file.exists() and not asked.force):
        raise UsageError(f"{file}: already exists; --force overwrites it")
    for file, part in zip(files, trained.parts, strict=True):
        card = part.card
        made = serving.graph(part.network, card["test_time_flips"], card["temperature"])
        about = {name: card[name] for name in onnx.TOLD}
        about |= {"positive": "PNEUMONIA", "run": trained.folder.name}
        try:
            with silenced_errors():
                onnx.export(made.network, about, file)
        except ImportError:
            said = "tf2onnx and onnxruntime are needed; pip install 'cxr-utils[onnx]'"
            raise UsageError(f"export: {said}") from None
        which, squares = _squares(trained.folder, part)
        apart, speeds = onnx.compared(part.engine, onnx.engine(file)[0], squares)
        size, speed = file.stat().st_size / 1e6, "{:.0f} a second by Keras, {:.0f} by onnxruntime"
        print(f"{file}: {size:.1f} MB; {len(squares)} {which}, {speed.format(*speeds)}; "
              f"scores differ by {apart:.1e} at most")  # fmt: skip
        alike &= apart <= TOLERANCE
    return alike


def _squares(folder: paths.RunFolder, part: model.Part) -> tuple[str, np.ndarray]:
    """The films that a run's choices were made on, where they still are; else noise."""
    size = part.square.size
    with contextlib.suppress(UsageError):
        params = profiles.load(str(folder.record), [], None)
        if sources.plan(params.data).root.is_dir():
            data = dataset.open_data(params, size)
            return f"films of {data.chosen_on}", data.splits[data.chosen_on].pixels[:]
    return "squares of noise", np.random.default_rng(0).integers(0, 256, (64, size, size), np.uint8)
