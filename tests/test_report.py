"""The report command on a network that has learned, and its page in a real browser."""

import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimjax.analysis.plot_style import COLOURS
from slimjax.reporting.charts import LESS, MORE, STRONGEST_CELL

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
"""Of the page, for people to look at."""

WIDTHS = ["0.25", "1"]
ROW = re.compile(r"│ +(0\.25|1) │ +[\d,]+ │ +[\d.]+ M │ +([\d.]+) │")
SECTIONS = ["costs", "comparison", "curves", "confusion", "agreement", "examples", "activations", "batch_norms"]


@pytest.fixture(scope="module")
def report(finished_run, run_program, tmp_path_factory):
    """What the command printed, and the folder that it wrote."""
    output = tmp_path_factory.mktemp("report") / "report"
    code, out, err = run_program(f"--workdir={finished_run}", f"--output={output}", module="slimjax.report")
    assert code == 0, err
    return out, output


class Page(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_errors_are_those_that_training_measured(report, finished_run):
    out, output = report
    printed = dict(ROW.findall(out))
    assert list(printed) == WIDTHS
    logged = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(logged) if "eval/top1_error/width_1" in line)
    (run,) = json.loads((output / "report.json").read_text())["runs"]
    assert run["images"] == 355
    for row in run["widths"]:
        expected = last[f"eval/top1_error/width_{row['width']:g}"]
        assert row["top1_error"] == pytest.approx(expected, abs=1e-4)
        assert printed[f"{row['width']:g}"] == f"{expected:.2f}"
        assert row["median_ms"] > 0
        assert sum(count for _, _, count in row["confusion"]) == 355
        wrong = sum(count for label, prediction, count in row["confusion"] if label != prediction)
        assert wrong == pytest.approx(355 * expected / 100)


def test_the_page_has_every_section_and_nothing_from_elsewhere(report):
    out, output = report
    assert f"report: {output / 'index.html'}" in out
    text = (output / "index.html").read_text()
    page = Page(text)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for attributes in page.all("a")]
    assert [link for link in links if link != "#content"] == [f"#{key}" for key in SECTIONS]
    assert {link[1:] for link in links} <= anchors
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(image["alt"] and image["src"].startswith("data:image/png;") for image in page.all("img"))
    plots = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    # One more where the widths confuse other classes.
    assert len(plots) == len(page.all("svg")) >= 9
    assert all(plot["aria-label"] for plot in plots)
    assert not page.all("script")
    addresses = re.findall(r"(?:src|href|url)[=(]\"?(?!#|data:)([^\s\">)]+)", text)
    assert addresses == []
    files = {path.name for path in output.glob("*.png")}
    assert files == set(re.findall(r'class="file">([^<]+)<', text))
    assert all((output / name).read_bytes().startswith(b"\x89PNG") for name in files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir is missing; give the folder of a trained run"),
        (["--workdir=EMPTY"], "checkpoints holds no checkpoints; train there first, or give another --workdir"),
        (["--workdir=RUN/metrics.jsonl"], "metrics.jsonl/checkpoints holds no checkpoints"),
        (["--workdir=RUN", "--workdir=RUN"], "is given twice; give each run once"),
        (["--workdir=RUN", "--config=configs/digits.py"], "--config is not for reports"),
        (["--workdir=RUN", "--layer=block_9"], "--layer=block_9 is no layer of "),
        (["--workdir=RUN", "--output=RUN/metrics.jsonl"], "cannot be written; give a folder"),
    ],
)
def test_a_mistake_is_told_in_one_line(run_program, assert_refused, finished_run, tmp_path, arguments, message):
    places = {"EMPTY": str(tmp_path / "empty"), "RUN": str(finished_run)}
    given = [re.sub("EMPTY|RUN", lambda match: places[match[0]], argument) for argument in arguments]
    assert_refused(run_program(*given, module="slimjax.report"), message)
    assert not (finished_run / "report").exists()


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


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_whole_in_both_schemes(browser, report, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told, requested = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    address = (report[1] / "index.html").as_uri()
    page.goto(address)
    assert told == []
    assert [url for url in requested if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing is cut off but tables, which scroll by themselves.
    beyond = """() => [...document.querySelectorAll('main *')].filter(
        e => !e.closest('.scroll, .unseen, svg') && e.getBoundingClientRect().right > innerWidth + 1).length"""
    assert page.evaluate(beyond) == 0
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert sizes
    assert min(sizes) > 0
    page.screenshot(path=SCREENSHOTS / f"report_{width}_{scheme}.png", full_page=True)
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_goes_on_is_shaded_at_that_edge(browser, report, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme=scheme)
    page.goto((report[1] / "index.html").as_uri())
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
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_plots_stand_out_from_the_paper(browser, report, scheme):
    """Contrast ratios of WCAG 2: 4.5 for text, 3 for what is drawn."""
    page = browser.new_page(color_scheme=scheme)
    page.goto((report[1] / "index.html").as_uri())

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
    page.close()
