"""The JSON-lines file: always JSON, whatever was measured and whoever has written to it."""

import json
import re

import numpy as np
import pytest
from etils import epath

from slimjax.training.metric_writers import TENSORBOARD, JsonLinesWriter, create_writer


def read(path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path, start_step=0)
    writer.write_scalars(1, {"loss": np.float32(np.nan), "norm": float("inf"), "rate": 0.5})
    writer.close()
    assert read(path) == [{"step": 1, "loss": None, "norm": None, "rate": 0.5}]


def test_a_resumed_run_drops_later_lines_and_what_nobody_can_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\nnot JSON\n[1]\n{"loss": 2}\n{"step": 3, "loss": 1}\n{"step": 2, "lo')
    writer = JsonLinesWriter(path, start_step=2)
    writer.write_scalars(3, {"loss": 0.5})
    writer.close()
    assert read(path) == [{"step": 1, "loss": 3}, {"step": 3, "loss": 0.5}]


def test_tensorboard_draws_steps_that_are_taken_again_once(tmp_path):
    """By its loader that goes through the files one event after another."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    folder, named = tmp_path / TENSORBOARD, set()
    for start_step, losses in ((0, {20: 3.0, 40: 2.0, 60: 1.0, 80: 0.9}), (40, {60: 0.8, 80: 0.7}), (60, {80: 0.6})):
        writer = create_writer(epath.Path(tmp_path), start_step, leads=True)
        for step, loss in losses.items():
            writer.write_scalars(step, {"loss": loss})
        writer.close()
        # Files are read in the order of the seconds in their names, which here are the same.
        for path in set(folder.iterdir()) - named:
            name = re.sub(r"tfevents\.\d+", f"tfevents.{10**9 + start_step}", path.name)
            named.add(path.rename(folder / name))
    assert len(named) == 3 * 2
    events = EventAccumulator(str(folder))
    events.Reload()
    drawn = {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors("loss")}
    assert len(events.Tensors("loss")) == 4
    assert drawn == pytest.approx({20: 3.0, 40: 2.0, 60: 0.8, 80: 0.6})
