"""A profile as CSV and JSON. The tables of the terminal are in slimjax/analysis/tables.py."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slimjax.analysis.profile import WidthProfile
from slimjax.analysis.timing import Latency

_COLUMNS = (
    "width",
    "path",
    "kind",
    "input_shape",
    "output_shape",
    "params",
    "kernel_params",
    "batch_norm_params",
    "macs",
    "input_bytes",
    "activation_bytes",
    "largest_layer_bytes",
    "total_params",
)
"""Of a CSV, in their order: what only layers have, or only widths, stands beside what is like it. Latencies follow."""


@dataclass(frozen=True)
class ProfileReport:
    """What was counted and measured of one network.

    Attributes:
      model: name of the network.
      num_classes: outputs of its classifier.
      image_size: pixels of the images' side.
      dtype: of the computation.
      machine: where it was measured, see describe_machine.
      repeats: timed calls of each program.
      total_params: trained parameters of the whole slimmable network.
      widths: counts, narrowest first.
      latencies: by batch size and width; empty if nothing was timed.
      layer_latencies: by batch size and width, in the order of the layers; empty if no layer was timed.
      with_layers: whether layers are reported beside the widths.
    """

    model: str
    num_classes: int
    image_size: int
    dtype: str
    machine: Mapping[str, Any]
    repeats: int
    total_params: int
    widths: Sequence[WidthProfile]
    latencies: Mapping[int, Mapping[float, Latency]]
    layer_latencies: Mapping[int, Mapping[float, Sequence[Latency]]]
    with_layers: bool

    def latencies_at(self, width: float) -> dict[int, Latency]:
        """Latencies of a width by batch size."""
        return {batch_size: of_width[width] for batch_size, of_width in self.latencies.items()}

    def layer_latencies_at(self, width: float, index: int) -> dict[int, Latency]:
        """Latencies of one of a width's layers by batch size."""
        return {batch_size: of_width[width][index] for batch_size, of_width in self.layer_latencies.items()}


def as_json(report: ProfileReport) -> str:
    """Everything: the network, the machine, and a list `widths`, with their `layers` where those are reported."""
    widths = []
    for row in report.widths:
        widths.append({"width": row.width, **_counts(row), "latency": _latency_rows(report.latencies_at(row.width))})
        if report.with_layers:
            widths[-1]["layers"] = [
                {**asdict(layer), "latency": _latency_rows(report.layer_latencies_at(row.width, index))}
                for index, layer in enumerate(row.layers)
            ]
    keys = ("model", "num_classes", "image_size", "dtype", "machine", "repeats", "total_params")
    return json.dumps({**{key: getattr(report, key) for key in keys}, "widths": widths}, indent=1) + "\n"


def as_csv(report: ProfileReport) -> str:
    """A header and a row for every width. With layers, a width's row is of kind `network`, and its layers follow it.

    Columns that say nothing of a layer are empty in its row.
    """
    rows = list(_csv_rows(report))
    present = dict.fromkeys(column for row in rows for column in row)
    columns = [*filter(present.__contains__, _COLUMNS), *(column for column in present if column not in _COLUMNS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 112x112x32."""
    return "x".join(map(str, shape))


def _csv_rows(report: ProfileReport) -> Iterator[dict[str, Any]]:
    for row in report.widths:
        where = {"path": "", "kind": "network"} if report.with_layers else {}
        counts = {**_counts(row), "total_params": report.total_params}
        yield {"width": row.width, **where, **counts, **_latency_columns(report.latencies_at(row.width))}
        for index, layer in enumerate(row.layers if report.with_layers else ()):
            shapes = {key: shape_text(getattr(layer, key)) for key in ("input_shape", "output_shape")}
            timed = _latency_columns(report.layer_latencies_at(row.width, index))
            yield {"width": row.width, **asdict(layer), **shapes, **timed}


def _counts(row: WidthProfile) -> dict[str, int]:
    keys = ("params", "kernel_params", "batch_norm_params", "macs", "activation_bytes", "largest_layer_bytes")
    return {key: getattr(row, key) for key in keys}


def _latency_rows(latencies: Mapping[int, Latency]) -> list[dict[str, float]]:
    return [{"batch_size": batch_size, **asdict(latency)} for batch_size, latency in latencies.items()]


def _latency_columns(latencies: Mapping[int, Latency]) -> dict[str, float]:
    return {
        f"batch_{batch_size}_{name}": round(value, 4)
        for batch_size, latency in latencies.items()
        for name, value in asdict(latency).items()
    }
