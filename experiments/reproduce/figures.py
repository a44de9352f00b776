"""Pictures of the comparisons, in the colours and markers of all plots here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import EIGHT_SWITCHES, FAMILIES, INCREMENTAL, NAIVE, SHARED_AFFINE, SLIMMABLE, individual
from comparisons import ERROR, V1, Errors, Spread
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimjax.analysis.plot_style import COLOURS, MARKERS, series_style

Series = tuple[str, list[tuple[float, Spread]]]
"""A label, and for every width its errors."""

_APART = 0.012
"""How far points of the same width and neighbouring series are drawn from each other."""


def plot_all(errors: Errors, folder: Path) -> list[str]:
    """Draws what there are results for into a folder that exists; returns the names of the files, without `.png`."""
    draw: dict[str, Callable[[], Figure]] = {
        "figure2": lambda: plot_curves(errors, V1),
        "table3": lambda: plot_table_3(errors),
        "table4": lambda: plot_widths(series_of(errors, V1, (SLIMMABLE, EIGHT_SWITCHES), "4 switches")),
        "affine": lambda: plot_widths(affine_series(errors, V1)),
        "incremental": lambda: plot_widths(series_of(errors, V1, (SLIMMABLE, INCREMENTAL), "joint")),
    }
    names = drawable(errors)
    for name in names:
        # Without the version, by which a picture of the same numbers would differ.
        draw[name]().savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    return names


def drawable(errors: Errors) -> list[str]:
    """Names of the pictures for which there are results."""
    needed = {
        "figure2": NAIVE,
        "table3": SLIMMABLE,
        "table4": EIGHT_SWITCHES,
        "affine": SHARED_AFFINE,
        "incremental": INCREMENTAL,
    }
    families = dict.fromkeys(needed, (V1,)) | {"table3": tuple(FAMILIES)}
    return [
        name
        for name, method in needed.items()
        if any(errors.of_runs(family, SLIMMABLE) and errors.of_runs(family, method) for family in families[name])
    ]


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
        *((labels[m], [(w, errors.at(family, m, w)) for w in errors.widths(family, m)]) for m in methods),
        ("individual", [point for point in alone if point[1].values]),
    ]


def affine_series(errors: Errors, family: str) -> list[Series]:
    """Private and shared scale and bias, with running and with calibrated statistics."""
    return [
        (f"{label}, {statistics} statistics", [(w, errors.at(family, m, w, key)) for w in errors.widths(family, m)])
        for m, label in ((SLIMMABLE, "private"), (SHARED_AFFINE, "shared"))
        for key, statistics in (("figures", "running"), ("calibrated", "calibrated"))
    ]


def plot_table_3(errors: Errors) -> Figure:
    """A panel for each family that has results: individual against slimmable networks."""
    families = [family for family in FAMILIES if errors.of_runs(family, SLIMMABLE)]
    figure = Figure(figsize=(1 + 3.2 * len(families), 3.6), layout="constrained")
    panels = figure.subplots(1, len(families), squeeze=False)[0]
    for axes, family in zip(panels, families, strict=True):
        _draw_widths(axes, series_of(errors, family, (SLIMMABLE,)))
        axes.set_title(family, fontsize="medium")
    panels[0].set_ylabel("validation error, %")
    panels[0].legend(fontsize="small")
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
    for number, (label, points) in enumerate(series):
        if points:
            widths, spreads = zip(*points, strict=True)
            # Beside each other, so that one's deviations do not hide another's.
            places = [width + _APART * (number - (len(series) - 1) / 2) for width in widths]
            means = [spread.mean for spread in spreads]
            deviations = [spread.deviation or 0.0 for spread in spreads]
            style = series_style(number)
            axes.errorbar(places, means, deviations, label=label, capsize=3, linewidth=1.4, markersize=5, **style)
    axes.set_xticks([width for width, _ in max((points for _, points in series), key=len)])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("width")
    axes.grid(visible=True, alpha=0.25)


def plot_curves(errors: Errors, family: str) -> Figure:
    """Training and validation error over epochs: means over seeds, and from the smallest to the largest."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, split, title in zip(panels, ("train", "eval"), ("training", "validation"), strict=True):
        for method, line in ((SLIMMABLE, "-"), (NAIVE, "--")):
            for number, width in enumerate(FAMILIES[family].widths):
                epochs, values = _curve(errors, family, method, split, width)
                label = f"{'switchable' if method == SLIMMABLE else 'naive'}, {width:g}"
                style: dict[str, Any] = {"color": COLOURS[number], "linestyle": line, "linewidth": 1.4}
                if split == "eval":
                    # Hollow ones are naive: so short dashes are hard to see.
                    hollow = {} if method == SLIMMABLE else {"markerfacecolor": "white"}
                    style |= {"marker": MARKERS[number], "markersize": 6, **hollow}
                axes.plot(epochs, values.mean(0), label=label, **style)
                axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[number], alpha=0.15, linewidth=0)
        axes.set_title(f"{title} error", fontsize="medium")
        axes.set_xlabel("epochs")
        axes.set_ylim(0, 100)
        axes.grid(visible=True, alpha=0.25)
    panels[0].set_ylabel("top-1 error, %")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure


def _curve(errors: Errors, family: str, method: str, split: str, width: float) -> tuple[list[float], np.ndarray]:
    """Epochs, and of every seed the errors there [seeds, points], %."""
    curves = [result["curves"][split] for result in errors.of_runs(family, method)]
    return [point["epoch"] for point in curves[0]], np.array([[p[ERROR][f"{width:g}"] for p in c] for c in curves])
