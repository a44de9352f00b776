"""The benchmark of the train step, from its command to its record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "experiments" / "benchmarks" / "train_step.py"


@pytest.mark.slow
def test_the_train_step_is_timed_and_recorded(tmp_path):
    output = tmp_path / "record.json"
    options = ["--models", "mobilenet_v1", "--rounds", "1", "--image_size", "32", "--batch_size", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--output", str(output)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(output.read_text())
    assert (record["image_size"], record["batch_size"]) == (32, 2)
    (model,) = record["models"]
    assert model["widths"] == [0.25, 0.5, 0.75, 1.0]
    ours = {"slimmable_per_width", "slimmable_fused", "individuals"}
    assert ours <= model["seconds"].keys()
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in model["seconds"].values())
    assert model["ratios"]["slimmable_fused / individuals"] > 0
    # A program for every width and one for the update; one in all; one for every individual network.
    programs = {which: len(model["built"][which]["temporary_bytes"]) for which in ours}
    assert programs == {"slimmable_per_width": 5, "slimmable_fused": 1, "individuals": 4}
    assert "slimmable_per_width" in result.stdout
