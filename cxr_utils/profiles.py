"""Profiles and overrides become parameters; parameters become the arguments of a notebook."""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from . import paths
from .files import within
from .parameters import Params, UsageError


def load(profile: str, overrides: Iterable[str] = (), source: str | None = None) -> Params:
    """Read a profile and apply overrides; a `source` replaces ``data.source``, as it is.

    Raises UsageError where the profile is unknown or not YAML, or a parameter is unknown, mistyped
    or out of range.

    Parameters
    ----------
    profile : str
        A file in ``params/`` by its stem, or a path to a YAML file or to the ``run.json`` of a run.
    overrides : iterable of str
        ``SECTION.KEY=VALUE`` or ``seed=VALUE``, in order.
    """
    path = _path(profile)
    tree = _recorded(path) if path.suffix == ".json" else _read(path)
    shown = [str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)]
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            like = "write --set SECTION.KEY=VALUE, as in --set baseline_cnn.epochs=3"
            raise UsageError(f"--set {override}: no value given; {like}")
        try:
            _put(tree, key.strip().split("."), yaml.safe_load(text))
        except (yaml.YAMLError, RecursionError, ValueError):
            like = "quote it, as in --set 'data.source=\"my folder\"'"
            raise UsageError(f"--set {key}: the value is not valid YAML; {like}") from None
        shown.append(f"--set {key}")  # a value may be a secret that was put in the wrong place
    if source is not None:
        _put(tree, ["data", "source"], source)
    return checked(tree, " ".join(shown))


def _path(profile: str) -> Path:
    path = Path(profile).expanduser()
    known = sorted(file.stem for file in paths.PARAMS.glob("*.yaml"))
    if profile in known:
        return paths.PARAMS / f"{profile}.yaml"
    if path.suffix not in (".yaml", ".yml", ".json"):
        close = nearest(profile, known)
        raise UsageError(f"profile {profile!r}: not in params/{close}; known: {', '.join(known)}")
    if not path.is_file():
        like = f"a path to a YAML file, a run.json, or one of: {', '.join(known)}"
        raise UsageError(f"profile {profile}: there is no such file; give {like}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"profile {path}: cannot be read ({error}); check the file") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        kind, why = path.suffix[1:].upper(), " ".join(str(error).split())
        raise UsageError(f"profile {path}: not valid {kind} ({why}); mend that line") from None
    if not isinstance(tree, dict | None):
        found = f"expected sections with keys, found {type(tree).__name__}"
        raise UsageError(f"profile {path}: {found}; see params/default.yaml")
    return tree or {}


def _recorded(path: Path) -> dict[str, Any]:
    """The parameters that a ``run.json`` holds, with what ``auto`` came to in its place."""
    record = _read(path)
    tree, data = within(record, "parameters"), within(record, "data")
    if not tree or "source" not in data:
        raise UsageError(f"profile {path}: not the run.json of a run; give reports/NAME/run.json")
    known = data.get("root") if data["source"] == "folder" else data["source"]
    _put(tree, ["data", "source"], known)
    for step, done in within(record, "steps").items():
        section = within(tree, step.partition("_")[2])
        used = within(done, "came_to", "precision").get("used")
        kind = within(done, "came_to", "start").get("kind")
        if section and used and kind:
            section["precision"] = used
            if section.get("weights") == "auto":
                section["weights"] = "none" if kind == "random" else kind
    return tree


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    where, remedy = ".".join(keys), "see params/default.yaml"
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(f"{where}: {key} is not a section but {tree!r}; {remedy}")
    tree[keys[-1]] = value


def changed(params: Params, changes: Mapping[str, Any], where: str) -> Params:
    """Return parameters with some, each by ``section.key``, changed; raises as `checked` does."""
    tree = params.model_dump()
    for name, value in changes.items():
        _put(tree, name.split("."), value)
    return checked(tree, where)


def checked(tree: dict[str, Any], where: str) -> Params:
    """Return the parameters in a tree of sections; raises UsageError, which says `where`."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
    name, kind = ".".join(map(str, first["loc"])), first["type"]
    said = f"{name} = {first['input']!r}"
    if kind == "extra_forbidden":
        wrong = f"unknown parameter {name}{nearest(name, parameter_names())}"
    elif kind == "value_error":
        wrong = ".".join(filter(None, [name, str(first["ctx"]["error"])]))
    elif kind == "string_pattern_mismatch":  # it may hold a password: not said
        wrong = f"{name} must be an address (https://host/folder) without user, password or token"
    elif kind == "literal_error":
        allowed = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        known = f"; it is one of {', '.join(allowed[:6])}"
        wrong = f"{said} is not known{nearest(str(first['input']), allowed) or known}"
    elif len(first["loc"]) == 1 and name != "seed":
        wrong = f"{name} is a section; give {name}.KEY a value, see params/default.yaml"
    else:
        message = first["msg"][:1].lower() + first["msg"][1:]
        wrong = f"{said}: {message}; see docs/parameters.md for ranges"
    raise UsageError(f"{where}: {wrong}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the most similar known name, or an empty string."""
    known = list(known)
    tails = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(known)}
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = found or difflib.get_close_matches(name.rsplit(".", 1)[-1], tails, n=1)
    return f"; did you mean {tails.get(close[0], close[0])}?" if close else ""


def parameter_names() -> list[str]:
    """Return every parameter as ``section.key`` (and the sections and ``seed`` themselves)."""
    found = []
    for name, value in Params().model_dump().items():
        found += [name, *(f"{name}.{key}" for key in (value if isinstance(value, dict) else ()))]
    return found


def _arguments(step: str) -> dict[str, str | None]:
    """What a step's notebook may take, each with the section that it stands in."""
    taken = ("data", "augmentation", "evaluation", step.partition("_")[2])
    sections = [(part, fields) for part, fields in Params() if part in taken]
    return {"run_dir": None, "seed": None,
            **{name: part for part, fields in sections for name, _ in fields}}  # fmt: skip


def flat(params: Params, step: str, names: Iterable[str], run_dir: str | Path) -> dict[str, Any]:
    """Return the values of a notebook's parameters, by name, as the runner passes them.

    Raises UsageError where the notebook has a parameter that is none of this step.
    """
    known, values = _arguments(step), {}
    for name in names:
        if name not in known:
            said = f"its parameters cell has {name}, which is no parameter{nearest(name, known)}"
            raise UsageError(f"notebooks/{step}.ipynb: {said}")
        part = known[name]
        values[name] = getattr(getattr(params, part) if part else params, name, str(run_dir))
    return values


def gather(step: str, names: Mapping[str, Any]) -> Params:
    """Collect a notebook's parameters from its ``globals()``; what it does not have is as default.

    Raises UsageError where a value is out of range or of the wrong type.
    """
    tree: dict[str, Any] = {}
    for name, part in _arguments(step).items():
        if name in names and name != "run_dir":
            (tree.setdefault(part, {}) if part else tree)[name] = names[name]
    return checked(tree, f"parameters cell of {step}")


def reference() -> str:
    """Return every parameter with its default, what it may be, and its meaning, as Markdown."""
    import jinja2  # here, as no run needs it

    text = (paths.TEMPLATES / "parameters.md.j2").read_text(encoding="utf-8")
    template = jinja2.Template(text, trim_blocks=True, lstrip_blocks=True)
    return template.render(schema=Params.model_json_schema()).strip() + "\n"
