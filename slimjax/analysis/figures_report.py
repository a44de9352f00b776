"""What a trained network does at every width, as CSV and JSON. The table is in slimjax/analysis/tables.py."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimjax.analysis.profile import WidthProfile
from slimjax.tasks.task import Figures


@dataclass(frozen=True)
class FiguresReport:
    """An evaluation of a trained network.

    Attributes:
      model: name of the network.
      num_classes: outputs of its classifier.
      image_size: pixels of the images' side.
      dataset: on whose evaluation split it was evaluated.
      eval_split: that split.
      step: of the checkpoint.
      checkpoints: the folder in which that is.
      widths: counts, narrowest first.
      figures: of every width, such as `top1_error` in percent.
      versions: of the libraries, by package.
      notes: lines for people to read below a table.
    """

    model: str
    num_classes: int
    image_size: int
    dataset: str
    eval_split: str
    step: int
    checkpoints: str
    widths: Sequence[WidthProfile]
    figures: Mapping[float, Figures]
    versions: Mapping[str, str]
    notes: Sequence[str] = ()


def as_json(report: FiguresReport) -> str:
    """The network, the checkpoint, and a list `widths`."""
    keys = ("model", "num_classes", "image_size", "dataset", "eval_split", "step", "checkpoints", "versions")
    return json.dumps({**{key: getattr(report, key) for key in keys}, "widths": _rows(report)}, indent=1) + "\n"


def as_csv(report: FiguresReport) -> str:
    """A header and a row for every width."""
    rows = _rows(report)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(report: FiguresReport) -> list[dict[str, Any]]:
    return [
        {"width": row.width, "params": row.params, "macs": row.macs, **report.figures[row.width]}
        for row in report.widths
    ]
