"""What widths are worth against what they cost, several runs together: multiply-adds, parameters, measured latency."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimjax.analysis.plot_style import scale_cost_axis, series_style
from slimjax.reporting.charts import FAINT, add_legend, compress_errors, draw, lay_out
from slimjax.reporting.parts import DataTable, Part, Pictures, Section, Text
from slimjax.reporting.point_names import Point, name_points
from slimjax.reporting.runs import Measured, Score, figure_name, slug, width_text

_COMPRESSED_FROM = 8
"""Ratio of the highest to the lowest error."""


def costs_section(measured: Sequence[Measured], machine: Mapping[str, Any]) -> Section:
    """Plots and the table of their numbers.

    Args:
      measured: the runs.
      machine: where latencies were measured, see `describe_machine`.
    """
    timed = all(of_run.latencies for of_run in measured)
    plots: dict[str, tuple[str, Callable[[Measured, float], float]]] = {
        "macs": ("multiply-adds of one image, M", lambda run, width: run.run.profiles[width].macs / 1e6),
        "params": ("parameters that the width reads, k", lambda run, width: run.run.profiles[width].params / 1e3),
    }
    if timed:
        plots["latency"] = ("median latency of one image, ms", lambda run, width: run.latencies[width].median_ms)
    pictures, score = [], measured[0].run.score
    for key, (label, cost) in plots.items():
        series = _series(measured, cost)
        pictures.append(
            draw(
                f"{slug(score.title).lower()}_over_{key}",
                partial(paint_costs, series=series, label=label, score=score),
                alt=f"{_sentence(score.name)} against {label}; the numbers are in the table below.",
                caption=f"{score.title} against {label}.",
            )
        )
    parts: list[Part] = [Text(_introduction(measured, timed, machine)), Pictures(pictures), _table(measured, timed)]
    return Section("costs", f"{score.title} against cost", parts)


def pareto_front(points: Sequence[Point], larger_is_better: bool = False) -> list[Point]:
    """The points that no other beats: none is cheaper without a worse score. By cost, ascending."""
    sign = -1 if larger_is_better else 1
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point[0], sign * point[1], point[2])):
        if not front or sign * point[1] < sign * front[-1][1]:
            front.append(point)
    return front


def _sentence(text: str) -> str:
    """With a capital letter in front, the others as they are."""
    return text[:1].upper() + text[1:]


def _introduction(measured: Sequence[Measured], timed: bool, machine: Mapping[str, Any]) -> str:
    score = measured[0].run.score
    text = (
        f"{_sentence(score.name)} on the {measured[0].num_images:,} images of the evaluation split. The dashed line is "
        "the Pareto front: what lies on it is beaten by nothing that costs as little. "
    )
    if not score.larger_is_better:
        text += "Where errors lie far apart, their axis is compressed (square root). "
    text += (
        "A slimmable network holds the parameters of its widest width and every width's batch norms, whichever width "
        "runs."
    )
    for series in dict.fromkeys(of_run.series for of_run in measured if not of_run.run.is_slimmable):
        names = [of_run.name for of_run in measured if of_run.series == series]
        text += f' The curve "{series}" is of {", ".join(names)}.'
    if not timed:
        return f"{text} Latency was not measured (`--nolatency`)."
    where = f"{machine['device']} ({machine['processor']}, {machine['cores']} cores)"
    return f"{text} Latency: forward pass of one image, compiled by JAX {machine['versions']['jax']}, on {where}."


def _series(measured: Sequence[Measured], cost: Callable[[Measured, float], float]) -> dict[str, list[Point]]:
    """Points by the name of their curve, by width; a slimmable run has one, individual networks of a model share one.

    Measured latencies need not ascend with the width.
    """
    series: dict[str, list[Point]] = {}
    for of_run in measured:
        for width in of_run.widths:
            series.setdefault(of_run.series, []).append((cost(of_run, width), of_run.score_at(width), width))
    return {name: sorted(points, key=lambda point: (point[2], point[0])) for name, points in series.items()}


def paint_costs(figure: Figure, series: Mapping[str, Sequence[Point]], label: str, score: Score) -> None:
    """The curve of every series, and the front of all their points.

    Args:
      figure: to paint on.
      series: points by name, in the order in which a line joins them.
      label: of the costs.
      score: what the points are worth.
    """
    axes = figure.subplots()
    points = [point for of_series in series.values() for point in of_series]
    for index, (name, of_series) in enumerate(series.items()):
        costs, values, _ = zip(*of_series, strict=True)
        axes.plot(costs, values, linewidth=1.4, markersize=6, label=name, **series_style(index))
    axes.margins(x=0.1)
    scale_cost_axis(axes, [cost for cost, _, _ in points], label)
    if axes.get_xscale() == "linear":
        # Room for the names of the last points.
        axes.set_xlim(right=1.25 * max(cost for cost, _, _ in points))
    _scale_values(axes, [value for _, value, _ in points], may_compress=not score.larger_is_better)
    axes.set_ylabel(f"{score.name}, %")
    _draw_front(axes, pareto_front(points, score.larger_is_better))
    add_legend(figure, axes, columns=2)
    lay_out(figure)
    name_points(axes, points)


def _draw_front(axes: Axes, front: Sequence[Point]) -> None:
    """Draws it up to the right edge: its last point beats whatever costs more, and one point alone is a line too."""
    limits = axes.get_xlim()
    costs, values, _ = zip(*front, strict=True)
    style: dict[str, Any] = {"linestyle": "--", "color": FAINT, "linewidth": 1.2, "zorder": 1}
    axes.step((*costs, limits[1]), (*values, values[-1]), where="post", label="Pareto front", **style)
    axes.set_xlim(limits)


def _scale_values(axes: Axes, values: Sequence[float], may_compress: bool) -> None:
    lowest, highest = min(values), max(values)
    if may_compress and highest > _COMPRESSED_FROM * lowest:
        compress_errors(axes, values)
    else:
        margin = max(0.15 * (highest - lowest), 0.05)
        axes.set_ylim(max(0, lowest - margin), highest + 1.6 * margin)


def _keys(measured: Measured) -> Collection[str]:
    """Names of its figures."""
    return measured.figures[measured.widths[0]]


def _table(measured: Sequence[Measured], timed: bool) -> DataTable:
    keys = [key for key in measured[0].figures[measured[0].widths[0]] if all(key in _keys(run) for run in measured)]
    names = [f"{figure_name(key)}, %" for key in keys]
    headers = ["run", "width", *names, "MACs, M", "parameters", *(["ms", "p95 ms"] if timed else [])]
    rows = []
    for of_run in measured:
        for width, figures in of_run.figures.items():
            profile = of_run.run.profiles[width]
            row = [of_run.name, width_text(width), *(f"{figures[key]:.2f}" for key in keys)]
            row += [f"{profile.macs / 1e6:,.2f}", f"{profile.params:,}"]
            if timed:
                latency = of_run.latencies[width]
                row += [f"{latency.median_ms:.3f}", f"{latency.p95_ms:.3f}"]
            rows.append(row)
    return DataTable("Every width of every run.", headers, rows)
