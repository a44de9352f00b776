"""Names of points: each has one beside it, which covers nothing as long as there is room."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.path import Path

from slimjax.reporting.sections.costs import paint_costs

DIGITS = {
    "digits": [(0.35, 1.69, 0.25), (1.15, 0.28, 0.5), (2.41, 0.56, 0.75), (4.13, 0.56, 1.0)],
    "individual": [(1.15, 1.69, 0.5), (4.13, 0.56, 1.0)],
}
LATENCIES = {
    "digits": [(0.170, 1.69, 0.25), (0.168, 0.28, 0.5), (0.203, 0.56, 0.75), (0.204, 0.56, 1.0)],
    "individual": [(0.18, 1.69, 0.5), (0.24, 0.56, 1.0)],
}
WIDTHS = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
EIGHT = {
    name: [(560 * width**2, 50 - 25 * width**0.5 + better, width) for width in WIDTHS]
    for name, better in (("four", 0.0), ("eight", 2.0), ("individual", 6.0))
}


@pytest.fixture
def painted(measured):
    """Paints series of points; returns the axes."""

    def paint(series):
        figure = Figure((4.9, 3.5), layout="constrained")
        paint_costs(figure, series=series, label="cost", score=measured.run.score)
        return figure.axes[0]

    return paint


def distances(axes, text, points):
    """From a name to points, 1/72 inch."""
    box = text.get_window_extent()
    places = axes.transData.transform([point[:2] for point in points])
    gaps = np.maximum(0, np.maximum(box.min - places, places - box.max))
    return np.linalg.norm(gaps, axis=1) * 72 / axes.figure.dpi


def test_every_point_of_every_curve_is_named(painted):
    axes = painted(DIGITS)
    # Only the two networks of width 1 meet.
    assert sorted(text.get_text() for text in axes.texts) == ["0.25", "0.5", "0.5", "0.75", "1"]


def test_points_that_lie_on_each_other_are_named_together(painted):
    assert sorted(text.get_text() for text in painted(LATENCIES).texts) == ["0.25", "0.5", "0.5", "0.75, 1", "1"]
    meeting = {"run": [(1.0, 9.0, 0.5), (2.0, 5.0, 1.0)], "alone": [(1.01, 9.02, 0.25), (2.0, 5.1, 1.0)]}
    assert sorted(text.get_text() for text in painted(meeting).texts) == ["0.25, 0.5", "1"], "ascending, and once"


@pytest.mark.parametrize("series", [DIGITS, LATENCIES, EIGHT], ids=["digits", "latencies", "eight"])
def test_no_name_is_far_from_its_point(painted, series):
    axes = painted(series)
    for text in axes.texts:
        own = [p for points in series.values() for p in points if f"{p[2]:g}" in text.get_text().split(", ")]
        assert distances(axes, text, own).min() < 20


@pytest.mark.parametrize("series", [DIGITS, LATENCIES, EIGHT], ids=["digits", "latencies", "eight"])
def test_names_cover_neither_each_other_nor_lines_nor_markers(painted, series):
    axes = painted(series)
    boxes = [text.get_window_extent() for text in axes.texts]
    for index, box in enumerate(boxes):
        assert not [other for other in boxes[:index] if box.overlaps(other)]
        assert axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1
        for points in series.values():
            assert not [place for place in axes.transData.transform([p[:2] for p in points]) if box.contains(*place)]
    curves = [line for line in axes.lines if line.get_label() in series]
    for box in boxes:
        for line in curves:
            assert not Path(axes.transData.transform(line.get_xydata())).intersects_bbox(box, filled=False)
