"""Costs against programs that can be counted by hand, and the cache that keeps them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from slimjax.analysis.cost_cache import CostCache
from slimjax.analysis.program_costs import ProgramCost, StepCost, bytes_on_device, program_cost, refused_bytes
from slimjax.training.mesh import data_mesh


def cost(name="program", **values):
    sizes = ("argument", "temporary", "output", "aliased", "beside", "code", "accessed", "all_reduced")
    return ProgramCost(name=name, **{f"{size}_bytes": 0 for size in sizes} | {"flops": 0.0, "all_reduces": 0} | values)


def test_a_product_of_matrices():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (32, 16))]
    program = jax.jit(jnp.matmul).lower(*shapes).compile()
    counted = program_cost("product", program, beside_bytes=7)
    assert (counted.name, counted.beside_bytes) == ("product", 7)
    assert counted.argument_bytes == 4 * (64 * 32 + 32 * 16)
    assert counted.output_bytes == 4 * 64 * 16
    assert counted.flops == pytest.approx(2 * 64 * 32 * 16, rel=0.01)
    assert counted.accessed_bytes >= counted.argument_bytes + counted.output_bytes
    assert counted.all_reduces == counted.all_reduced_bytes == 0


def test_bytes_on_a_device_are_its_share():
    split, whole = (NamedSharding(data_mesh(), PartitionSpec(*axes)) for axes in (["data"], []))
    tree = {
        "batch": jax.ShapeDtypeStruct((16, 3), jnp.float32, sharding=split),
        "state": jax.ShapeDtypeStruct((5,), jnp.bfloat16, sharding=whole),
    }
    assert bytes_on_device(tree) == 2 * 3 * 4 + 5 * 2


def test_a_step_adds_up_and_peaks_where_its_largest_program_does():
    first = cost(argument_bytes=5, temporary_bytes=10, output_bytes=3, aliased_bytes=2, beside_bytes=1, code_bytes=4)
    second = cost(argument_bytes=6, flops=2.0, accessed_bytes=8.0, all_reduced_bytes=9, code_bytes=1)
    step = StepCost(64, (first, second))
    assert (first.peak_bytes, second.peak_bytes, step.peak_bytes) == (17, 6, 22)
    assert (step.flops, step.accessed_bytes, step.all_reduced_bytes) == (2.0, 8.0, 9)
    assert step.fits(22)
    assert not step.fits(21)
    refused = StepCost(64, (), 10)
    assert refused.peak_bytes == 10
    assert not refused.fits(100), "what the compiler refuses does not fit"


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (372.53G) "
            "exceeds available HBM (15.75G).",
            372.53 * 2**30,
        ),
        (
            "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 63.8G of 30.75G hbm.",
            63.8 * 2**30,
        ),
        ("INVALID_ARGUMENT: something else (1.00G)", None),
    ],
)
def test_what_a_refused_program_would_take(message, size):
    assert refused_bytes(RuntimeError(message)) == (size and round(size))


def test_costs_are_found_again_for_the_same_program_only(tmp_path):
    def lowered(size):
        return jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((size,), jnp.float32))

    cache = CostCache(tmp_path / "new", "v5e:2x2")
    assert cache.find(lowered(3), "first", 1) is None
    kept = cost("first", argument_bytes=12, flops=3.0)
    cache.keep(lowered(3), kept)
    found = CostCache(tmp_path / "new", "v5e:2x2").find(lowered(3), "again", 5)
    assert found == cost("again", argument_bytes=12, flops=3.0, beside_bytes=5)
    assert cache.find(lowered(4), "first", 1) is None
    assert CostCache(tmp_path / "new", "v5e:4x4").find(lowered(3), "first", 1) is None
    (file,) = (tmp_path / "new").iterdir()
    file.write_text(file.read_text()[:20])
    assert cache.find(lowered(3), "first", 1) is None, "a file that was cut off is as good as none"
