"""What a plan says, of figures that are easily computed by hand."""

import io
import json

import pytest

from slimjax.analysis.chips import CHIPS
from slimjax.analysis.plan_report import LargestBatch, Pipeline, PlanReport, as_json
from slimjax.analysis.program_costs import ProgramCost, StepCost
from slimjax.analysis.tables import print_plan
from slimjax.analysis.topologies import Topology

# 8 chips of 2 hosts. Each takes 1 ms for its operations and 4 ms for its bytes: 8,192 images in 4 ms.
EIGHT_CHIPS = Topology("v5e:2x4", (None,) * 8, 2, CHIPS["v5e"], CHIPS["v5e"].usable_bytes)
PROGRAMS = (
    ProgramCost("width 1", 400_000_000, 3_000_000_000, 60_000_000, 10_000_000, 50_000_000, 0, 0.99e12, 20e8, 1, 24),
    ProgramCost("update", 100_000_000, 0, 0, 0, 0, 500_000_000, 0.98e12, 12.76e8, 2, 14_000_000),
)


def report(**changes):
    values = {
        "model": "mobilenet_v2",
        "widths": (1.0, 0.35),
        "num_classes": 1000,
        "image_size": (224, 224),
        "dtype": "bfloat16",
        "step_programs": "per_width",
        "topology": EIGHT_CHIPS,
        "cost": StepCost(8192, PROGRAMS),
        "largest_batch": None,
        "pipeline": Pipeline(None, None),
        "versions": {"jax": "1.2.3"},
    }
    return PlanReport(**values | changes)


def text_of(**changes):
    file = io.StringIO()
    print_plan(report(**changes), file)
    return file.getvalue()


def line(text, name):
    """The line of the second table that begins with a name, without its borders."""
    return next(row.strip("│ ").split("│")[1].strip() for row in text.splitlines() if row.startswith(f"│ {name} "))


def test_memory_limits_and_demand():
    text = text_of()
    assert "mobilenet_v2: 1000 classes, 224x224 pixels, bfloat16, widths 1, 0.35\n" in text
    assert "8,192 images on v5e:2x4, 1,024 on each of 8 devices; hosts: 2; step_programs=per_width\n" in text
    # 400 + 3,000 + 60 - 10 + 50 MB of arrays, and 500 MB of code.
    assert line(text, "memory") == "4.00 GB of 16.91 GB on each device, 23.7%: fits"
    assert line(text, "compute-bound limit") == "10.00 ms, at 197 TFLOP/s of bfloat16"
    assert line(text, "bandwidth-bound limit") == "4.00 ms, at 819 GB/s, by XLA's count of bytes"
    assert line(text, "limited by") == "compute: at most 819,200 images/s on all devices"
    demand = "each host has to deliver 409,600 images/s at that limit"
    assert line(text, "input pipeline") == (
        f"{demand}; measure a core with experiments/benchmarks/input_pipeline.py and give --host_images_per_second"
    )


@pytest.mark.parametrize(
    ("pipeline", "verdict"),
    [
        (Pipeline(1000.0, None), "takes 410 cores; give --host_cores to compare"),
        (Pipeline(1000.0, 409), "does not keep up: each host has to deliver 409,600 images/s at that limit, which"),
        (
            Pipeline(1000.0, 410),
            "keeps up: each host has to deliver 409,600 images/s at that limit, and delivers 410,000",
        ),
    ],
)
def test_whether_the_input_pipeline_keeps_up(pipeline, verdict):
    said = line(text_of(pipeline=pipeline), "input pipeline")
    assert verdict in said
    assert said.startswith("keeps up") == (pipeline.cores == 410)


def test_what_does_not_fit():
    assert line(text_of(cost=StepCost(8192, (), 20_000_000_000)), "memory") == (
        "20.00 GB of 16.91 GB on each device, 118.3%: does not fit; the compiler refuses it"
    )
    small = Topology("v5e:2x4", (None,) * 8, 2, CHIPS["v5e"], 3e9)
    assert "133.3%: does not fit" in text_of(topology=small)


def test_the_largest_batch():
    found = LargestBatch(16384, 16448, 16_000_000_000, 17_000_000_000, (8192, 16384, 16448))
    assert line(text_of(largest_batch=found), "largest batch") == (
        "16,384 (2,048 on each device, 16.00 GB); 16,448 would take 17.00 GB"
    )
    none = LargestBatch(0, 8, 0, 17_000_000_000, (8192, 8))
    assert line(text_of(largest_batch=none), "largest batch") == (
        "none, not even one image a device: 8 would take 17.00 GB"
    )


def test_json_has_every_figure():
    plan = json.loads(as_json(report(pipeline=Pipeline(1000.0, 410))))
    assert (plan["topology"], plan["devices"], plan["hosts"], plan["batch_size"]) == ("v5e:2x4", 8, 2, 8192)
    assert (plan["peak_bytes"], plan["fits"], plan["all_reduced_bytes"]) == (4_000_000_000, True, 14_000_024)
    assert [program["peak_bytes"] for program in plan["programs"]] == [3_500_000_000, 100_000_000]
    assert plan["limits"] == {
        "compute_ms": pytest.approx(10.0),
        "bandwidth_ms": pytest.approx(4.0),
        "bound_by": "compute",
        "images_per_second": pytest.approx(819_200),
    }
    assert plan["pipeline"] == {
        "images_per_second_per_core": 1000.0,
        "cores": 410,
        "images_per_second": 410_000.0,
        "needed_images_per_second": pytest.approx(409_600),
    }
    assert plan["versions"] == {"jax": "1.2.3"}
