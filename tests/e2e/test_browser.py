"""The reports in a real browser, from files, offline: all can read them, and the slider counts."""

import json
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from cxr_utils import paths
from cxr_utils.evaluation import results
from cxr_utils.pipeline.steps import find_steps
from cxr_utils.reporting import tables

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="no axe: it comes with the extra 'dev'"
)

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PAGES = ["index", *(step.name for step in find_steps())]
MARKUP = (
    "<img src=x onerror=alert(1)><script>alert(2)<"  # no slash, so that it can be a file's name
)


@pytest.fixture(scope="module")
def models(run):
    return list(results.read_metrics(run)["models"])


class Visit:
    """A page opened from its file, with what it asked for and complained about."""

    def __init__(self, browser, file, viewport=DESK, scheme="light"):
        self.asked, self.said = [], []
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on(
            "console",
            lambda message: (
                self.said.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on(
            "dialog",
            lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()),
        )
        self.page.goto(file.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def _file(run, name):
    return run.root.parent / "index.html" if name == "runs" else run.root / f"{name}.html"


@pytest.mark.parametrize("name", [*PAGES, "runs"])
def test_page_is_whole_and_quiet(browser, run, name):
    with Visit(browser, _file(run, name)) as visit:
        assert visit.said == []
        assert [url for url in visit.asked[1:] if not url.startswith("data:")] == []
        pictures = visit.page.eval_on_selector_all(
            "img", "all => all.map(img => [img.alt, img.complete && img.naturalWidth > 0])"
        )
        assert all(
            len(alt) > 20 and "No description" not in alt and drawn for alt, drawn in pictures
        )
        assert pictures or name == "runs"
        links = visit.page.eval_on_selector_all(
            "a[href]", "all => all.map(a => a.getAttribute('href'))"
        )
        assert [
            link
            for link in links
            if link[0] == "#" and not visit.page.locator(f"[id='{unquote(link[1:])}']").count()
        ] == []
        for link in (link for link in links if not link.startswith(("#", "http"))):
            target, _, part = unquote(link).partition("#")
            content = (_file(run, name).parent / target).read_text()
            assert not part or f'id="{part}"' in content


@pytest.mark.parametrize("look", ["light", "dark", "print"])
@pytest.mark.parametrize("name", [*PAGES, "runs"])
def test_axe_finds_nothing(browser, run, name, look):
    """As it opens on a phone, and unfolded on a desk, as hidden text is not looked at."""
    scheme = "light" if look == "print" else look
    with Visit(browser, _file(run, name), viewport=PHONE, scheme=scheme) as visit:
        visit.page.emulate_media(media="print" if look == "print" else "screen")
        for viewport, opened in ((PHONE, "false"), (DESK, "true")):
            visit.page.set_viewport_size(viewport)
            visit.page.evaluate(
                f"document.querySelectorAll('details').forEach(part => part.open = {opened})"
            )
            found = [
                (violation["impact"], violation["id"], violation["nodes"][0]["html"][:200])
                for violation in axe.Axe().run(visit.page).response["violations"]
            ]
            assert found == []


@pytest.mark.parametrize("name", [*PAGES, "runs"])
def test_no_sideways_scroll_on_a_phone(browser, run, name):
    with Visit(browser, _file(run, name), viewport=PHONE) as visit:
        visit.page.evaluate(
            "document.querySelectorAll('details').forEach(part => part.open = true)"
        )
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def _counts(run, model, cut):
    frame = pd.read_csv(run.predictions(model), float_precision="round_trip").query(
        "split == 'test'"
    )
    sick, called = (frame["label"] == "PNEUMONIA").to_numpy(), frame["score"].to_numpy() >= cut
    return {
        "tp": np.sum(sick & called),
        "fn": np.sum(sick & ~called),
        "tn": np.sum(~sick & ~called),
        "fp": np.sum(~sick & called),
    }


def _shown(page, model):
    row = f"tr[data-model={model}]"
    return {
        name: page.text_content(f"{row} [data-show={name}]")
        for name in ("tp", "fn", "tn", "fp", "sensitivity", "specificity", "ppv")
    }


@pytest.mark.parametrize("name", ["index", "04_comparison"])
def test_slider_by_keyboard_counts_as_numpy(browser, run, models, name):
    with Visit(browser, _file(run, name)) as visit:
        page = visit.page
        page.focus("#threshold-slider-cut")
        scores = np.concatenate(
            [
                pd.read_csv(run.predictions(model)).query("split == 'test'")["score"]
                for model in models
            ]
        )
        seen = set()
        for thousandths in (
            0,
            *np.ceil(np.quantile(scores, (0.1, 0.3, 0.5, 0.7, 0.9)) * 1000).astype(int),
        ):
            page.keyboard.press("Home")
            for key in ["PageUp"] * (thousandths // 100) + ["ArrowRight"] * (thousandths % 100):
                page.keyboard.press(key)
            seen.add(_check_counts(run, page, models))
        page.keyboard.press("PageDown")
        seen.add(_check_counts(run, page, models))
        page.keyboard.press("End")
        seen.add(_check_counts(run, page, models))
        assert len(seen) >= 4


def _check_counts(run, page, models):
    """Compare the page with NumPy's counts at the slider's threshold; returns those."""
    cut, seen = float(page.input_value("#threshold-slider-cut")), []
    for model in models:
        counts, shown = _counts(run, model, cut), _shown(page, model)
        assert {key: int(shown[key]) for key in counts} == counts, (cut, model)
        assert float(shown["sensitivity"]) == pytest.approx(
            counts["tp"] / (counts["tp"] + counts["fn"]), abs=5e-4
        )
        seen += counts.values()
    assert f"{cut:.3f}" in page.text_content("output[data-show=cut]")
    return tuple(map(int, seen))


def test_slider_starts_with_and_returns_to_the_matrices_of_the_run(browser, run, models):
    known = json.loads(run.metrics.read_text())["models"]

    def check(page):
        for model in models:
            shown, test = _shown(page, model), known[model]["test"]
            (tn, fp), (fn, tp) = test["confusion_matrix"]
            assert [int(shown[name]) for name in ("tn", "fp", "fn", "tp")] == [tn, fp, fn, tp]
            assert shown["ppv"] == tables.three(test["ppv"])  # at the prevalence of test

    with Visit(browser, run.html("04_comparison")) as visit:
        check(visit.page)
        visit.page.locator("#threshold-slider button[data-cut='0.9']").press("Enter")
        assert _shown(visit.page, models[0])["tp"] == str(_counts(run, models[0], 0.9)["tp"])
        visit.page.locator("#threshold-slider button[data-cut='own']").press("Enter")
        check(visit.page)


def test_prevalence_moves_ppv_by_bayes(browser, run, models):
    with Visit(browser, run.index) as visit:
        page = visit.page
        page.locator("#threshold-slider button[data-cut='0.5']").press("Enter")
        page.focus("#threshold-slider-share")
        page.keyboard.press("Home")
        for _ in range(99):
            page.keyboard.press("ArrowRight")
        share = float(page.input_value("#threshold-slider-share"))
        assert share == pytest.approx(0.1)
        for model in models:
            counts, shown = _counts(run, model, 0.5), _shown(page, model)
            hit = counts["tp"] / (counts["tp"] + counts["fn"]) * share
            alarm = counts["fp"] / (counts["fp"] + counts["tn"]) * (1 - share)
            assert shown["ppv"] == (f"{hit / (hit + alarm):.3f}" if hit + alarm else "undefined")
        assert "PPV" in page.text_content("[role=status]")


def test_the_index_answers_first(browser, run, models):
    """Before any scrolling: what each model misses and which is better; then reasons to doubt."""
    with Visit(browser, run.index) as visit:
        cards = visit.page.locator(".card .counts").all_text_contents()
        first = visit.page.evaluate(
            "[...document.querySelectorAll('h1, .banner, .card, h1 ~ ul')]"
            ".filter(one => one.getBoundingClientRect().top < innerHeight)"
            ".map(one => one.innerText).join(' ')"
        )
        doubts = visit.page.locator(".findings .warning").all_text_contents()
        links = visit.page.eval_on_selector_all(".findings a", "all => all.map(a => a.href)")
    known = json.loads(run.metrics.read_text())["models"]
    for name, card in zip(models, cards, strict=True):
        (tn, fp), (fn, tp) = known[name]["test"]["confusion_matrix"]
        assert f"Misses {fn} of {fn + tp}" in card
        assert f"{fp} false alarms on {tn + fp}" in card
    assert "SYNTHETIC" in first and "AUROC" in first and "medical device" not in first
    assert doubts and all(link.endswith(".html") for link in links)


@pytest.mark.parametrize("name", PAGES)
def test_what_was_found_stands_under_the_title(browser, run, name):
    with Visit(browser, _file(run, name)) as visit:
        headings = visit.page.locator("h2").all_text_contents()
    assert headings[0].startswith("Key findings") or name == "index"


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_report_by_keyboard(browser, run, width):
    """The switch for all code, the contents, the filters and an enlarged film."""
    with Visit(browser, run.html("02_baseline_cnn"), viewport=width) as visit:
        page = visit.page
        codes = page.locator("details.code")
        assert codes.count() > 5 and not any(part.is_visible() for part in codes.all())
        page.locator("#code-switch").press("Enter")
        assert all(part.is_visible() for part in codes.all())
        page.locator("#code-switch").press("Enter")
        assert not any(part.is_visible() for part in codes.all())
        page.locator("nav.contents a", has_text="Errors").press("Enter")
        page.locator("nav.contents a[aria-current]", has_text="Errors").wait_for()
        page.locator(".gallery select[name=kind]").select_option("found")
        shown = [one for one in page.locator(".gallery .case").all() if one.is_visible()]
        assert shown and all("found" in one.inner_text() for one in shown)
        shown[0].locator("button").press("Enter")
        page.locator(".gallery dialog img").first.wait_for()
        page.keyboard.press("Escape")
        assert not page.locator(".gallery dialog").is_visible()


def test_figures_and_tables_can_be_downloaded(browser, run):
    with Visit(browser, run.html("04_comparison")) as visit:
        page = visit.page
        with page.expect_download() as figure:
            page.locator("figure.plot button").first.press("Enter")
        assert figure.value.suggested_filename == "comparison.svg"
        with page.expect_download() as table:
            page.locator(".scroll + button").first.press("Enter")
        content = table.value.path().read_text()
        assert '"AUROC"' in content and "baseline" in content.lower()


WORD, DECIMAL = re.compile(r"[A-Za-z][\w'’-]*"), re.compile(r"\d\.\d+")


def test_a_run_is_read_in_minutes(browser, run):
    """Words and decimals in view, all folded parts closed: budgets of the five pages together."""
    said = ""
    for name in PAGES:
        with Visit(browser, _file(run, name)) as visit:
            said += visit.page.inner_text("body")
        limit = 1_500_000 if name == "01_eda" else 1_000_000
        assert _file(run, name).stat().st_size < limit
    assert 2000 < len(WORD.findall(said)) <= 5000
    assert 100 < len(DECIMAL.findall(said)) <= 500


def test_print_shows_the_report_and_nothing_to_press(browser, run):
    with Visit(browser, run.html("02_baseline_cnn")) as visit:
        visit.page.emulate_media(media="print")
        hidden = visit.page.locator("nav, .tool, #code-switch, .filters, details, p.end")
        assert not any(part.is_visible() for part in hidden.all())
        assert visit.page.locator("figure.plot").first.is_visible()
        assert visit.page.locator(".case img").first.is_visible()
        visit.page.set_viewport_size({"width": 700, "height": 1000})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 700


@pytest.mark.long
def test_markup_in_names_is_text(browser, run_all, phantom_root, tmp_path):
    """Of files, patients, the data's folder and the run: it is there to read, and nothing ran."""
    data, out = tmp_path / "named" / "data", tmp_path / "pages"
    shutil.copytree(phantom_root, data)
    for file in (data / "test").glob("*/*.jpeg"):
        file.rename(file.with_name(MARKUP + file.name))
    small = ("--set", "resnet50v2.backbone=MobileNet")
    done = run_all("smoke", "--data", data, "--out", out, "--run", MARKUP, *small)
    assert done.returncode == 0, done.stderr
    named = paths.RunFolder(out / MARKUP)
    for name in (*PAGES, "runs"):
        with Visit(browser, _file(named, name)) as visit:
            assert MARKUP in visit.page.inner_text("main")
            assert visit.page.locator("main img[src=x]").count() == 0 and visit.said == []


def test_first_paint_is_measured_beside_an_empty_page(browser, run):
    command = [
        sys.executable,
        paths.ROOT / "benchmarks" / "first_paint.py",
        run.root,
        "--rounds",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (
        all(f"{name}.html" in done.stdout for name in PAGES) and "of an empty page" in done.stdout
    )
