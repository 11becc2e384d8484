"""What a run is, what its steps leave behind, and which of them are still valid."""

import csv
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import paths, profiles
from ..data.manifest import Manifest
from ..data.sources import Source
from ..files import read_json, sha256_of, within
from ..models import fingerprint
from ..parameters import Params, UsageError
from .steps import Step, find_steps, read_cells

DECIDES = ("data/*.py", "models/*.py", "evaluation/results.py", "evaluation/metrics.py",
           "evaluation/thresholds.py", "evaluation/intervals.py")  # fmt: skip


@dataclass
class Run:
    """A run that is about to happen."""

    folder: paths.RunFolder
    profile: str  # its name
    params: Params
    source: Source  # what data.source stands for
    manifest: Manifest | None = None  # None while the data is still to be drawn or downloaded
    record: dict[str, Any] = field(default_factory=dict)  # run.json as the last run left it
    arguments: Sequence[str] = ()  # what stood on the command line
    temporary: Path | None = None  # for files that go when the run ends; None while nothing runs
    minutes: float = 0  # that a step may take; 0 is no limit
    steps: tuple[Step, ...] = field(default_factory=find_steps)  # in running order

    def model(self, step: Step) -> str:
        """Return the name of the model that a step trains, or an empty string."""
        return self.params.sections[step.section].name if step.section else ""

    @property
    def models(self) -> dict[str, str]:
        """The step that trains each model, by the model's name."""
        return {self.model(step): step.name for step in self.steps if step.section}


@dataclass(frozen=True)
class Decision:
    """What is to be done with a step, and why: ``run``, ``keep`` or ``leave`` (not asked for)."""

    step: Step
    action: str
    reason: str


def artefacts(step: Step, run: Run) -> list[Path]:
    """Return the files that a step must leave behind."""
    folder, model = run.folder, run.model(step)
    files = [folder.executed(step.name), folder.html(step.name)]
    if model:
        chosen = "val" if run.params.data.validation == "val" else "validation"
        files += [folder.predictions(model), folder.model(model), folder.model_card(model)]
        files += [folder.figure(f"confusion_matrix_{model}_{split}") for split in (chosen, "test")]
        files += [folder.metrics]
        if "training_films" in read_json(folder.model_card(model)):
            files += [folder.training_films(model)]
    return files


@functools.cache
def package_digest() -> str:
    """Return a digest of the package's code and templates as they are when first asked for."""
    files = sorted([*paths.PACKAGE.rglob("*.py"), *paths.TEMPLATES.glob("*.*")])
    names = [file.relative_to(paths.PACKAGE).as_posix() for file in files]
    return fingerprint.digest_of([*zip(names, map(sha256_of, files), strict=True)])


def numbers_digest(steps: Iterable[str]) -> str:
    """Return a digest of what decides the numbers of steps, but for parameters and data.

    Code, libraries and the notebooks' recipes; a change of what is only shown is none.
    """
    files = [file for pattern in DECIDES for file in sorted(paths.PACKAGE.glob(pattern))]
    recipes = [fingerprint.recipe_in(paths.NOTEBOOKS / f"{step}.ipynb") for step in steps]
    libraries = fingerprint.versions((*fingerprint.TRAINING_LIBRARIES, "pandas", "scipy"))
    return fingerprint.digest_of([libraries, recipes, *map(sha256_of, files)])


def step_key(step: Step, run: Run) -> dict[str, str]:
    """Return what a step's report depends on, each part by its name, as digests."""
    values = _values(step, run)
    named = sha256_of(paths.from_root(values.get("weights", "")))
    inputs = {f"predictions of {other}": sha256_of(run.folder.predictions(model))
              for model, other in run.models.items() if other in step.needs}  # fmt: skip
    if step.needs:  # what studies of seeds found stands beside its scores
        beside = sorted((run.folder.root.parent / "studies").glob("*/study.json"))
        inputs |= {f"study {file.parent.name}": sha256_of(file) for file in beside}
    return {
        "parameters": fingerprint.digest_of(values | {"source": run.source.kind}),
        "data": run.manifest.digest if run.manifest else "",
        "notebook": fingerprint.digest_of(read_cells(step.file)[0]),  # outputs do not count
        "package": package_digest(),
        "libraries": fingerprint.digest_of(fingerprint.versions(fingerprint.LIBRARIES)),
        **({"weights": named} if named else {}),
    } | inputs


def _values(step: Step, run: Run) -> dict[str, Any]:
    """The step's parameters, but for where its files go and where the data lies."""
    names = [name for name in step.parameters if name not in ("run_dir", "source")]
    return profiles.flat(run.params, step.name, names, "")


def validity(step: Step, run: Run) -> str:
    """Return why a step must run, or an empty string where what it left is still valid."""
    done = within(run.record, "steps", step.name)
    known = within(done, "key")
    if not known:
        return "has not run to its end" if done else "has not run yet"
    key = step_key(step, run)
    other = [part for part in key | known if known.get(part) != key.get(part)]
    if "parameters" in other:  # named one by one
        before = within(done, "parameters")
        names = [name for name, now in _values(step, run).items() if before.get(name) != now]
        other[other.index("parameters")] = " and ".join(names) or "parameters"
    if other:
        return f"changed: {', '.join(other)}"
    files = within(done, "files").items()
    spoilt = [name for name, digest in files if sha256_of(run.folder.root / name) != digest]
    return _lacking(step, run) or (f"{spoilt[0]} is not what the step left" if spoilt else "")


def remember(step: Step, run: Run) -> dict[str, str]:
    """Return digests of what a step left, but of ``metrics.json``, which several steps write."""
    files = [file for file in artefacts(step, run) if file != run.folder.metrics]
    return {file.relative_to(run.folder.root).as_posix(): sha256_of(file) for file in files}


def check_artefacts(step: Step, run: Run) -> str:
    """Return what is wrong with what a step has just left behind, or an empty string."""
    wrong, file = _lacking(step, run), run.folder.model(run.model(step))
    card = read_json(run.folder.model_card(run.model(step)))
    if step.section and not wrong and card.get("sha256") != sha256_of(file):
        wrong = f"{file.name} is not the model that was scored"
    return f"{step.name}: ran to its end, but {wrong}; look into its report" if wrong else ""


def _lacking(step: Step, run: Run) -> str:
    """What a step must leave and has not: a file, or the scores of all of its predictions."""
    for file in artefacts(step, run):
        if not file.is_file():
            return f"{file.name} is missing"
    if not (model := run.model(step)):
        return ""
    known, manifest = read_json(run.folder.metrics), run.manifest.digest if run.manifest else None
    scored_file = run.folder.predictions(model)
    with scored_file.open(encoding="utf-8", errors="replace", newline="") as lines:
        rows = sum(1 for _ in csv.DictReader(lines))
    scores = within(known, "models", model)
    scored = sum(split.get("n", 0) for split in scores.values() if isinstance(split, dict))
    same = scores and scored == rows and within(known, "data").get("manifest") == manifest
    return "" if same else "metrics.json does not hold its scores"


def training_ahead(step: Step, run: Run) -> str:
    """Say whether the model of a step that will run will be trained; empty where it has none."""
    if not step.section or not run.manifest:
        return ""
    section, recipe = run.params.sections[step.section], fingerprint.recipe_in(step.file)
    kept = fingerprint.is_trained(section, run.params, run.manifest.digest, recipe, run.folder)
    return "its model is taken as it was trained" if kept else "its model is trained"


def decide(run: Run, asked: Iterable[str] | None = None, force: bool = False) -> list[Decision]:
    """Decide for each step whether it runs: what is asked for and not valid, or all by force.

    Raises UsageError where one that is asked for needs another that is neither valid nor asked for.
    """
    asked = {step.name for step in run.steps} if asked is None else set(asked)
    decisions: dict[str, Decision] = {}
    for step in run.steps:
        if step.name not in asked:
            decisions[step.name] = Decision(step, "leave", "not asked for")
            continue
        needs = [decisions[needed] for needed in step.needs]
        for needed in (one.step for one in needs if one.action == "leave"):
            if reason := validity(needed, run):
                again = f"repeat the command with --from {needed.name}"
                raise UsageError(f"{step.name} needs {needed.name}: {reason}; {again}")
        runs = [f"{one.step.name} runs" for one in needs if one.action == "run"]
        reason = "--force" if force else validity(step, run) or "".join(runs[:1])
        ahead = training_ahead(step, run) if reason and not force else ""
        why = "; ".join(filter(None, [reason, ahead])) or "nothing has changed"
        decisions[step.name] = Decision(step, "run" if reason else "keep", why)
    return list(decisions.values())
