"""Times a bundle on this machine: latency and throughput of every width, batch size and back end that is installed.

python -m slimjax.benchmark BUNDLE                                       every program that can be run here
python -m slimjax.benchmark BUNDLE --batch_sizes=1,32 --threads=2        on as many cores
python -m slimjax.benchmark BUNDLE --backends=jax --plot=latency.png     and error against latency, as a picture
python -m slimjax.benchmark BUNDLE --format=json --output=FILE           or csv

Images are black: time does not depend on values. Errors are those that were measured when the bundle was made.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from slimjax import cli
from slimjax.deploy.backends import BACKENDS
from slimjax.errors import UserError
from slimjax.paths import check_writable, writing

# What needs JAX is imported once the flags are known to be good.
if TYPE_CHECKING:
    from slimjax.deploy.benchmarking import BenchmarkReport, Runnable
    from slimjax.deploy.bundle import Manifest

PICTURES = (".pdf", ".png", ".svg")

_BACKENDS = flags.DEFINE_list("backends", [], f"Of {', '.join(BACKENDS)}; all that are installed where none is given.")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1"], "Images of one timed call; several, as in 1,32, are timed each.")
_THREADS = flags.DEFINE_integer("threads", None, "Cores that a call may use; all of this process's if absent.")
_REPEATS = flags.DEFINE_integer("repeats", 50, "Timed calls, of which the median and 95th percentile are reported.")
_FORMAT, _OUTPUT = cli.define_format("table", "csv", "json")
_QUIET = cli.define_quiet()
_PLOT = flags.DEFINE_string("plot", None, f"Picture of error against latency to draw: {', '.join(PICTURES)}.")


def main(bundle: str) -> int:
    """Measures and prints what the flags ask for; returns the exit code."""
    batch_sizes = cli.positive_integers("batch_sizes", _BATCH_SIZES.value)
    if _REPEATS.value < 1:
        raise UserError(f"--repeats={_REPEATS.value} has to be at least 1")
    if unknown := [name for name in _BACKENDS.value if name not in BACKENDS]:
        raise UserError(f"--backends={','.join(unknown)} is unknown; choose among {', '.join(BACKENDS)}")
    for flag in (_OUTPUT, _PLOT):
        if flag.value:
            check_writable(Path(flag.value).expanduser(), f"--{flag.name}", is_file=True)
    if _PLOT.value and Path(_PLOT.value).suffix not in PICTURES:
        raise UserError(f"--plot={_PLOT.value} has to end in one of {', '.join(PICTURES)}")
    threads = _limit_cores()
    _print(_report(Path(bundle).expanduser(), batch_sizes, threads))
    return 0


def _limit_cores() -> int:
    """Leaves the process as many cores as --threads says, before JAX counts them; returns their number."""
    if not hasattr(os, "sched_getaffinity"):
        if _THREADS.value is not None:
            raise UserError("--threads can be given on Linux only; leave it out to use all cores")
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))
    threads = len(cores) if _THREADS.value is None else _THREADS.value
    if not 1 <= threads <= len(cores):
        raise UserError(f"--threads={threads} has to be 1 to {len(cores)}, the cores that this process may use")
    os.sched_setaffinity(0, cores[:threads])
    return threads


def _report(bundle: Path, batch_sizes: list[int], threads: int) -> "BenchmarkReport":
    from slimjax.deploy.benchmarking import BenchmarkReport, time_bundle
    from slimjax.deploy.bundle import read_manifest

    manifest = read_manifest(bundle)
    programs = _programs(bundle, manifest)
    if _PLOT.value and any("top1_error" not in entry.figures for entry in manifest.widths):
        raise UserError(f"--plot={_PLOT.value}: {bundle} has no measured errors to draw; leave the flag out")
    from slimjax.allocator import keep_freed_memory
    from slimjax.analysis.machine import describe_machine
    from slimjax.training.progress import Progress

    keep_freed_memory()
    with Progress(enabled=not _QUIET.value) as progress:
        timings = time_bundle(bundle, manifest, programs, batch_sizes, threads, _REPEATS.value, progress)
    return BenchmarkReport(manifest, describe_machine(), threads, _REPEATS.value, timings)


def _programs(bundle: Path, manifest: "Manifest") -> "list[Runnable]":
    """What is to be timed; UserError if that is nothing."""
    from slimjax.deploy.benchmarking import runnable

    asked_for = _BACKENDS.value or list(BACKENDS)
    programs = runnable(manifest, asked_for)
    missing = [name for name in _BACKENDS.value if name not in {program.backend for program in programs}]
    if missing or not programs:
        raise UserError(
            f"{bundle} has nothing that {', '.join(missing or asked_for)} can run here: it has "
            f"{', '.join(manifest.programs)}; export it with other --formats, or run pip install 'slimjax[onnx,litert]'"
        )
    return programs


def _print(report: "BenchmarkReport") -> None:
    from slimjax.analysis.tables import print_benchmark
    from slimjax.deploy.benchmarking import as_csv, as_json
    from slimjax.deploy.plots import plot_error_over_latency

    with cli.opened(_OUTPUT.value) as file:
        if cli.asked_format(_FORMAT, _OUTPUT.value) == "table":
            print_benchmark(report, file)
        else:
            file.write({"csv": as_csv, "json": as_json}[cli.asked_format(_FORMAT, _OUTPUT.value)](report))
    if _PLOT.value:
        with writing(_PLOT.value, "--plot"):
            plot_error_over_latency(report, Path(_PLOT.value).expanduser())


if __name__ == "__main__":
    cli.run(main, operand="BUNDLE")
