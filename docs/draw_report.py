"""Draws docs/report.png: the first two sections of a report, as Chromium shows them.

python docs/draw_report.py REPORT_FOLDER [CHROMIUM]
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "report.png"
SECTIONS = 2
PIXELS = 1100
"""Of the picture's width: a small laptop's, so that its letters can be read on a page."""
MARGIN = 8


def main(report: Path, chromium: str | None = None) -> None:
    """Opens the report's page and takes a picture of what the first sections cover."""
    with sync_playwright() as playwright:
        path = chromium or shutil.which("chromium")
        # Chromium's sandbox needs rights that containers seldom give; the page is one's own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": PIXELS, "height": PIXELS})
        page.goto((report / "index.html").resolve().as_uri())
        last = page.locator("main section").nth(SECTIONS - 1).bounding_box()
        assert last is not None, f"{report} has fewer than {SECTIONS} sections"
        height = last["y"] + last["height"] + MARGIN
        page.screenshot(path=PICTURE, full_page=True, clip={"x": 0, "y": 0, "width": PIXELS, "height": height})
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
