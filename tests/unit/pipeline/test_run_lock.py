"""One run at a time in a folder, and nothing left of those that were killed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cxr_utils import paths
from cxr_utils.parameters import UsageError
from cxr_utils.pipeline.run import alone_in


@pytest.fixture
def folder(tmp_path):
    return paths.RunFolder(tmp_path / "run").make()


def test_the_holder_is_named(folder):
    """By another process, as two runs of one user are."""
    code = "from cxr_utils import paths; "
    code += f"folder = paths.RunFolder(paths.Path({str(folder.root)!r}))\n"
    code += "from cxr_utils.pipeline.run import alone_in\nwith alone_in(folder): pass"
    with alone_in(folder) as temporary:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert (
            f"process {os.getpid()} on " in done.stderr and "give another --run NAME" in done.stderr
        )
        assert temporary.is_dir() and temporary.stat().st_mode & 0o77 == 0
    assert not temporary.exists() and not folder.holder.exists()
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_killed_run_left_is_removed(folder):
    left = Path(tempfile.mkdtemp(prefix="cxr-"))
    (left / "kernel.json").touch()
    folder.holder.write_text(json.dumps({"files": str(left)}))
    parts = [folder.root / ".index.1.part.html", folder.root / "models" / ".x.1.part.keras"]
    for part in parts:
        part.touch()
    (folder.root / "models" / "x.keras").touch()
    with alone_in(folder):
        assert (
            not left.exists()
            and not any(part.exists() for part in parts)
            and (folder.root / "models" / "x.keras").exists()
        )


def test_a_record_of_the_holder_cannot_have_other_folders_removed(folder, tmp_path):
    precious = Path(tempfile.mkdtemp(prefix="precious"))
    linked = Path(tempfile.gettempdir()) / f"cxr-{os.getpid()}"
    linked.symlink_to(precious)
    try:
        for named in (
            str(precious),
            str(tmp_path),
            str(linked),
            f"{tempfile.gettempdir()}/cxr-x/../{precious.name}",
            "",
            7,
        ):
            folder.holder.write_text(json.dumps({"files": named}))
            with alone_in(folder):
                assert precious.is_dir() and tmp_path.is_dir()
    finally:
        linked.unlink()
        precious.rmdir()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"cannot be written .* give another folder with --out"),
        alone_in(paths.RunFolder(tmp_path / "file" / "run")),
    ):
        pass


def test_a_long_name_for_temporary_files_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
    with (
        pytest.raises(UsageError, match="set TMPDIR to a folder with a shorter one"),
        alone_in(folder),
    ):
        pass
