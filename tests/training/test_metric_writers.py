"""The JSON-lines file: always JSON, whatever was measured and whoever has written to it."""

import json

import numpy as np

from slimjax.training.metric_writers import JsonLinesWriter


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
