"""The report command on a network that has learned."""

import json
import re
from html.parser import HTMLParser

import pytest

WIDTHS = ["0.25", "1"]
ROW = re.compile(r"│ +(0\.25|1) │ +[\d,]+ │ +[\d.]+ M │ +([\d.]+) │")
SECTIONS = ["costs", "comparison", "curves", "confusion", "agreement", "examples", "activations", "batch_norms"]


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
        (["--workdir=NOWHERE"], "nowhere is no folder; train there first, or give another --workdir"),
        (["--workdir=EMPTY"], "checkpoints holds no checkpoints; train there first, or give another --workdir"),
        (["--workdir=RUN/metrics.jsonl"], "metrics.jsonl is no folder; train there first"),
        (["--workdir=RUN", "--workdir=RUN"], "is given twice; give each run once"),
        (["--workdir=RUN", "--config=configs/digits.py"], "--config is not for reports"),
        (["--workdir=RUN", "--layer=block_9"], "--layer=block_9 is no layer of "),
        (["--workdir=RUN", "--output=RUN/metrics.jsonl"], "metrics.jsonl is a file; give a folder"),
    ],
)
def test_a_mistake_is_told_in_one_line(run_program, assert_refused, finished_run, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"NOWHERE": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty"), "RUN": str(finished_run)}
    given = [re.sub("NOWHERE|EMPTY|RUN", lambda match: places[match[0]], argument) for argument in arguments]
    assert_refused(run_program(*given, module="slimjax.report"), message)
    assert not (finished_run / "report").exists()
