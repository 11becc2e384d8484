"""The notebooks in a real JupyterLab, driven through a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from cxr_utils import paths
from cxr_utils.pipeline.steps import find_steps

STEPS = [step.name for step in find_steps()]
SMALL = {
    "source": '"phantom"', "phantom_images": 120, "phantom_size": 64,
    "epochs": 1, "image_size": 48, "batch_size": 16, "backbone": '"MobileNet"',
    "weights": '"none"', "resamples": 200,
}  # fmt: skip
PATIENCE = 240_000  # milliseconds for a notebook


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project whose notebooks have small defaults, so that they run in seconds."""
    root = tmp_path_factory.mktemp("lab")
    for name in ("cxr_utils", "notebooks", "params"):
        shutil.copytree(
            paths.ROOT / name,
            root / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    for file in (root / "notebooks").glob("*.ipynb"):
        notebook = json.loads(file.read_text())
        for cell in notebook["cells"]:
            if "parameters" in cell["metadata"].get("tags", []):
                lines = [
                    re.sub(r"= .*", f"= {SMALL[line.split(':')[0]]}", line)
                    if line.split(":")[0] in SMALL
                    else line
                    for line in cell["source"]
                ]
                cell["source"] = lines
        file.write_text(json.dumps(notebook))
    return root


@pytest.fixture(scope="module")
def lab(project, tmp_path_factory):
    """A JupyterLab on 127.0.0.1 with settings of its own, which draws every cell."""
    settings = tmp_path_factory.mktemp("settings")
    tracker = (
        settings / "user" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    )
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')
    environment = os.environ | {
        "PYTHONPATH": str(project),
        "CXR_DATA": "",
        "JUPYTERLAB_SETTINGS_DIR": str(settings / "user"),
        "JUPYTER_RUNTIME_DIR": str(settings / "runtime"),
        "JUPYTER_CONFIG_DIR": str(settings / "config"),
        "JUPYTER_DATA_DIR": str(settings / "data"),
    }  # fmt: skip
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--IdentityProvider.token=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    options += ["--allow-root", f"--ServerApp.root_dir={project}"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options],
        env=environment,
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (
        not (found := list((settings / "runtime").glob("jpserver-*.json")))
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    yield json.loads(found[0].read_text())["url"]
    server.terminate()
    server.wait(30)


def _open(browser, lab, step):
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{lab}lab/tree/notebooks/{step}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    page.locator("#jp-main-statusbar", has_text="Idle").wait_for()
    return page


def _run_all(page):
    started = "document.querySelector('.jp-Notebook').textContent.includes('[*]:')"
    for _ in range(6):  # who is faster than the kernel is not heard, or is asked which one to start
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        for _ in range(50):
            page.wait_for_timeout(200)
            if page.locator(".jp-Dialog .jp-mod-accept").count():
                page.locator(".jp-Dialog .jp-mod-accept").click()
            if page.evaluate(started):
                break
        if page.evaluate(started):
            break
    seen = set()
    deadline = time.monotonic() + PATIENCE / 1000
    while (
        "[*]:" in (prompts := page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents())
        and time.monotonic() < deadline
    ):
        shown = page.locator(".jp-Notebook").inner_text()
        seen.update(re.findall(r"Epoch \d+/\d+|\d+/\d+ - \d+s", shown))
        time.sleep(0.2)
    assert "[*]:" not in prompts and all(re.fullmatch(r"\[\d+\]:", prompt) for prompt in prompts), (
        prompts
    )
    return seen


def _errors(page):
    return page.locator(
        ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
    ).all_text_contents()


def _set(page, name, value):
    """Type another value into the line of a parameter, which ends in one digit."""
    line = page.locator(".jp-CodeCell .cm-line", has_text=re.compile(rf"^{name}: \w+ = \d$"))
    line.click()
    page.keyboard.press("End")
    page.keyboard.press("Backspace")
    page.keyboard.type(str(value))


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=() if step == STEPS[0] else pytest.mark.long) for step in STEPS],
)
def test_run_all_shows_plots_and_no_error(browser, lab, step):
    """In their order, so that 04 finds predictions; 02 with a parameter that is typed in."""
    page = _open(browser, lab, step)
    if step == "02_baseline_cnn":
        _set(page, "epochs", 2)
    progress = _run_all(page)
    assert _errors(page) == []
    pictures = page.eval_on_selector_all(
        ".jp-OutputArea-output img", "all => all.map(img => [img.alt, img.naturalWidth])"
    )
    assert len(pictures) >= 3 and all(
        alt.startswith("SYNTHETIC") and len(alt) > 30 and width for alt, width in pictures
    )
    assert bool(progress) == (step in ("02_baseline_cnn", "03_resnet50v2")), (
        "progress of the training while it runs"
    )
    if step == "02_baseline_cnn":
        assert "Epoch 2/2" in page.locator(".jp-Notebook").inner_text()
    if step == "04_comparison":
        page.locator("#threshold-slider button[data-cut='0.9']").click()
        assert page.text_content("output[data-show=cut]") == "0.900"
    page.context.close()
