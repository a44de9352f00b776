"""The real command in real processes: fake devices, every format, mistakes in one line, and the compiler for TPUs."""

import importlib.util
import json
import re
from functools import partial

import jax
import pytest

from slimjax import create_model
from slimjax.analysis.profile import profile_model, total_params

WIDTHS = (0.25, 1.0)
# On one width and 8 pixels a program compiles in seconds.
SMALL = ["--topology=cpu:8", "--config.model.widths=(0.25,)", "--config.dataset.image_size=8", "--num_classes=10"]
OF_ONE_IMAGE = 4 * 8 * 8 * 3 + 4  # float32 pixels and an int32 label


@pytest.fixture(scope="module")
def run_plan(run_program):
    """Runs `python -m slimjax.plan` to the end: exit code, stdout, stderr."""
    return partial(run_program, module="slimjax.plan")


@pytest.fixture(scope="module")
def counted():
    """Elements of the parameters and statistics of the digits' network at one width or two."""

    def count(widths):
        model = create_model("mobilenet_v1_tiny", widths, 10)
        variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), "float32"))
        return total_params(model), sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"]))

    return count


def test_the_table_of_a_step_on_fake_devices(run_plan):
    pipeline = ["--host_images_per_second=50", "--host_cores=4"]
    code, out, err = run_plan(
        *SMALL, "--config.step_programs=per_width", "--topology=cpu:4", "--memory_gb=2", *pipeline
    )
    assert code == 0, err
    assert "mobilenet_v1_tiny: 10 classes, 8x8 pixels, float32, width 0.25\n" in out
    assert "a step of 64 images on cpu:4, 16 on each of 4 devices; hosts: 1; step_programs=per_width" in out
    rows = re.findall(r"^│ (width 0.25|update|step) +│", out, re.MULTILINE)
    assert rows == ["width 0.25", "update", "step"]
    assert re.search(r"│ memory +│ [\d.]+ MB of 2.00 GB on each device, [\d.]+%: fits +│", out)
    assert "no limits: the peak of cpu:4 is not published" in out
    assert "a host delivers 200 images/s; nothing to compare it with without limits" in out
    assert re.search(r"batch 64: program 1 of 2 \(width 0.25\): compiling: [\d.]+ s\n", err)
    assert "\x1b" not in out, "no terminal, no escape codes"
    assert all(line.endswith(("│", "┃", "┓", "┩", "┤", "┐", "┘")) for line in out.splitlines()[2:]), "no row is broken"


@pytest.mark.slow
def test_the_largest_batch_is_found_and_every_figure_can_be_counted_by_hand(run_plan, counted, tmp_path):
    output = tmp_path / "plan.json"
    memory = 20_000_000
    code, out, err = run_plan(
        *SMALL,
        "--config.step_programs=fused",
        "--find_batch_size",
        f"--memory_gb={memory / 1e9}",
        "--format=json",
        f"--output={output}",
    )
    assert code == 0, err
    assert not out
    plan = json.loads(output.read_text())
    assert (plan["topology"], plan["devices"], plan["hosts"], plan["memory_bytes"]) == ("cpu:8", 8, 1, memory)
    assert (plan["widths"], plan["batch_size"], plan["step_programs"]) == ([0.25], 64, "fused")
    assert plan["versions"]["jax"] == jax.__version__
    params, statistics = counted((0.25,))
    (program,) = plan["programs"]
    # Parameters and momentum, statistics, the steps of state and schedule, and 8 of 64 images.
    assert program["argument_bytes"] == 4 * (2 * params + statistics + 2) + 8 * OF_ONE_IMAGE
    exact = 4 * (params + statistics)
    # 6 scalars of metrics.
    assert exact <= plan["all_reduced_bytes"] == program["all_reduced_bytes"] <= exact + 6 * 4
    macs = sum(row.macs for row in profile_model(create_model("mobilenet_v1_tiny", (0.25,), 10), 8))
    # 3 passes of 2 operations for 8 images; batch norms, and the sums that stand for depthwise layers, come on top.
    assert 0.9 < plan["flops"] / (3 * 2 * macs * 8) < 3
    assert plan["limits"] is plan["pipeline"]["needed_images_per_second"] is None
    assert plan["fits"]
    largest = plan["largest_batch"]
    assert largest["peak_bytes"] <= memory < largest["next_peak_bytes"]
    assert largest["next_batch_size"] - largest["batch_size"] in (8, 64)
    assert largest["batch_size"] > 64
    assert set(largest["compiled"]) >= {64, largest["batch_size"], largest["next_batch_size"]}
    assert len(largest["compiled"]) <= 6
    for batch_size in largest["compiled"]:
        assert f"batch {batch_size}: program 1 of 1 (fused): compiling: " in err


MISTAKES = {
    "": "--topology is missing; give the devices to plan for, such as --topology=v5e:4x4 or cpu:8",
    "--topology=v5e:9x9x9": "'v5e:9x9x9': there is no such slice of v5e chips; choose 1x1, 2x2, ",
    "--topology=cpu:8 --config.batch_size=60": "batch_size=60 does not divide over 8 devices; the nearest that does is",
    "--topology=cpu:8 --config.dataset.name=folder": "train/CLASS/*.jpg; or give --num_classes",
    "--topology=cpu:8 --host_cores=8": "--host_cores=8 says nothing alone; give --host_images_per_second too",
    "--topology=cpu:8 --output=/nowhere/plan.json": "--output=/nowhere/plan.json cannot be written",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line(run_plan, assert_refused, arguments):
    assert_refused(run_plan(*arguments.split()), MISTAKES[arguments])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the TPU compiler: pip install 'slimjax[tpu]'")
def test_a_step_is_compiled_for_a_tpu_that_is_not_there(run_plan, counted):
    code, out, err = run_plan(
        "--topology=v5e:2x2",
        "--config.model.widths=(0.25, 1.0)",
        "--num_classes=10",
        "--format=json",
        "--host_images_per_second=100",
        "--host_cores=8",
        environment={"JAX_ENABLE_COMPILATION_CACHE": "false"},
    )
    assert code == 0, err
    progress = r"(batch 64: program 1 of 1 \(fused\): compiling( \.\.\.|: [\d.]+ s)\n){2}"
    assert re.fullmatch(progress, err), "libtpu has nothing to say"
    plan = json.loads(out)
    assert (plan["devices"], plan["hosts"], plan["dtype"], plan["step_programs"]) == (4, 1, "bfloat16", "fused")
    assert plan["memory_bytes"] == int(15.75 * 1024**3)
    assert plan["fits"]
    params, statistics = counted(WIDTHS)
    exact = 4 * (params + statistics)
    assert exact <= plan["all_reduced_bytes"] <= exact + 2 * 6 * 4
    (program,) = plan["programs"]
    # Arrays lie in tiles on a TPU, which pads them.
    given = 4 * (2 * params + statistics + 2) + 16 * (4 * 16 * 16 * 3 + 4)
    assert given <= program["argument_bytes"] <= 4 * given
    macs = sum(row.macs for row in profile_model(create_model("mobilenet_v1_tiny", WIDTHS, 10), 16))
    assert 0.9 < plan["flops"] / (3 * 2 * macs * 16) < 3
    limits, pipeline = plan["limits"], plan["pipeline"]
    assert limits["compute_ms"] == pytest.approx(plan["flops"] / 197e12 * 1e3)
    assert limits["bandwidth_ms"] == pytest.approx(plan["accessed_bytes"] / 819e9 * 1e3)
    slowest = max(limits["compute_ms"], limits["bandwidth_ms"])
    assert pipeline["needed_images_per_second"] == pytest.approx(64e3 / slowest)
    assert pipeline["images_per_second"] == 800
