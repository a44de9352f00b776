"""What plots share: colours that people tell apart however they see them, markers beside them, and axes."""

from collections.abc import Collection
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

COLOURS = ("#0b6fb8", "#c8500a", "#007d5a", "#a3388a", "#866500", "#147f96", "#b02a3c", "#555a66")
"""Each has a contrast of at least 4.5 to white; neighbours differ for dichromats too."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One for each colour, so that no plot is read by colour alone."""

_LOGARITHMIC_FROM = 8
"""Ratio of the largest to the smallest value."""


def series_style(index: int) -> dict[str, Any]:
    """Colour and marker of a plot's series, by its number from 0; arguments of `Axes.plot`."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def scale_cost_axis(axes: Axes, costs: Collection[float], label: str) -> None:
    """Labels the horizontal axis of a cost and has it begin at 0, or be logarithmic where costs lie far apart.

    Args:
      axes: the plot.
      costs: positive, at least one.
      label: with the unit.
    """
    if max(costs) > _LOGARITHMIC_FROM * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.1 * max(costs))
        axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(label)
    axes.grid(visible=True, which="both", alpha=0.2)
