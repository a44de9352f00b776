"""Where metrics go: TensorBoard event files and a JSON-lines file, beside the checkpoints."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

# Before clu, which imports TensorFlow with all its chatter.
import slimjax.tensorflow_import  # noqa: F401  isort: skip
from clu import metric_writers
from clu.metric_writers import MetricWriter
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from slimjax.tasks.task import Figures

JSON_LINES = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class JsonLinesWriter(MetricWriter):
    """Appends one JSON object for each step: `{"step": 20, "train/loss/width_0.5": 1.3, ...}`.

    What is not a finite number is null, as JSON has it.
    """

    def __init__(self, path: epath.Path, start_step: int) -> None:
        """Opens the file; lines of steps after `start_step`, which a killed run has left, are dropped."""
        kept = [line for line in _whole_lines(path) if _step_of(line) <= start_step]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: a kill in between must not cost the lines that are there.
        rewritten = path.with_suffix(".rewritten")
        rewritten.write_text("".join(kept))
        rewritten.replace(path)
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """See clu's MetricWriter."""
        plain = {name: _finite(float(np.asarray(value))) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": int(step), **plain}) + "\n")
        self._file.flush()

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Nothing: the configuration is in the checkpoints."""

    def flush(self) -> None:
        """Every line is flushed as it is written."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _unsupported(self, step: int, values: Mapping[str, Any]) -> None:
        raise NotImplementedError("metrics.jsonl holds scalars only")

    write_images = write_videos = write_audios = write_texts = write_histograms = write_pointcloud = _unsupported
    write_summaries = _unsupported


def create_writer(workdir: epath.Path, start_step: int, leads: bool) -> MetricWriter:
    """A writer of both kinds for the process that writes logs, and one that writes nothing for the others."""
    if not leads:
        return metric_writers.MultiWriter([])
    lines = JsonLinesWriter(workdir / JSON_LINES, start_step)
    events = str(workdir / TENSORBOARD)
    _mark_start(events, start_step)
    return metric_writers.MultiWriter([metric_writers.SummaryWriter(events), lines])


def _mark_start(folder: str, start_step: int) -> None:
    """Tells TensorBoard that what there is of steps after `start_step`, which a killed run has left, counts no more.

    Its quick loader sees that by the steps' order. The other one, for where that cannot run, would draw steps that are
    taken again twice; it looks for the marks, and takes the first one for the beginning of the run.
    """
    writer = EventFileWriter(folder)
    start = SessionLog(status=SessionLog.START)
    writer.add_event(Event(wall_time=time.time(), step=start_step + 1, session_log=start))
    writer.close()


def scalars_of(split: str, figures: Mapping[float, Figures]) -> Figures:
    """Flattens figures by width into names such as `train/top1_error/width_0.25`."""
    return {f"{split}/{name}/width_{w:g}": value for w, row in figures.items() for name, value in row.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _step_of(line: str) -> float:
    """The step of a line; infinity, which no run reaches, for one that nobody can read."""
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf


def _whole_lines(path: epath.Path) -> list[str]:
    """Lines of a file that end in a newline: a killed run may have left half of one."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
