"""Tables of figures: what is best is bold where a person watches, and the same figures for scripts."""

import csv
import io
import json
import os

import pytest
from terminals import Terminal

from slimjax import create_model, profile_model
from slimjax.analysis.figures_report import FiguresReport, as_csv, as_json
from slimjax.analysis.tables import print_figures
from slimjax.terminal import is_terminal

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
    """Nothing that changes what rich takes for a terminal."""
    for name in ("FORCE_COLOR", "NO_COLOR", "JPY_PARENT_PID", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


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
