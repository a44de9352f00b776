"""Tables for the terminal."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from slimjax.analysis.figures_report import FiguresReport
from slimjax.analysis.plan_report import LargestBatch, Pipeline, PlanReport
from slimjax.analysis.profile import WidthProfile
from slimjax.analysis.profile_report import ProfileReport, shape_text
from slimjax.analysis.program_costs import StepCost
from slimjax.analysis.timing import Latency
from slimjax.deploy.benchmarking import BenchmarkReport, Timing
from slimjax.deploy.bundle import Manifest, WidthEntry, width_key
from slimjax.nn.plans import widths_text
from slimjax.tasks.task import Figures, larger_is_better
from slimjax.terminal import is_terminal

_WIDE = 1000
"""Characters; tables are no wider than what they hold."""


def print_figures(report: FiguresReport, file: TextIO) -> None:
    """An evaluation as people read it: a row for every width with its parameters, MACs of one image and figures."""
    print_table(figures_table(report.widths, [report.figures[row.width] for row in report.widths]), file)
    for note in report.notes:
        print(note, file=file)


def bundle_tables(manifest: Manifest) -> tuple[Table, Table]:
    """Of a bundle: counts and measured figures of every width, and how each program compares with the network."""
    widths = figures_table(manifest.widths, [entry.figures for entry in manifest.widths])
    keys = [width_key(entry.width) for entry in manifest.widths]
    headers = (f"width {key}:\ndifference, agreement" for key in keys)
    programs = _table("program", *headers, left=1)
    for name, entries in manifest.programs.items():
        checks = (entries[key].check for key in keys)
        programs.add_row(name, *(f"{check.largest_difference:.1e}, {check.agreement:6.1%}" for check in checks))
    return widths, programs


def print_benchmark(report: BenchmarkReport, file: TextIO) -> None:
    """A bundle's timings as people read them: a row for every width of every program, at every batch size."""
    manifest, images = report.manifest, report.manifest.input
    size = f"{images.height}x{images.width}"
    print(f"{manifest.model}: {manifest.num_classes} classes, {size} pixels, {images.dtype}", file=file)
    names = list(manifest.widths[0].figures)
    headers = ("back end", "program", "batch", "width", "MACs", *(name.replace("_", " ") for name in names))
    table = _table(*headers, "ms", "p95 ms", "images/s", left=2)
    fastest = _fastest(report.timings)
    columns = _figure_columns(names, [report.width_of(timing).figures for timing in report.timings])
    for timing, *figures in zip(report.timings, *columns, strict=True):
        entry, latency = report.width_of(timing), timing.latency
        table.add_row(
            timing.backend,
            timing.program,
            f"{timing.batch_size}",
            f"{timing.width:g}",
            _millions(entry.macs),
            *figures,
            Text(f"{latency.median_ms:,.2f}", "bold" if timing in fastest else ""),
            f"{latency.p95_ms:,.2f}",
            f"{timing.images_per_second:,.0f}",
            end_section=entry.width == manifest.widths[-1].width,
        )
    print_table(table, file)
    where = f"{report.machine['processor']}, {report.threads} threads"
    print(f"ms: median and 95th percentile of {report.repeats} calls on {where}", file=file)


def _fastest(timings: Sequence[Timing]) -> list[Timing]:
    """Of the programs that were timed at each width and batch size, where there are several, the fastest."""
    rivals: dict[tuple[float, int], list[Timing]] = {}
    for timing in timings:
        rivals.setdefault((timing.width, timing.batch_size), []).append(timing)
    return [min(those, key=lambda timing: timing.latency.median_ms) for those in rivals.values() if len(those) > 1]


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


def print_plan(report: PlanReport, file: TextIO) -> None:
    """A plan as people read it: what is planned, each program on each device, and what follows for the whole step."""
    size, batch_size, topology = "x".join(map(str, report.image_size)), report.cost.batch_size, report.topology
    devices, widths = len(topology.devices), widths_text(report.widths)
    print(f"{report.model}: {report.num_classes} classes, {size} pixels, {report.dtype}, {widths}", file=file)
    print(
        f"a step of {batch_size:,} images on {topology.name}, {batch_size // devices:,} on each of {devices} devices; "
        f"hosts: {topology.num_hosts}; step_programs={report.step_programs}",
        file=file,
    )
    if report.cost.programs:
        print_table(_cost_table(report.cost), file)
    table = Table(show_header=False)
    for name, text in _plan_lines(report):
        table.add_row(name, text)
    print_table(table, file)


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Prints to stdout or a file, aligned, without bold when it is not a terminal.

    No figure is ever cut: a table that a terminal has no room for loses its frame first, and then runs over the edge.
    """
    console = Console(highlight=False, file=file)
    if is_terminal(file or sys.stdout) and not table.show_header:
        # Names and sentences, which may be broken.
        console.print(table)
        return
    room = console.width if is_terminal(file or sys.stdout) else _WIDE
    console.width = _WIDE
    if Measurement.get(console, console.options, table).maximum > room:
        table.box, table.padding, table.pad_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
    console.print(table, soft_wrap=True)


def figures_table(widths: Sequence[WidthProfile] | Sequence[WidthEntry], figures: Sequence[Figures]) -> Table:
    """Counts and figures of every width, the best of each figure in bold."""
    names = list(figures[0])
    table = _table("width", "parameters", "MACs", *(name.replace("_", " ") for name in names))
    for row, *cells in zip(widths, *_figure_columns(names, figures), strict=True):
        table.add_row(f"{row.width:g}", f"{row.params:,}", _millions(row.macs), *cells)
    return table


def errors_table(title: str, errors: Mapping[str, Mapping[float, float]]) -> Table:
    """Errors by name and width, which need not have them all: a row for every name, the best of each width in bold."""
    widths = sorted({width for of_name in errors.values() for width in of_name})
    table = _table("", *(f"{width:g}" for width in widths), left=1, title=title)
    columns = []
    for width in widths:
        of_width = {name: of_name[width] for name, of_name in errors.items() if width in of_name}
        columns.append(dict(zip(of_width, _best_in_bold(list(of_width.values())), strict=True)))
    for name in errors:
        table.add_row(name, *(column.get(name, "-") for column in columns))
    return table


def _figure_columns(names: Sequence[str], figures: Sequence[Figures]) -> list[list[Text]]:
    """Figures by name and row, the best of each in bold."""
    return [_best_in_bold([row[name] for row in figures], larger_is_better(name)) for name in names]


def _best_in_bold(values: Sequence[float], best_is_largest: bool = False) -> list[Text]:
    """Losses, errors or times as text; the best in bold, unless all read alike."""
    texts = [f"{value:,.2f}" for value in values]
    best = texts[values.index(max(values) if best_is_largest else min(values))]
    is_marked = len(set(texts)) > 1
    return [Text(text, "bold" if is_marked and text == best else "") for text in texts]


def _profile_table(report: ProfileReport) -> Table:
    headers = ("width", "parameters", "MACs", "activations", "largest\nlayer", *_latency_headers(report.latencies))
    table = _table(*headers)
    milliseconds = [_milliseconds(report.latencies_at(row.width)) for row in report.widths]
    columns = [_best_in_bold(of_widths) for of_widths in zip(*milliseconds, strict=True)]
    for row, *cells in zip(report.widths, *columns, strict=True):
        table.add_row(
            f"{row.width:g}",
            f"{row.params:,}",
            _millions(row.macs),
            _megabytes(row.activation_bytes),
            _megabytes(row.largest_layer_bytes),
            *cells,
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
                *(f"{ms:,.2f}" for ms in _milliseconds(report.layer_latencies_at(row.width, index))),
            )
        yield table


def _cost_table(cost: StepCost) -> Table:
    memory = ("arguments", "temporaries", "outputs", "in place", "beside", "peak", "code")
    table = _table("on each device", *memory, "GFLOP", "accessed", "all-reduced", left=1)
    for program in cost.programs:
        sizes = (
            program.argument_bytes,
            program.temporary_bytes,
            program.output_bytes,
            program.aliased_bytes,
            program.beside_bytes,
            program.peak_bytes,
            program.code_bytes,
        )
        moved = [_megabytes(count) for count in (program.accessed_bytes, program.all_reduced_bytes)]
        table.add_row(program.name, *map(_megabytes, sizes), f"{program.flops / 1e9:,.2f}", *moved)
    moved = [_megabytes(count) for count in (cost.accessed_bytes, cost.all_reduced_bytes)]
    code, flops = _megabytes(cost.code_bytes), f"{cost.flops / 1e9:,.2f}"
    table.add_row("step", *[""] * 5, _megabytes(cost.peak_bytes), code, flops, *moved)
    return table


def _plan_lines(report: PlanReport) -> Iterator[tuple[str, str]]:
    """What follows from a plan's figures: names and texts."""
    cost, memory, chip = report.cost, report.topology.memory_bytes, report.topology.chip
    share = f"{_memory(cost.peak_bytes)} of {_memory(memory)} on each device, {cost.peak_bytes / memory:.1%}"
    refusal = "" if cost.programs else "; the compiler refuses it"
    yield "memory", f"{share}: {'fits' if report.fits else f'does not fit{refusal}'}"
    if report.largest_batch:
        yield "largest batch", _largest_batch_text(report.largest_batch, len(report.topology.devices))
    limits = report.limits
    if limits and chip:
        peak, bandwidth = f"{chip.flops_per_second / 1e12:g} TFLOP/s", f"{chip.hbm_bytes_per_second / 1e9:g} GB/s"
        yield "compute-bound limit", f"{limits.compute_ms:,.2f} ms, at {peak} of bfloat16"
        yield "bandwidth-bound limit", f"{limits.bandwidth_ms:,.2f} ms, at {bandwidth}, by XLA's count of bytes"
        yield "limited by", f"{limits.bound_by}: at most {limits.images_per_second:,.0f} images/s on all devices"
    elif chip is None:
        yield "step time", f"no limits: the peak of {report.topology.name} is not published"
    yield "input pipeline", _pipeline_text(report.pipeline, report.host_images_per_second)


def _largest_batch_text(largest: LargestBatch, devices: int) -> str:
    refused = f"{largest.next_batch_size:,} would take {_memory(largest.next_peak_bytes)}"
    if not largest.batch_size:
        return f"none, not even one image a device: {refused}"
    on_each = f"{largest.batch_size // devices:,} on each device, {_memory(largest.peak_bytes)}"
    return f"{largest.batch_size:,} ({on_each}); {refused}"


def _pipeline_text(pipeline: Pipeline, needed: float | None) -> str:
    measure = "measure a core with experiments/benchmarks/input_pipeline.py and give --host_images_per_second"
    delivers, cores = pipeline.images_per_second, None if needed is None else pipeline.cores_for(needed)
    if needed is None:
        can = "" if delivers is None else f"a host delivers {delivers:,.0f} images/s; "
        return f"{can}nothing to compare it with without limits"
    demand = f"each host has to deliver {needed:,.0f} images/s at that limit"
    if cores is None:
        return f"{demand}; {measure}"
    if delivers is None:
        return f"{demand}, which takes {cores:,} cores; give --host_cores to compare"
    if delivers >= needed:
        return f"keeps up: {demand}, and delivers {delivers:,.0f}"
    return f"does not keep up: {demand}, which takes {cores:,} cores, and delivers {delivers:,.0f}"


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


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f} MB"


def _memory(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else _megabytes(size)


def _latency_headers(batch_sizes: Iterable[int]) -> list[str]:
    return [f"batch {size}\n{unit}" for size in batch_sizes for unit in ("ms", "p95 ms")]


def _milliseconds(latencies: Mapping[int, Latency]) -> list[float]:
    return [ms for of in latencies.values() for ms in (of.median_ms, of.p95_ms)]
