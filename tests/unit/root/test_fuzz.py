"""Whatever is in a profile, a folder or a command: one line, no traceback, no wrong label.

A few cases of each kind on every change, the same each time; make test-long tries hundreds.
"""

import ast
import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from cxr_utils import cli, parameters, paths, profiles
from cxr_utils.data import manifest, sources
from cxr_utils.data.splits import assign_splits, breakdown
from cxr_utils.evaluation import results
from cxr_utils.files import read_json
from cxr_utils.parameters import UsageError
from cxr_utils.pipeline import validity
from cxr_utils.pipeline.steps import find_steps

pytestmark = pytest.mark.fuzz

DEFAULTS = yaml.safe_load((paths.PARAMS / "default.yaml").read_text())
STEPS = find_steps()
NAMES = profiles.parameter_names()
# Names of files, with markup, quotes, line breaks, what looks like a path or a patient.
TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["person1_virus_2", "IM-0001-0001", "../x", "a b", "<script>", "'\"", "{0}", "\n", "=1+1"]
    ),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
PICTURES = {}
for kind, mode in (("PNG", "L"), ("JPEG", "RGB"), ("PNG", "I;16"), ("JPEG", "L")):
    drawn = io.BytesIO()
    pixels = (np.arange(30 * 40).reshape(30, 40) % 251).astype(
        np.uint16 if mode == "I;16" else np.uint8
    )
    image = Image.fromarray(pixels)
    (image if mode == "I;16" else image.convert(mode)).save(drawn, kind)
    PICTURES[f"{mode} {kind}"] = drawn.getvalue()


def _refused(call):
    """Call; returns what came, or None where it was refused in one line."""
    try:
        return call()
    except UsageError as error:
        assert str(error).strip(), "a refusal says why"
        return None


def _load(text, *overrides):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.yaml"
        file.write_bytes(text)
        return _refused(lambda: profiles.load(str(file), overrides))


@given(
    st.binary(max_size=400)
    | st.text(alphabet=":-[]{}&*!|>'\"%@`#,? \n\tabz019.", max_size=200).map(str.encode)
)
def test_profiles_of_any_bytes(text):
    found = _load(text)
    assert found is None or isinstance(found, parameters.Params)


@given(st.integers(0, 5000), st.binary(min_size=0, max_size=6), st.integers(0, 6))
def test_profiles_with_an_accident(place, inserted, removed):
    """Of default.yaml: some bytes lost, some come in their place."""
    text = (paths.PARAMS / "default.yaml").read_bytes()
    place %= len(text)
    found = _load(text[:place] + inserted + text[place + removed :])
    assert found is None or found.model_dump().keys() == DEFAULTS.keys()


@given(st.sampled_from(NAMES) | TEXT, VALUES)
def test_a_value_is_taken_as_it_is_or_refused(name, value):
    """What is accepted is within the ranges: it is accepted again, and it is what was given."""
    tree = json.loads(json.dumps(DEFAULTS))
    *sections, key = name.split(".")
    within = tree
    for section in sections:
        within = within.setdefault(section, {})
        assume(isinstance(within, dict))
    within[key] = value
    found = _refused(lambda: profiles.checked(tree, "here"))
    if found is not None:
        assert profiles.checked(found.model_dump(), "again") == found
        assert name in NAMES
        if not isinstance(value, str | dict):
            assert (
                found.model_dump()[sections[0]][key] == value
                if sections
                else found.model_dump()[key] == value
            )


@given(st.sampled_from(NAMES) | TEXT, TEXT)
def test_overrides_of_any_text(name, value):
    found = _load(b"", f"{name}={value}")
    assert found is None or isinstance(found, parameters.Params)


@given(st.sampled_from(STEPS), TEXT.filter(bool), TEXT.filter(bool))
def test_no_parameter_is_run_as_code(step, source, run_dir):
    """The cell that papermill writes consists of literals, and they are what was given."""
    with contextlib.suppress(UnicodeEncodeError):
        source.encode(), run_dir.encode()
        values = profiles.flat(
            profiles.load("default", source=source), step.name, step.parameters, run_dir
        )
        notebook = load_notebook_node(str(paths.NOTEBOOKS / f"{step.name}.ipynb"))
        notebook = parameterize_notebook(notebook, values, kernel_name="python3", language="python")
        (cell,) = [
            cell
            for cell in notebook.cells
            if "injected-parameters" in cell.metadata.get("tags", [])
        ]
        tree = ast.parse(cell.source)
        assert {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body} == values


@contextlib.contextmanager
def _data(files):
    """A whole, small data set, and files besides; those that no disk takes are left out."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for split in ("train", "test"):
            for label in ("NORMAL", "PNEUMONIA"):
                (root / split / label).mkdir(parents=True)
                for number in range(25):
                    (root / split / label / f"sound{number}.png").write_bytes(PICTURES["L PNG"])
        for split, label, name, content in files:
            with contextlib.suppress(OSError, ValueError):
                (root / split / label).mkdir(parents=True, exist_ok=True)
                (root / split / label / name).write_bytes(content)
        yield root


def _check_labels(found):
    for row in found.files.itertuples():
        split, label, _ = row.path.split("/")
        assert (row.folder, row.label) == (split, label) and (row.subtype == "normal") == (
            label == "NORMAL"
        )
        assert Path(found.root, row.path).is_file()
    breakdown(assign_splits(found.files, parameters.Params().data, 1), "split")


FOLDERS = st.sampled_from(["train", "test", "val", "Train", "validation", "NORMAL", "..", "x"])
LABELS = st.sampled_from(["NORMAL", "PNEUMONIA", "normal", "COVID", ".", "train"])
ENDINGS = st.sampled_from(["", ".jpeg", ".JPG", ".png", ".txt", ".jpeg.png"])
CONTENTS = st.sampled_from(list(PICTURES.values())) | st.binary(max_size=60)


@given(
    st.lists(
        st.tuples(FOLDERS, LABELS, st.tuples(TEXT, ENDINGS).map("".join), CONTENTS), max_size=6
    )
)
def test_folders_of_any_layout(files):
    with _data(files) as root:
        found = _refused(lambda: manifest.read_manifest(root))
        if found is not None:
            _check_labels(found)
            assert len(found.files) >= 100


@given(
    st.sets(st.sampled_from(["train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"])),
    st.booleans(),
)
def test_folders_that_lack_something(missing, empty):
    with _data([]) as root:
        for folder in missing:
            shutil.rmtree(root / folder)
            if empty:
                (root / folder).mkdir()
        assert (_refused(lambda: manifest.read_manifest(root)) is None) == bool(missing)


@given(st.sampled_from(list(PICTURES.values())), st.data())
def test_images_of_any_bytes(content, data):
    """The image is used with its folder's label, or it is left out and named."""
    content = bytearray(content)
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
    ):
        content[place] = byte
    content = bytes(
        content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    ) + data.draw(st.binary(max_size=8))
    with _data([("train", "NORMAL", "person1_virus_1.jpeg", content)]) as root:
        found = manifest.read_manifest(root)
        _check_labels(found)
        name = "train/NORMAL/person1_virus_1.jpeg"
        assert (name in set(found.files["path"])) != (name in set(found.left_out["path"]))


@given(TEXT, st.sampled_from(["NORMAL", "PNEUMONIA"]))
def test_a_name_never_changes_the_label(stem, label):
    patient, subtype = manifest.parse_name(stem, label)
    assert isinstance(patient, str) and (subtype == "normal") == (label == "NORMAL")


WORDS = [
    "--list",
    "--dry-run",
    "--set",
    "--only",
    "--run",
    "--out",
    "run.json",
    "--time-limit",
    "smoke",
    "01",
]


@given(st.lists(st.sampled_from(WORDS) | TEXT, max_size=5))
def test_commands_of_any_words(words):
    """Nothing is run: each command only looks."""
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            code = cli.guarded(
                cli.run_all, ["--out", folder, *words, "--dry-run", "--data", "phantom"]
            )
        except SystemExit as stopped:  # --help
            code = stopped.code
    lines = said.getvalue().splitlines()
    assert code == 0 or (code == 2 and len(lines) == 1 and lines[0].startswith("error: ")), (
        words,
        code,
        lines,
    )


RECORDED = st.dictionaries(
    st.sampled_from(["parameters", "data", "versions", "machine", "run", "profile", "steps"]),
    VALUES,
)


@given(RECORDED | VALUES, st.booleans())
def test_records_of_any_content(record, mixed):
    whole = {
        "parameters": DEFAULTS,
        "data": {"source": "phantom"},
        "versions": {},
        "machine": {},
        "run": "x",
        "profile": "default",
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UnicodeEncodeError):
        file = Path(folder) / "run.json"
        file.write_text(
            json.dumps({**whole, **record} if mixed and isinstance(record, dict) else record),
            encoding="utf-8",
        )
        found = _refused(lambda: profiles.load(str(file)))
        assert found is None or isinstance(found, parameters.Params)


@given(
    st.dictionaries(st.sampled_from(["steps", "data", "problems", "parameters"]), VALUES) | VALUES,
    VALUES,
    VALUES,
)
def test_odd_files_in_a_run_folder_are_run_over(record, scores, card):
    """Whatever a run's own files hold, its steps are found to be run, not to be right."""
    asked = profiles.load("smoke", ["data.source=phantom"])
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UnicodeEncodeError):
        root = paths.RunFolder(Path(folder) / "run").make()
        files = {
            root.record: record,
            root.metrics: {"models": scores, "data": scores},
            root.model_card("baseline_cnn"): card,
        }
        for file, content in files.items():
            file.write_text(json.dumps(content), encoding="utf-8")
        known = manifest.Manifest(root.root, None, None, "digest")
        run = validity.Run(
            root, "smoke", asked, sources.plan(asked.data), known, read_json(root.record)
        )
        assert {decision.action for decision in validity.decide(run)} == {"run"}
        assert all(
            "trained" in validity.training_ahead(step, run) for step in STEPS if step.section
        )
        results.forget("baseline_cnn", root)
