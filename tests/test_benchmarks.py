"""The benchmarks, from their commands to their records, on as little as they take."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture
def record_of(tmp_path):
    """Runs a benchmark's script; returns its record and what it printed."""

    def run(script, *options):
        output = tmp_path / "record.json"
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        result = subprocess.run(
            [sys.executable, str(FOLDER / script), *options, "--output", str(output)],
            env=environment,
            cwd=FOLDER.parents[1],
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(output.read_text()), result.stdout

    return run


@pytest.mark.slow
def test_the_train_step_is_timed_and_recorded(record_of):
    options = ["--models", "mobilenet_v1", "--starts", "2", "--rounds", "1", "--image_size", "32", "--batch_size", "2"]
    record, shown = record_of("train_step.py", *options)
    assert (record["image_size"], record["batch_size"]) == (32, 2)
    (model,) = record["models"]
    assert model["widths"] == [0.25, 0.5, 0.75, 1.0]
    ours = {"slimmable_per_width", "slimmable_fused", "individuals"}
    assert ours <= model["seconds"].keys()
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in model["seconds"].values())
    assert model["ratios"]["slimmable_fused / individuals"]["median"] > 0
    # A program for every width and one for the update; one in all; one for every individual network.
    programs = {which: len(model["built"][which]["temporary_bytes"]) for which in ours}
    assert programs == {"slimmable_per_width": 5, "slimmable_fused": 1, "individuals": 4}
    assert "slimmable_per_width" in shown


COMPARED = {
    # Parameters with the published widths, and multiply-adds of the narrowest and the widest, millions (SNet).
    "mobilenet_v1": ((0.25, 0.5, 0.75, 1.0), 4_264_808, (41.0, 568.8)),
    "mobilenet_v2": ((0.35, 0.5, 0.75, 1.0), 3_556_456, (59.3, 300.8)),
    "shufflenet": ((0.5, 1.0, 2.0), 5_487_496, (37.55, 523.5)),
    "resnet50": ((0.25, 0.5, 0.75, 1.0), 25_636_712, (278.1, 4089.3)),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", COMPARED)
def test_what_speed_is_compared_with_is_the_published_network(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import torch
    import torch_networks
    from torch.utils.flop_counter import FlopCounterMode

    widths, parameters, macs = COMPARED[name]
    network = torch_networks.Network(name, widths).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    for width, expected in zip((widths[0], widths[-1]), macs, strict=True):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            logits = network(torch.zeros(1, 3, 224, 224), width)
        assert logits.shape == (1, 1000)
        assert counter.get_total_flops() / 2e6 == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_where_a_train_steps_time_goes_is_told(record_of):
    options = ["--models", "shufflenet", "--steps", "2", "--image_size", "32", "--batch_size", "2"]
    record, shown = record_of("step_profile.py", *options)
    (model,) = record["models"]
    seconds = model["seconds"]["slimjax"]
    assert min(seconds.values()) > 0
    layers = ("1x1 grouped convolution", "depthwise conv", "switchable batch norm")
    places = {place.rpartition(", ")[0] or place for place in seconds}
    assert places >= {f"{layer}, {way}" for layer in layers for way in ("forward", "backward")}
    assert places >= {"stem, forward", "update"}
    assert "1x1 grouped convolution, backward, dot_general" in shown


@pytest.mark.slow
def test_the_parts_of_a_detector_are_timed(record_of):
    options = ["--sizes", "64x96", "--widths", "0.25", "1", "--repeats", "2"]
    record, shown = record_of("detection.py", *options)
    (size,) = record["sizes"]
    assert (size["height"], size["width"]) == (64, 96)
    parts = {"backbone", "pyramid", "rpn", "proposals", "box roi_align", "box head", "detections"}
    parts |= {"mask roi_align", "mask head", "whole"}
    parts |= {"step", "step proposals", "step box roi_align", "step mask roi_align"}
    for row, width in zip(size["rows"], (0.25, 1.0), strict=True):
        assert row["width"] == width
        assert row["ms"].keys() == parts
        assert min(row["ms"].values()) > 0
    assert "inference and % of the sum of its parts" in " ".join(shown.split())


@pytest.mark.slow
def test_the_loop_is_compared_with_the_bare_step(record_of):
    record, shown = record_of("loop_overhead.py", "--steps", "15", "--rounds", "1")
    (row,) = record["rounds"]
    assert record["loop_over_bare"] == pytest.approx(row["loop_s"] / row["bare_s"], abs=1e-3)
    assert "times the bare one's" in shown


@pytest.mark.slow
def test_evaluating_at_once_is_compared_with_one_width_after_the_other(record_of):
    options = ["--model", "mobilenet_v1", "--images", "6", "--batch_size", "4", "--rounds", "1"]
    record, _ = record_of("evaluation.py", *options)
    (row,) = record["rounds"]
    assert record["together_over_apart"] == pytest.approx(row["together_s"] / row["one_after_another_s"], abs=1e-2)
    by_commands = row["command_together_s"] / row["commands_one_after_another_s"]
    assert record["commands_together_over_apart"] == pytest.approx(by_commands, abs=1e-2)
    assert row["images_alone_s"] > 0


@pytest.mark.slow
def test_what_a_step_sends_and_keeps_is_counted(record_of):
    record, _ = record_of("step_costs.py", "--model", "mobilenet_v1_tiny", "--topology", "cpu:2", "--batch_size", "4")
    assert [(len(row["widths"]), row["step_programs"]) for row in record["rows"]] == [
        (count, programs) for count in (1, 4, 8) for programs in ("per_width", "fused")
    ]
    for row in record["rows"]:
        # Statistics and metrics are a few bytes beside the parameters, which cross once.
        assert 1 <= row["all_reduced_over_parameters_and_statistics"] < 1.01


@pytest.mark.slow
def test_the_input_pipeline_is_compared_with_decoding(record_of):
    record, _ = record_of("input_pipeline.py", "--images", "32", "--batches", "1", "--rounds", "1")
    assert {"evaluation", "training"} <= record["ratio_to_decoding"].keys()


@pytest.mark.slow
def test_under_load_every_policy_serves_the_same_requests(finished_run, run_program, record_of, tmp_path):
    bundle = tmp_path / "bundle"
    code, _, err = run_program(f"--workdir={finished_run}", f"--output={bundle}", module="slimjax.export")
    assert code == 0, err
    record, shown = record_of("load.py", str(bundle), "--seconds", "3", "--batch_size", "64", "--rate", "20")
    with (tmp_path / "record.csv").open() as file:
        rows = list(csv.DictReader(file))
    served = {policy: [row for row in rows if row["policy"] == policy] for policy in record["summary"]}
    assert [len(served[policy]) for policy in ("widest", "narrowest", "controller")] == [60, 60, 60]
    assert {row["width"] for row in served["widest"]} == {"1.0"}
    assert {row["width"] for row in served["narrowest"]} == {"0.25"}
    for policy, of_policy in served.items():
        loaded = [row for row in of_policy if 1 <= float(row["due_s"]) < 2]
        missed = sum(float(row["response_ms"]) > record["deadline_ms"] for row in loaded)
        assert record["summary"][policy]["loaded"]["missed"] == pytest.approx(missed / len(loaded), abs=1e-4)
    # The same images at the same width are answered alike, whatever else runs.
    narrow = {row["due_s"]: row["error"] for row in served["narrowest"]}
    assert all(row["error"] == narrow[row["due_s"]] for row in served["controller"] if row["width"] == "0.25")
    assert (tmp_path / "record.png").stat().st_size > 10_000
    assert "controller" in shown


@pytest.mark.slow
def test_widths_through_shared_weights_are_compared_with_the_same_alone(record_of):
    backends = ["jax", "onnxruntime", "litert"]
    options = ["--models", "mobilenet_v1", "--backends", *backends, "--batch_sizes", "1"]
    record, shown = record_of("latency.py", *options, "--image_size", "32", "--rounds", "1")
    assert [row["width"] for row in record["rows"]] == [0.25, 0.5, 0.75, 1.0]
    for row in record["rows"]:
        for backend in backends:
            of = row[backend]
            assert of["shared_over_alone"] == pytest.approx(of["shared_ms"] / of["alone_ms"], rel=0.05)
    assert "/ alone" in shown
