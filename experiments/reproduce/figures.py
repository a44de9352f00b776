"""Pictures of the comparisons, in the colours and markers of all plots here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import (
    EIGHT_SWITCHES,
    FAMILIES,
    INCREMENTAL,
    NAIVE,
    QUARTER_RATE,
    SHARED_AFFINE,
    SLIMMABLE,
    individual,
    quarter_rate,
)
from comparisons import ERROR, V1, Errors, Spread
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimjax.analysis.plot_style import COLOURS, MARKERS, series_style

_INDIVIDUAL = "individual"
_METHODS = (SLIMMABLE, _INDIVIDUAL, EIGHT_SWITCHES, INCREMENTAL, SHARED_AFFINE)
"""What is drawn over widths; each has the colour and marker of its place here in every picture."""

_DASHED: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"}
"""What is told apart from its like in the same colour; hollow too, since so short dashes are hard to see."""

_TICKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75)
"""Of a logarithmic axis of errors, %."""

_APART = 0.012
"""How far points of the same width and neighbouring series are drawn from each other."""


class Series(NamedTuple):
    """The errors of a method over widths.

    Attributes:
      label: of its line.
      method: one of _METHODS.
      points: widths and errors.
      is_dashed: whether it is told apart from another line of its method.
    """

    label: str
    method: str
    points: list[tuple[float, Spread]]
    is_dashed: bool = False


class Picture(NamedTuple):
    """A picture, and what has to be there for it.

    Attributes:
      draw: makes it.
      compared: families, and methods that are set against their slimmable networks; runs of one pair are enough.
    """

    draw: Callable[[Errors], Figure]
    compared: Sequence[tuple[str, str]]

    def can_be_drawn(self, errors: Errors) -> bool:
        """Whether there are results for it."""
        return any(
            errors.of_runs(family, SLIMMABLE) and errors.of_runs(family, method) for family, method in self.compared
        )


def plot_all(errors: Errors, folder: Path) -> list[str]:
    """Draws what there are results for into a folder that exists; returns the names of the files, without `.png`."""
    names = drawable(errors)
    for name in names:
        # Without the version, by which a picture of the same numbers would differ.
        _PICTURES[name].draw(errors).savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    return names


def drawable(errors: Errors) -> list[str]:
    """Names of the pictures for which there are results."""
    return [name for name, picture in _PICTURES.items() if picture.can_be_drawn(errors)]


def series_of(errors: Errors, family: str, methods: Sequence[str], slimmable: str = "slimmable") -> list[Series]:
    """Errors over widths of the individual networks and some methods.

    Args:
      errors: of all runs.
      family: of networks.
      methods: in their order.
      slimmable: what the table beside the figure calls the slimmable network.
    """
    labels = {SLIMMABLE: slimmable, EIGHT_SWITCHES: "8 switches", INCREMENTAL: "incremental"}
    widths = FAMILIES[family].widths
    alone = [(width, errors.at(family, individual(width), width)) for width in widths]
    return [
        *(Series(labels[m], m, [(w, errors.at(family, m, w)) for w in errors.widths(family, m)]) for m in methods),
        Series("individual", _INDIVIDUAL, [point for point in alone if point[1].values]),
    ]


def affine_series(errors: Errors, family: str) -> list[Series]:
    """Private and shared scale and bias, with running and, dashed, with calibrated statistics."""
    return [
        Series(
            f"{label}, {statistics} statistics",
            method,
            [(width, errors.at(family, method, width, key)) for width in errors.widths(family, method)],
            is_dashed=key == "calibrated",
        )
        for method, label in ((SLIMMABLE, "private"), (SHARED_AFFINE, "shared"))
        for key, statistics in (("figures", "running"), ("calibrated", "calibrated"))
    ]


def rate_series(errors: Errors, family: str) -> list[Series]:
    """Slimmable and individual networks at the common learning rate and, dashed, at a quarter of it."""

    def points(method: str, is_quarter: bool) -> list[tuple[float, Spread]]:
        widths = FAMILIES[family].widths
        of_widths = [individual(width) if method == _INDIVIDUAL else method for width in widths]
        names = [quarter_rate(name) for name in of_widths] if is_quarter else of_widths
        return [(width, errors.at(family, name, width)) for width, name in zip(widths, names, strict=True)]

    return [
        Series(f"{method}, {rate}", method, points(method, is_quarter), is_quarter)
        for method in (SLIMMABLE, _INDIVIDUAL)
        for rate, is_quarter in (("common rate", False), ("a quarter of it", True))
    ]


def plot_table_3(errors: Errors) -> Figure:
    """A panel for each family that has results: individual against slimmable networks."""
    families = [family for family in FAMILIES if errors.of_runs(family, SLIMMABLE)]
    columns = min(2, len(families))
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(0.4 + 3.4 * columns, 3.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, family in zip(panels, families, strict=False):
        _draw_widths(axes, series_of(errors, family, (SLIMMABLE,)))
        axes.set_title(family, fontsize="medium")
        axes.set_ylabel("validation error, %")
        axes.legend(fontsize="small")
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    return figure


def plot_widths(series: Sequence[Series]) -> Figure:
    """One panel of errors over widths."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    _draw_widths(axes, series)
    axes.set_ylabel("validation error, %")
    axes.legend(fontsize="small")
    return figure


def _draw_widths(axes: Axes, series: Sequence[Series]) -> None:
    for number, of_series in enumerate(series):
        if of_series.points:
            widths, spreads = zip(*of_series.points, strict=True)
            # Beside each other, so that one's deviations do not hide another's.
            places = [width + _APART * (number - (len(series) - 1) / 2) for width in widths]
            means = [spread.mean for spread in spreads]
            deviations = [spread.deviation or 0.0 for spread in spreads]
            style = series_style(_METHODS.index(of_series.method)) | (_DASHED if of_series.is_dashed else {})
            label = of_series.label
            axes.errorbar(places, means, deviations, label=label, capsize=3, linewidth=1.4, markersize=5, **style)
    axes.set_xticks([width for width, _ in max((of_series.points for of_series in series), key=len)])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("width")
    axes.grid(visible=True, alpha=0.25)


def plot_curves(errors: Errors, family: str) -> Figure:
    """Training and validation error over epochs: means over seeds, and from the smallest to the largest."""
    figure = Figure(figsize=(6.4, 8.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, split, title in zip(panels, ("train", "eval"), ("training", "validation"), strict=True):
        shown = []
        for method, line in ((SLIMMABLE, {}), (NAIVE, _DASHED)):
            for number, width in enumerate(FAMILIES[family].widths):
                epochs, values = _curve(errors, family, method, split, width)
                label = f"{'switchable' if method == SLIMMABLE else 'naive'}, {width:g}"
                style: dict[str, Any] = {"color": COLOURS[number], "marker": MARKERS[number], "linewidth": 1.4, **line}
                axes.plot(epochs, values.mean(0), label=label, markersize=5, **style)
                axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[number], alpha=0.15, linewidth=0)
                shown += values.ravel().tolist()
        axes.set_title(f"{title} error", fontsize="medium")
        axes.set_ylabel("top-1 error, %")
        # So that both the narrowest naive width and the few points between the others can be seen.
        axes.set_yscale("log")
        axes.set_ylim(0.9 * min(shown), 1.1 * max(shown))
        ticks = [tick for tick in _TICKS if min(shown) <= tick <= max(shown)]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.25)
    panels[-1].set_xlabel("epochs")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _curve(errors: Errors, family: str, method: str, split: str, width: float) -> tuple[list[float], np.ndarray]:
    """Epochs, and of every seed the errors there [seeds, points], %."""
    curves = [result["curves"][split] for result in errors.of_runs(family, method)]
    return [point["epoch"] for point in curves[0]], np.array([[p[ERROR][f"{width:g}"] for p in c] for c in curves])


_PICTURES = {
    "figure2": Picture(lambda errors: plot_curves(errors, V1), [(V1, NAIVE)]),
    "table3": Picture(
        plot_table_3, [(name, individual(width)) for name, family in FAMILIES.items() for width in family.widths]
    ),
    "table4": Picture(
        lambda errors: plot_widths(series_of(errors, V1, (SLIMMABLE, EIGHT_SWITCHES), "4 switches")),
        [(V1, EIGHT_SWITCHES)],
    ),
    "affine": Picture(lambda errors: plot_widths(affine_series(errors, V1)), [(V1, SHARED_AFFINE)]),
    "incremental": Picture(
        lambda errors: plot_widths(series_of(errors, V1, (SLIMMABLE, INCREMENTAL), "joint")), [(V1, INCREMENTAL)]
    ),
    "mobilenet_v2": Picture(
        lambda errors: plot_widths(rate_series(errors, "mobilenet_v2")), [("mobilenet_v2", QUARTER_RATE)]
    ),
}
"""By the names of their files."""
