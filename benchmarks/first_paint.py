"""Measures how long a browser takes to show each page of a run, beside an empty page.

    python benchmarks/first_paint.py reports/default

Needs Debian's ``chromium`` (or one named by ``$CHROMIUM``). Pages are opened from their files,
without a network, each in a fresh context; the first page of all warms the browser up and does not
count.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import pandas as pd
from playwright.sync_api import Browser, sync_playwright

EMPTY = "<!DOCTYPE html><html lang='en'><title>empty</title><p>nothing</p></html>"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> None:
    """Print the medians of the first contentful paint of each page, and their ratios to an
    empty page's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        empty = Path(folder) / "empty.html"
        empty.write_text(EMPTY, encoding="utf-8")
        pages = [empty, *sorted(asked.run.resolve().glob("*.html"))]
        browser = driver.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox"],
        )
        paint(browser, empty)
        times = {page: [] for page in pages}
        for _ in range(asked.rounds):
            for page in pages:
                times[page].append(paint(browser, page))
        browser.close()
        limit = statistics.median(times[empty])
        rows = [
            [
                page.name,
                page.stat().st_size / 1e6,
                statistics.median(found),
                statistics.median(found) / limit,
            ]
            for page, found in times.items()
        ]
    print(
        pd.DataFrame(rows, columns=["page", "MB", "first paint (ms)", "of an empty page"])
        .round(2)
        .to_string(index=False)
    )


def paint(browser: Browser, file: Path) -> float:
    """Return the milliseconds from asking for a page to its first paint."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_function(f"{PAINTED} > 0")
    found = page.evaluate(PAINTED)
    context.close()
    return found


if __name__ == "__main__":
    main()
