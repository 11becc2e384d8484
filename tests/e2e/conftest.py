"""What the tests of whole runs share: one smoke run on the SYNTHETIC phantom, and a browser."""

import dataclasses
import fcntl
import json
import os
import shutil
import time

import faults
import pytest

from cxr_utils import paths


@dataclasses.dataclass
class Finished:
    """A command that has ended, and what it took."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


@pytest.fixture(scope="session")
def out(tmp_path_factory, request):
    """The reports' folder of the shared run, one for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    return shared / "re{ports}"  # braces, which papermill would format


@pytest.fixture(scope="session")
def smoke_run(run_all, out):
    """One run, the command with what it said; in whichever process asks first."""
    told = out.with_name("smoke.json")
    with out.with_name("smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            started = time.monotonic()
            done = run_all(*faults.COMMAND, "--out", out, KAGGLE_KEY=faults.SECRET)
            seconds = time.monotonic() - started
            told.write_text(json.dumps([done.returncode, done.stdout, done.stderr, seconds]))
    return Finished(*json.loads(told.read_text()))


@pytest.fixture(scope="session")
def run(smoke_run, out, phantom_root):
    """What the shared run left, to be read; who changes it takes a copy.

    Its data is in the cache of this process too, as what is valid is told by it.
    """
    assert smoke_run.returncode == 0, smoke_run.stderr
    return paths.RunFolder(out / "smoke")


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the shared run, in a folder of reports of its own."""
    return paths.RunFolder(shutil.copytree(run.root, tmp_path / "copy" / "smoke"))


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a window."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: it comes with the extra 'dev'"
    )
    found = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if not found:
        pytest.skip("no Chromium: apt install chromium")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=["desk", "phone", "dark"])
def looked_at(browser, request):
    """Open a page on a desk, a phone and in the dark: whole, offline, accessible to axe."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    wide = 390 if request.param == "phone" else 1280
    scheme = "dark" if request.param == "dark" else "light"
    view = {"width": wide, "height": 844}
    context = browser.new_context(viewport=view, color_scheme=scheme, offline=True)

    def look(file):
        shown, asked, said = context.new_page(), [], []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
        shown.goto(file.as_uri())
        assert [url for url in asked[1:] if not url.startswith("data:")] == [] and said == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= wide
        violations = axe.Axe().run(shown).response["violations"]
        assert [violation["id"] for violation in violations] == []
        return shown

    yield look
    context.close()
