"""Draws docs/report.png: the first two sections of a report, as Chromium shows them.

python docs/draw_report.py REPORT_FOLDER [CHROMIUM]
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "report.png"
PAGE = "index.html"
SECTIONS = 2
PIXELS = 1100
"""Of the picture's width: a small laptop's, so that its letters can be read on a page."""
MARGIN = 8


def main(report: Path, chromium: str) -> None:
    """Opens the report's page and takes a picture of what the first sections cover."""
    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that containers seldom give; the page is one's own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": PIXELS, "height": PIXELS})
        page.goto((report / PAGE).resolve().as_uri())
        last = page.locator("main section").nth(SECTIONS - 1).bounding_box()
        if last is None:
            raise SystemExit(f"error: {report} has fewer than {SECTIONS} sections")
        height = last["y"] + last["height"] + MARGIN
        page.screenshot(path=PICTURE, full_page=True, clip={"x": 0, "y": 0, "width": PIXELS, "height": height})
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder of a report, with its index.html")
    parser.add_argument("chromium", nargs="?", default=shutil.which("chromium"), help="the browser; found, if absent")
    arguments = parser.parse_args()
    if not (arguments.report / PAGE).is_file():
        parser.error(f"{arguments.report} holds no {PAGE}; make a report there by python -m slimjax.report")
    if not arguments.chromium:
        parser.error("Chromium was not found; install it, or give its path")
    main(arguments.report, arguments.chromium)
