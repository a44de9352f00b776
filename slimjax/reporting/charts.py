"""Plots for the page and as files: drawn once, in colours that the page replaces by those of its light or dark side."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from slimjax.analysis.plot_style import COLOURS, series_style
from slimjax.reporting.parts import Picture

INK, FAINT, PAPER = "#20242c", "#8a93a1", "#ffffff"
RIGHT, WRONG = "#1a7f37", "#c62828"
MORE, LESS = COLOURS[1], COLOURS[0]

# As wide as a phone, so that nothing on it has to shrink: a point is a pixel there.
SIZE = (4.9, 3.5)

_VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"} | {
    colour: f"--series-{index}" for index, colour in enumerate(COLOURS)
}
_STYLE: Any = {
    "font.size": 11,
    "axes.labelsize": 10.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
    "svg.fonttype": "none",
}
_DPI = 160
_TICKS = {False: (0, 1, 2, 5, 10, 20), True: (0, 1, 5, 10, 20, 30, 50, 75, 100)}
_CROWDED_FROM = 25
"""Percent of error at which small ones lie close to each other."""

_LETTERS = 48
"""Of names side by side below a matrix, before they are turned."""


def draw(
    name: str, paint: Callable[[Figure], None], *, alt: str, caption: str, size: tuple[float, float] = SIZE
) -> Picture:
    """A picture of what a function paints onto a figure.

    Args:
      name: of the file, and of the picture within the page.
      paint: draws; colours that are to follow the page's are INK, FAINT, PAPER and those of `series_style`.
      alt: what is to be seen, in words.
      caption: of the picture.
      size: inches.
    """
    svg, png = io.StringIO(), io.BytesIO()
    # Names within the SVG are hashes, which would differ from one report to the next.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        # Laid out once: it takes most of the time.
        figure.set_layout_engine("none")
        figure.savefig(png, format="png", dpi=_DPI, facecolor=PAPER)
    return Picture(name, alt, caption, _for_page(svg.getvalue(), name), png.getvalue())


def lay_out(figure: Figure) -> None:
    """Fixes where everything is, for what is placed by that; `draw` leaves it so."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def add_legend(figure: Figure, axes: Axes, title: str | None = None, columns: int = 4) -> None:
    """A legend above the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    has_lines = any(isinstance(handle, Line2D) and handle.get_linestyle() != "None" for handle in handles)
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(columns, len(handles)),
        title=title,
        handlelength=2.0 if has_lines else 0.8,
        fontsize="small",
        title_fontsize="small",
    )


def compress_errors(axes: Axes, errors: Sequence[float]) -> None:
    """Gives an axis of errors, in percent, the scale of their square root from 0 on, so that small ones can be read."""
    highest = max((error for error in errors if np.isfinite(error)), default=1.0)
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    ticks = [tick for tick in _TICKS[highest > _CROWDED_FROM] if tick <= max(1.1 * highest, 1)]
    axes.set_ylim(0, max(1.2 * highest, 1))
    axes.set_yticks(ticks, [str(tick) for tick in ticks])


def paint_ranges(
    figure: Figure, rows: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]], label: str
) -> None:
    """Rows from top to bottom, in each a marker and a range for every series, one below the other.

    Args:
      figure: to paint on.
      rows: their names.
      series: for every name of a series low, middle and high of each row.
      label: of the values.
    """
    axes = figure.subplots()
    places, height = np.arange(len(rows)), 0.7 / len(series)
    for index, (name, values) in enumerate(series.items()):
        low, middle, high = np.transpose(values)
        at = places + (index - (len(series) - 1) / 2) * height
        style = series_style(index)
        axes.hlines(at, low, high, color=style["color"], linewidth=1.2)
        axes.plot(middle, at, linestyle="none", markersize=4.5, label=name, **style)
    for place in places[:-1]:
        axes.axhline(place + 0.5, color=FAINT, linewidth=0.5, alpha=0.4)
    axes.set_yticks(places, list(rows), fontsize="small")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    # Of more ticks the numbers would touch each other where a range is small and they have many decimals.
    axes.locator_params(axis="x", nbins=5)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel(label)
    axes.grid(visible=True, axis="x", alpha=0.2)
    add_legend(figure, axes, "width")


STRONGEST_CELL = 0.5
"""Opacity of a cell's colour that still leaves its number readable."""


def paint_cells(
    figure: Figure,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str],
    text: Callable[[float], str],
    largest: float | None = None,
    signs: np.ndarray | float = 1.0,
) -> None:
    """A matrix of numbers, the larger the stronger its cell is coloured: above 0 in MORE, below in LESS.

    Args:
      figure: to paint on.
      values: [rows, columns].
      rows: names of the rows.
      columns: names of the columns.
      labels: what rows and columns are.
      text: what stands in a cell.
      largest: the value that is coloured strongest, for matrices that are compared; their own if not given.
      signs: [rows, columns], -1 where the colours change places.
    """
    axes = figure.subplots()
    strongest = max(float(np.abs(values).max()) if largest is None else largest, 1e-9)
    signs = np.broadcast_to(signs, values.shape)
    for (row, column), value in np.ndenumerate(values):
        colour, strength = MORE if value * signs[row, column] > 0 else LESS, abs(float(value)) / strongest
        opacity = STRONGEST_CELL * strength
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=opacity, linewidth=0))
        axes.text(column, row, text(float(value)), ha="center", va="center", fontsize=9.5 if len(columns) < 8 else 8.5)
    for place in np.arange(0.5, max(values.shape) - 1):
        for line, count in ((axes.axhline, len(rows)), (axes.axvline, len(columns))):
            if place < count - 1:
                line(place, color=FAINT, linewidth=0.5, alpha=0.4)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    longest = max(map(len, columns))
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    are_turned = longest * len(columns) > _LETTERS
    axes.set_xticks(range(len(columns)), list(columns), fontsize="small", **(turned if are_turned else {}))
    axes.set_yticks(range(len(rows)), list(rows), fontsize="small")
    axes.tick_params(length=0)
    axes.set_ylabel(labels[0])
    axes.set_xlabel(labels[1])
    for spine in axes.spines.values():
        spine.set(visible=True, alpha=0.4)


def _for_page(svg: str, name: str) -> str:
    """The SVG as a part of the page: sized by it, in its colours and its type, with names of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"font-family:[^;\"]*;?|font: ([\d.]+px)[^;\"]*", lambda m: f"font-size: {m[1]}" if m[1] else "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
