"""Where MobileNet v2 adds a block's input."""

import jax
import jax.numpy as jnp
import pytest

from slimjax import create_model
from slimjax.models.mobilenet_v2 import STAGES, InvertedResidual
from slimjax.nn.tracing import abstract_variables


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_inputs_are_added_inside_a_stage_only(width):
    """Stem and blocks give 1 by themselves, so a block's output counts what has been added up in its stage."""
    model = create_model("mobilenet_v2", (0.25, 1.0), 5)
    plan = model.resolved_plans()[0]
    assert plan["stem"] == plan["block_1"], "at .25 the shapes of the first block agree, but it begins a stage"

    # Batch norms of kernels that are 0 give their bias.
    variables = jax.tree.map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key in ("bias", "var"))), abstract_variables(model)
    )
    apply = jax.jit(
        lambda v: model.apply(
            v,
            jnp.ones((1, 32, 32, 3)),
            width=width,
            capture_intermediates=lambda module, _: isinstance(module, InvertedResidual),
        )
    )
    outputs = apply(variables)[1]["intermediates"]
    expected = [index + 1 for stage in STAGES for index in range(stage.repeats)]
    for number, added in enumerate(expected, start=1):
        (output,) = outputs[f"block_{number}"]["__call__"]
        assert (output == added).all(), f"block_{number} at {width}"
