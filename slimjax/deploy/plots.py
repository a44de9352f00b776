"""Plots of what was measured of bundles."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimjax.analysis.plot_style import scale_cost_axis, series_style
from slimjax.deploy.benchmarking import BenchmarkReport, Timing

ERROR = "top1_error"


def plot_error_over_latency(report: BenchmarkReport, path: Path) -> None:
    """What a millisecond buys: for every program a curve through its widths; a panel for every batch size.

    Args:
      report: whose bundle has measured errors.
      path: of the picture, whose ending says which kind.
    """
    batch_sizes = list(dict.fromkeys(timing.batch_size for timing in report.timings))
    figure = Figure(figsize=(1 + 4.5 * len(batch_sizes), 4.2), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(batch_sizes), sharey=True, squeeze=False)[0]
    for axes, batch_size in zip(panels, batch_sizes, strict=True):
        _plot_batch_size(axes, report, [timing for timing in report.timings if timing.batch_size == batch_size])
        axes.set_title(f"batch {batch_size}", fontsize="medium")
    panels[0].set_ylabel("top-1 error, %")
    _name_widths(panels[-1], report)
    panels[-1].legend(fontsize="small")
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    figure.suptitle(f"{report.manifest.model} on {report.machine['processor']}, {threads}", fontsize="medium")
    figure.savefig(path, dpi=150)


def _plot_batch_size(axes: Axes, report: BenchmarkReport, timings: Sequence[Timing]) -> None:
    programs = dict.fromkeys((timing.backend, timing.program) for timing in timings)
    for index, program in enumerate(programs):
        of_program = [timing for timing in timings if (timing.backend, timing.program) == program]
        latencies = [timing.latency.median_ms for timing in of_program]
        errors = [report.width_of(timing).figures[ERROR] for timing in of_program]
        backend, name = program
        label = name.replace("_", " ") if name.startswith(backend) else backend
        axes.plot(latencies, errors, markersize=4, label=label, **series_style(index))
    scale_cost_axis(axes, [timing.latency.median_ms for timing in timings], "median latency, ms")


def _name_widths(axes: Axes, report: BenchmarkReport) -> None:
    """Names the widths beside the panel, once for all curves: each has the same error in all of them."""
    names: dict[float, str] = {}
    for entry in report.manifest.widths:
        error = entry.figures[ERROR]
        names[error] = f"{names[error]}, {entry.width:g}" if error in names else f"width {entry.width:g}"
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(list(names), list(names.values()), fontsize="small")
