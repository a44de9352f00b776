"""Times a bundle's programs on this machine: every width and batch size, on every back end that is installed."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slimjax.analysis.timing import Latency, time_in_turns
from slimjax.deploy.backends import BACKENDS, load_programs
from slimjax.deploy.bundle import Manifest, WidthEntry
from slimjax.training.progress import Progress


class Runnable(NamedTuple):
    """A program of a bundle and what runs it here.

    Attributes:
      backend: its name.
      program: as the manifest files it.
    """

    backend: str
    program: str


@dataclass(frozen=True)
class Timing:
    """One width at one batch size.

    Attributes:
      backend: that ran it.
      program: of the bundle.
      batch_size: images of a call.
      width: of the network.
      latency: of a call.
    """

    backend: str
    program: str
    batch_size: int
    width: float
    latency: Latency

    @property
    def images_per_second(self) -> float:
        """Images of calls made one after the other."""
        return self.batch_size / self.latency.median_ms * 1e3


@dataclass(frozen=True)
class BenchmarkReport:
    """What was measured of one bundle.

    Attributes:
      manifest: of the bundle.
      machine: where it was measured, see describe_machine.
      threads: that a call could use.
      repeats: timed calls of each width, batch size and program.
      timings: by program, batch size and width, in this order.
    """

    manifest: Manifest
    machine: Mapping[str, Any]
    threads: int
    repeats: int
    timings: Sequence[Timing]

    def width_of(self, timing: Timing) -> WidthEntry:
        """What the manifest says of the width of a timing."""
        return next(entry for entry in self.manifest.widths if entry.width == timing.width)


def runnable(manifest: Manifest, backends: Sequence[str]) -> list[Runnable]:
    """The programs of a bundle that some back ends run, where these are installed."""
    return [
        Runnable(name, program)
        for name in backends
        if all(find_spec(package) for package in BACKENDS[name].packages)
        for program in BACKENDS[name].programs
        if program in manifest.programs
    ]


def time_bundle(
    bundle: Path,
    manifest: Manifest,
    programs: Sequence[Runnable],
    batch_sizes: Sequence[int],
    threads: int,
    repeats: int,
    progress: Progress,
) -> list[Timing]:
    """Times calls of every width, in turns, so that a machine whose speed drifts favours none.

    Args:
      bundle: its folder.
      manifest: of it, as `read_manifest` returned it.
      programs: to time, one after the other: the threads of one would be in the way of another's.
      batch_sizes: images of a call.
      threads: of a call. JAX takes all cores that the process may use, which have to be as many.
      repeats: timed calls of each.
      progress: told of each program.

    Raises:
      UserError: if a program cannot be loaded.
    """
    timings = []
    for backend, program in programs:
        loaded = load_programs(backend, bundle, manifest, program, None if backend == "jax" else threads)
        for batch_size in batch_sizes:
            shape, dtype = manifest.input.image_shape, manifest.input.dtype
            images = np.zeros((batch_size, *shape), dtype)
            calls = {entry.width: partial(loaded, entry.width, images) for entry in manifest.widths}
            with progress.announced(f"{backend} {program}: {len(calls)} widths, batch {batch_size}"):
                measured = time_in_turns(calls, repeats, progress.track)
            timings += [Timing(backend, program, batch_size, width, latency) for width, latency in measured.items()]
    return timings


def as_json(report: BenchmarkReport) -> str:
    """The bundle, the machine, and a list `timings`."""
    keys = ("model", "num_classes", "input", "versions")
    about = {key: asdict(report.manifest)[key] for key in keys}
    where = {"machine": report.machine, "threads": report.threads, "repeats": report.repeats}
    return json.dumps({**about, **where, "timings": _rows(report)}, indent=1) + "\n"


def as_csv(report: BenchmarkReport) -> str:
    """A header and a row for every timing."""
    text = io.StringIO()
    rows = _rows(report)
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(report: BenchmarkReport) -> list[dict[str, Any]]:
    return [
        {
            "backend": timing.backend,
            "program": timing.program,
            "batch_size": timing.batch_size,
            "width": timing.width,
            "macs": report.width_of(timing).macs,
            **report.width_of(timing).figures,
            **asdict(timing.latency),
            "images_per_second": timing.images_per_second,
        }
        for timing in report.timings
    ]
