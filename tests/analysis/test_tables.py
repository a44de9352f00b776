"""Tables of figures: what is best is bold where a person watches, and the same figures for scripts."""

import csv
import dataclasses
import io
import json
import os
import re
from pathlib import Path

import pytest
from terminals import Terminal

from slimjax import create_model, profile_model
from slimjax.analysis.figures_report import FiguresReport, as_csv, as_json
from slimjax.analysis.profile_report import ProfileReport
from slimjax.analysis.tables import errors_table, print_benchmark, print_figures, print_profile, print_table
from slimjax.analysis.timing import Latency
from slimjax.deploy.benchmarking import BenchmarkReport, Timing
from slimjax.deploy.bundle import read_manifest
from slimjax.terminal import is_terminal

BUNDLE = Path(__file__).parents[1] / "deploy" / "data" / "bundle_v2"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
FIGURES = {
    0.5: {"loss": 0.5, "top1_error": 3.004, "top5_error": 0.0},
    1.0: {"loss": 0.25, "top1_error": 3.0, "top5_error": 0.001},
}


@pytest.fixture(scope="module")
def report():
    widths = profile_model(create_model("mobilenet_v1_tiny", (0.5, 1.0), 10), 16)
    return FiguresReport(
        "mobilenet_v1_tiny", 10, 16, "digits", "test", 400, "runs/digits/checkpoints", widths, FIGURES, {"jax": "0.10"},
        notes=("checkpoints: there",),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Nothing that changes what rich takes for a terminal, which has room."""
    for name in ("FORCE_COLOR", "NO_COLOR", "JPY_PARENT_PID", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")


def test_the_best_of_each_figure_is_bold_on_a_terminal_alone(report):
    printed = {file: print_figures(report, file) or file.getvalue() for file in (Terminal(), io.StringIO())}
    on_terminal, elsewhere = printed.values()
    assert f"{BOLD}0.25{PLAIN}" in on_terminal
    assert f"{BOLD}0.50" not in on_terminal
    assert f"{BOLD}3.00" not in on_terminal, "widths that read alike are equally good"
    assert f"{BOLD}0.00" not in on_terminal
    assert "\x1b" not in elsewhere
    assert elsewhere.endswith("┘\ncheckpoints: there\n")
    rows = [line for line in elsewhere.splitlines() if line.startswith("│")]
    assert len({len(row) for row in rows}) == 1, "aligned"


def bold_in(file):
    """What was printed in bold in rows, in its order."""
    rows = "".join(line for line in file.getvalue().splitlines() if line.startswith("│"))
    return re.findall(r"\x1b\[1m *([\d.,]+)\x1b\[0m", rows)


def test_the_fastest_width_of_each_batch_size_is_bold_in_a_profile(report):
    latencies = {1: {0.5: Latency(1.5, 2.5), 1.0: Latency(1.25, 2.5)}, 8: {0.5: Latency(4, 5), 1.0: Latency(9, 1009)}}
    machine = {"device": "cpu", "processor": "Some CPU", "cores": 2}
    profile = ProfileReport("tiny", 10, 16, "float32", machine, 50, 1, report.widths, latencies, {}, with_layers=False)
    print_profile(profile, file := Terminal())
    assert bold_in(file) == ["4.00", "5.00", "1.25"], "row by row; 2.5 and 2.5 are equally good"
    print_profile(dataclasses.replace(profile, latencies={}), file := Terminal())
    assert not bold_in(file)


def test_the_best_errors_and_the_fastest_program_are_bold_in_a_benchmark():
    manifest = read_manifest(BUNDLE)
    assert [entry.figures for entry in manifest.widths] == [{"top1_error": 20.0}, {"top1_error": 10.0}]
    times = {("jax", 0.5): 1.5, ("jax", 1.0): 4.0, ("litert", 0.5): 2.0, ("litert", 1.0): 3.0}
    timings = [Timing(name, name, 1, width, Latency(ms, 9.0)) for (name, width), ms in times.items()]
    print_benchmark(BenchmarkReport(manifest, {"processor": "Some CPU"}, 2, 50, timings), file := Terminal())
    assert bold_in(file) == ["1.50", "10.00", "10.00", "3.00"]


def test_errors_of_methods_have_the_best_of_each_width_in_bold():
    errors = {"individual": {0.25: 9.0, 1.0: 3.0}, "naive": {0.25: 88.0, 0.5: 70.0, 1.0: 3.004}, "other": {}}
    print_table(errors_table("family", errors), file := Terminal())
    assert bold_in(file) == ["9.00"], "nothing to compare with at 0.5, and 3.00 twice at 1"
    rows = [re.split(r" *│ *", line)[1:-1] for line in file.text().splitlines() if line.startswith("│")]
    assert rows == [["individual", "9.00", "-", "3.00"], ["naive", "88.00", "70.00", "3.00"], ["other", "-", "-", "-"]]


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_a_narrow_terminal_cuts_no_figure(report, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    print_figures(report, file := Terminal())
    shown = file.text()
    assert ("│" in shown) == (columns == 120)
    for width, *figures in zip(report.widths, FIGURES[0.5].values(), strict=False):
        assert f"{width.params:,}" in shown
        assert f"{width.macs / 1e6:,.2f} M" in shown
        assert all(f"{figure:.2f}" in shown for figure in figures)
    assert "…" not in shown


def test_scripts_get_every_digit(report):
    rows = list(csv.DictReader(as_csv(report).splitlines()))
    assert [float(row["top1_error"]) for row in rows] == [3.004, 3.0]
    told = json.loads(as_json(report))
    assert (told["model"], told["step"], told["checkpoints"]) == ("mobilenet_v1_tiny", 400, "runs/digits/checkpoints")
    counts = [(row.width, row.params, row.macs) for row in report.widths]
    assert [(row["width"], row["params"], row["macs"]) for row in told["widths"]] == counts
    assert [{name: row[name] for name in FIGURES[0.5]} for row in told["widths"]] == list(FIGURES.values())


def test_where_nothing_is_drawn_anew_there_is_no_terminal(monkeypatch, tmp_path):
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as stream:
        assert is_terminal(stream)
        for name, value in (("TERM", "dumb"), ("JPY_PARENT_PID", "1")):
            with monkeypatch.context() as changed:
                changed.setenv(name, value)
                assert not is_terminal(stream)
    os.close(ours)
    with (tmp_path / "file").open("w") as file:
        assert not is_terminal(file)
