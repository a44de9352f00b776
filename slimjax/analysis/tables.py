"""Tables for the terminal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from rich.console import Console
from rich.table import Table

from slimjax.analysis.latency import Latency
from slimjax.analysis.profile import profile_model
from slimjax.analysis.profile_report import ProfileReport, shape_text
from slimjax.models.network import SlimmableNetwork
from slimjax.tasks.task import Figures

_WIDE = 1000
"""Characters; tables are no wider than what they hold."""


def width_table(model: SlimmableNetwork, image_size: int, figures: Mapping[float, Figures]) -> Table:
    """A row for every width: parameters, MACs of one image, and its figures."""
    names = list(next(iter(figures.values())))
    table = _table("width", "parameters", "MACs", *(name.replace("_", " ") for name in names))
    for row in profile_model(model, image_size):
        values = (f"{figures[row.width][name]:.2f}" for name in names)
        table.add_row(f"{row.width:g}", f"{row.params:,}", _millions(row.macs), *values)
    return table


def print_profile(report: ProfileReport, file: TextIO) -> None:
    """A profile as people read it: the widths, the whole network, and the layers where they are reported."""
    size, machine = f"{report.image_size}x{report.image_size}", report.machine
    print(f"{report.model}: {report.num_classes} classes, {size} pixels, {report.dtype}", file=file)
    print_table(_profile_table(report), file)
    print(f"parameters of the whole slimmable network: {report.total_params:,}", file=file)
    if report.latencies:
        where = f"{machine['device']} ({machine['processor']}, {machine['cores']} cores)"
        print(f"ms: median and 95th percentile of {report.repeats} calls on {where}", file=file)
    if report.layer_latencies:
        print("layers are timed by themselves; the network fuses them, so their times do not add up", file=file)
    for table in _layer_tables(report) if report.with_layers else ():
        print(file=file)
        print_table(table, file)


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Prints to stdout or a file, aligned, without colours and as wide as need be when it is not a terminal."""
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)


def _profile_table(report: ProfileReport) -> Table:
    headers = ("width", "parameters", "MACs", "activations", "largest\nlayer", *_latency_headers(report.latencies))
    table = _table(*headers)
    for row in report.widths:
        table.add_row(
            f"{row.width:g}",
            f"{row.params:,}",
            _millions(row.macs),
            _megabytes(row.activation_bytes),
            _megabytes(row.largest_layer_bytes),
            *_latency_cells(report.latencies_at(row.width)),
        )
    return table


def _layer_tables(report: ProfileReport) -> Iterator[Table]:
    for row in report.widths:
        headers = ("layer", "kind", "input", "output", "parameters", "MACs", "activations")
        table = _table(*headers, *_latency_headers(report.layer_latencies), left=2, title=f"width {row.width:g}")
        for index, layer in enumerate(row.layers):
            table.add_row(
                layer.path,
                layer.kind,
                shape_text(layer.input_shape),
                shape_text(layer.output_shape),
                f"{layer.params:,}",
                f"{layer.macs:,}",
                _kilobytes(layer.activation_bytes),
                *_latency_cells(report.layer_latencies_at(row.width, index)),
            )
        yield table


def _table(*headers: str, left: int = 0, title: str | None = None) -> Table:
    """A table whose columns after the first `left` are numbers."""
    table = Table(*headers, title=title, title_justify="left")
    for column in table.columns[left:]:
        column.justify = "right"
    return table


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.2f} M"


def _kilobytes(size: int) -> str:
    return f"{size / 1e3:,.1f} kB" if size >= 1e3 else f"{size} B"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _latency_headers(batch_sizes: Iterable[int]) -> list[str]:
    return [f"batch {size}\n{unit}" for size in batch_sizes for unit in ("ms", "p95 ms")]


def _latency_cells(latencies: Mapping[int, Latency]) -> list[str]:
    return [f"{ms:,.2f}" for of in latencies.values() for ms in (of.median_ms, of.p95_ms)]
