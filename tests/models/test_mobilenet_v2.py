"""The inverted residual against plain layers, and where MobileNet v2 adds a block's input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from slimjax import create_model
from slimjax.models.mobilenet_v2 import STAGES, InvertedResidual
from slimjax.nn import SwitchableBatchNorm
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


@pytest.mark.parametrize(("strides", "expands", "adds"), [(1, True, True), (1, False, False), (2, True, False)])
def test_block_is_plain_layers(rng, strides, expands, adds):
    in_features, features = (4, 6), (4, 6) if adds else (3, 8)
    hidden = (10, 16) if expands else in_features
    block = InvertedResidual(
        in_features, hidden, features, SwitchableBatchNorm, strides, expands=expands, adds=adds, dtype=jnp.float32
    )
    variables = jax.jit(block.init, static_argnums=2)(jax.random.key(0), jnp.zeros((1, 5, 5, 6)), 1)
    # Scales that take many values beyond ReLU6's ends.
    variables = jax.tree.map_with_path(
        lambda path, leaf: leaf if path[-1].key == "kernel" else jnp.asarray(rng.uniform(1, 6, leaf.shape)), variables
    )
    assert ("expand" in variables["params"]) == expands

    def by_hand(variables, x, switch):
        def layer(name, x, channels, strides=1):
            kernel = variables["params"][name]["conv"]["kernel"][..., :channels]
            groups = channels if name == "depthwise" else 1
            y = lax.conv_general_dilated(
                x,
                kernel[:, :, : x.shape[-1] // groups],
                (strides,) * 2,
                ((kernel.shape[0] // 2,) * 2,) * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
            own = f"switch_{switch}"
            affine, running = variables["params"][name]["bn"][own], variables["batch_stats"][name]["bn"][own]
            return (y - running["mean"]) / jnp.sqrt(running["var"] + 1e-5) * affine["scale"] + affine["bias"]

        y = layer("expand", x, hidden[switch]).clip(0, 6) if expands else x
        y = layer("depthwise", y, hidden[switch], strides).clip(0, 6)
        y = layer("project", y, features[switch])
        return y + x if adds else y

    for switch in (0, 1):
        x = jnp.asarray(rng.normal(size=(2, 5, 5, in_features[switch])), jnp.float32)
        expected = jax.jit(by_hand, static_argnums=2)(variables, x, switch)
        assert (expected < 0).any(), "the projection is linear"
        actual = jax.jit(block.apply, static_argnums=2)(variables, x, switch)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
