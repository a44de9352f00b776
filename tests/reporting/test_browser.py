"""Pages of reports in a real browser: of one run, of two that are compared, and of detectors."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import STEPS_OF_ONE

from slimjax.analysis.plot_style import COLOURS
from slimjax.reporting.charts import LESS, MORE, STRONGEST_CELL
from slimjax.reporting.page import write_page
from slimjax.reporting.sections.batch_norms import batch_norm_section
from slimjax.reporting.sections.comparison import comparison_section
from slimjax.reporting.sections.costs import costs_section
from slimjax.reporting.sections.curves import curves_section
from slimjax.reporting.sections.detections import detections_section

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Of the pages, for people to look at."""


def chromium():
    """A Chromium that is installed; the browser tests fail without one rather than passing unseen."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)
    assert found, "no Chromium is installed: apt-get install chromium, or set CHROMIUM to the path of one"
    return found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def of_one_run(report):
    """The page of a run that has learned."""
    return report[1] / "index.html"


@pytest.fixture(scope="module")
def of_two_runs(finished_run, run_program, tmp_path_factory):
    """The page that compares the same run with one that has hardly begun, and so is mostly wrong."""
    folder = tmp_path_factory.mktemp("compared")
    begun, output = folder / "begun", folder / "report"
    code, _, err = run_program(f"--workdir={begun}", "--config.model.widths=(0.25,1.0)", *STEPS_OF_ONE)
    assert code == 0, err
    workdirs = [f"--workdir={finished_run}", f"--workdir={begun}"]
    code, _, err = run_program(*workdirs, f"--output={output}", "--nolatency", module="slimjax.report")
    assert code == 0, err
    return output / "index.html"


@pytest.fixture(scope="module")
def of_detectors(detector, tmp_path_factory):
    """The page of a detector with an individual one beside it, whose figures are given and objects drawn by hand."""
    figures = {
        width: {"box_ap": 30.0 + 9 * width, "box_ap50": 55.0 + 5 * width, "mask_ap": 20.0 + 8 * width}
        for width in (0.25, 0.5, 0.75, 1.0)
    }
    measured = [detector(figures, name="shapes_masks"), detector({0.5: figures[0.25]}, name="shapes_masks_half")]
    for of_run in measured:
        curves = {
            "train/loss": {width: [(10, 3.0 - width), (20, 1.5 - width)] for width in of_run.widths},
            "eval/box_ap": {width: [(20, figures[width]["box_ap"])] for width in of_run.widths},
        }
        of_run.run.curves.update(curves)
    machine = {"device": "cpu", "processor": "a processor", "cores": 2, "versions": {"jax": "0.10"}}
    sections = [
        costs_section(measured, machine),
        comparison_section(measured),
        curves_section(measured),
        detections_section(measured),
        batch_norm_section(measured),
    ]
    return write_page(tmp_path_factory.mktemp("detectors"), "Detectors", "12 images.", "python", sections)


@pytest.fixture
def opened(browser):
    """Opens pages."""
    pages = []

    def opened(path, width=1280, scheme="light", listen=lambda page: None):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        listen(page)
        page.goto(path.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()


PAGES = ["of_one_run", "of_two_runs", "of_detectors"]
BEYOND = """() => [...document.querySelectorAll('body *')].filter(e => {
    // Tables scroll by themselves.
    if (e.closest('.scroll, .unseen, .skip')) return false;
    const box = e.getBoundingClientRect(), plot = e.closest('svg')?.getBoundingClientRect();
    const [left, right] = plot ? [plot.left, plot.right] : [0, innerWidth];
    // Of a plot its texts: lines are cut off at its axes.
    return (!plot || e.localName === 'text') && (box.left < left - 1 || box.right > right + 1);
}).map(e => `${e.localName} ${e.className} ${e.textContent.slice(0, 40)}`)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it_whole_in_both_schemes(opened, request, name, width, scheme):
    path, told, requested = request.getfixturevalue(name), [], []

    def listen(page):
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))

    page = opened(path, width, scheme, listen)
    assert told == []
    assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]
    page.screenshot(path=SCREENSHOTS / f"{name}_{width}_{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(BEYOND) == []
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert sizes
    assert min(sizes) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_outlines_are_green_where_a_width_is_right_and_dashed_red_where_it_is_wrong(opened, of_two_runs, width, scheme):
    """Of the images that one channel answers to: those of the first run are mostly right, the other's mostly wrong."""
    page = opened(of_two_runs, width, scheme)
    images = page.evaluate("""() => [...document.querySelectorAll('#activations ~ .rows img')].map(image => {
        const style = getComputedStyle(image), sides = ['Top', 'Right', 'Bottom', 'Left'].map(
            side => ['Style', 'Width', 'Color'].map(of => style[`border${side}${of}`]).join(' '));
        const isSeen = image.checkVisibility({opacityProperty: true, visibilityProperty: true}) && image.width > 40;
        return [image.alt, image.nextElementSibling.textContent.trim(), isSeen, [...new Set(sides)]];
    })""")
    outlines = {"✓": set(), "✗": set()}
    for alt, caption, is_seen, sides in images:
        assert is_seen
        assert alt.endswith("classified rightly") == (caption[0] == "✓")
        outlines[caption[0]].update(sides)
    (right,), (wrong,) = outlines.values()
    assert right.startswith("solid 3px ")
    assert wrong.startswith("dashed 3px ")
    (red, green, blue), of_wrong = ([int(n) for n in re.findall(r"\d+(?=[,)])", side)] for side in (right, wrong))
    assert green > 1.5 * max(red, blue)
    assert of_wrong[0] > 1.5 * max(of_wrong[1:])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_goes_on_is_shaded_at_that_edge(opened, of_one_run, scheme):
    page = opened(of_one_run, 390, scheme)
    wide = page.evaluate_handle(
        "[...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth + 40)"
    ).as_element()
    assert wide, "no table of this report is too wide for a phone"

    def shades():
        """How far the grounds of both edges are from the paper: medians, since text covers some of their pixels."""
        pixels = np.asarray(Image.open(io.BytesIO(wide.screenshot())).convert("L")).astype(int)
        paper = np.bincount(pixels.ravel()).argmax()
        return [abs(np.median(pixels[:, column]) - paper) for column in (1, -2)]

    assert shades()[0] == 0
    assert shades()[1] > 15
    wide.evaluate("e => { e.scrollLeft = e.scrollWidth }")
    assert shades()[0] > 15
    assert shades()[1] == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_plots_stand_out_from_the_paper(opened, of_one_run, scheme):
    """Contrast ratios of WCAG 2: 4.5 for text, 3 for what is drawn."""
    page = opened(of_one_run, scheme=scheme)

    def colour(name):
        value = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')").strip()
        return [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    def luminance(channels):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(name, ground=None):
        darker, lighter = sorted((luminance(colour(name)), luminance(ground or colour("paper"))))
        return (lighter + 0.05) / (darker + 0.05)

    def strongest_cell(name):
        return [
            STRONGEST_CELL * c + (1 - STRONGEST_CELL) * p for c, p in zip(colour(name), colour("paper"), strict=True)
        ]

    assert min(map(contrast, ["ink", "soft", "link", "right", "wrong"])) >= 4.5
    assert min(contrast(f"series-{index}") for index in range(8)) >= 4.5
    assert contrast("faint") >= 3
    assert min(contrast("ink", strongest_cell(f"series-{COLOURS.index(of)}")) for of in (MORE, LESS)) >= 4.5
    assert min(contrast(name, colour("raised")) for name in ("ink", "soft")) >= 4.5


def test_the_picture_of_the_pages_is_drawn_by_its_command(of_two_runs, tmp_path):
    """By a copy, since it is written beside the script."""
    script = shutil.copy2(SCREENSHOTS.parents[1] / "docs" / "draw_report.py", tmp_path)
    command = [sys.executable, script, of_two_runs.parent, chromium()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "report.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 1100
    # Two sections, the first of which has plots: of each curve's colour there is something in the upper half.
    assert pixels.shape[0] > 1000
    for colour in COLOURS[:2]:
        of_curve = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (pixels[: len(pixels) // 2] == of_curve).all(-1).sum() > 100
