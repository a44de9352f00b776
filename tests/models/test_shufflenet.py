"""The shuffle block against plain layers for each group, and the resolutions of the network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from slimjax import UserError, create_model
from slimjax.models.shufflenet import ShuffleBlock, shuffle
from slimjax.nn import SwitchableBatchNorm, WidthPlan
from slimjax.nn.tracing import trace_layers


def conv(x, kernel, strides=1):
    padding = ((kernel.shape[0] - 1) // 2,) * 2
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (strides,) * 2, (padding,) * 2, dimension_numbers=layout)


def test_shuffle_deals_the_groups_out_in_turn():
    # Two groups of three: a b c, d e f.
    np.testing.assert_array_equal(shuffle(jnp.arange(6), 2), [0, 3, 1, 4, 2, 5])
    # The leading channels of a shuffled array are the shuffled leading channels of each group.
    np.testing.assert_array_equal(shuffle(jnp.arange(12), 3)[:6], shuffle(jnp.array([0, 1, 4, 5, 8, 9]), 3))


def block_by_hand(variables, x, switch, sharing, strides, in_groups, hidden, features):
    """The block as three small networks for the three groups, side by side."""
    params, statistics = variables["params"], variables["batch_stats"]

    def norm(layer, y, channels):
        """Batch norm with the given ones of the channels that are stored."""
        affine, running = params[layer]["bn"], statistics[layer]["bn"]
        key, own = "shared" if sharing == "shared" else f"switch_{switch}", np.asarray(channels)
        scale, bias = affine[key]["scale"][own], affine[key]["bias"][own]
        return (y - running[key]["mean"][own]) / jnp.sqrt(running[key]["var"][own] + 1e-5) * scale + bias

    def by_group(layer, x, groups, outputs):
        """A 1x1 convolution and batch norm for each group, with the channels that are stored as that group's."""
        kernel = params[layer]["conv"]["kernel"]
        stored, active = kernel.shape[-1] // 3, outputs // 3
        parts = []
        for group in range(3):
            part = x if groups == 1 else jnp.split(x, 3, axis=-1)[group]
            own = kernel[:, :, : part.shape[-1], group * stored : group * stored + active]
            first = group * (stored if sharing == "shared" else active)
            parts.append(norm(layer, conv(part, own), range(first, first + active)))
        return parts

    parts = [jnp.maximum(part, 0) for part in by_group("reduce", x, in_groups, hidden)]
    y = jnp.stack([parts[channel % 3][..., channel // 3] for channel in range(hidden)], axis=-1)
    taps = params["depthwise"]["conv"]["kernel"]
    y = jnp.concatenate([conv(y[..., c : c + 1], taps[..., c : c + 1], strides) for c in range(hidden)], axis=-1)
    y = norm("depthwise", y, range(hidden))
    added = features - (x.shape[-1] if strides == 2 else 0)
    y = jnp.concatenate(by_group("expand", y, 3, added), axis=-1)
    if strides == 1:
        return jnp.maximum(x + y, 0)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = y.shape[1] * 2, y.shape[2] * 2
    pooled = sum(padded[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)) / 9
    return jnp.concatenate([jnp.maximum(y, 0), pooled], axis=-1)


@pytest.mark.parametrize("sharing", ["switchable", "shared"])
@pytest.mark.parametrize(("strides", "in_groups"), [(2, 1), (2, 3), (1, 3)])
def test_block_is_plain_layers_side_by_side(rng, sharing, strides, in_groups):
    in_features, hidden = (6, 12), (3, 9)
    features = (18, 27) if strides == 2 else in_features
    block = ShuffleBlock(
        in_features, hidden, features, partial(SwitchableBatchNorm, sharing=sharing), strides, in_groups, jnp.float32
    )
    variables = jax.jit(block.init, static_argnums=2)(jax.random.key(0), jnp.zeros((1, 7, 7, 12)), 1)
    variables = jax.tree.map_with_path(
        lambda path, leaf: leaf if path[-1].key == "kernel" else jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape)),
        variables,
    )
    for switch in (0, 1):
        # What comes in has passed a ReLU, as in the network.
        x = jnp.abs(jnp.asarray(rng.normal(size=(2, 7, 7, in_features[switch])), jnp.float32))
        expected = jax.jit(block_by_hand, static_argnums=range(2, 8))(
            variables, x, switch, sharing, strides, in_groups, hidden[switch], features[switch]
        )
        actual = jax.jit(block.apply, static_argnums=2)(variables, x, switch)
        assert actual.shape[-1] == features[switch]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_resolutions_and_groups_are_those_of_the_published_network():
    layers = {layer.path: layer for layer in trace_layers(create_model("shufflenet", (0.5, 1.0, 2.0), 1000), 1.0, 224)}
    sides = [layers["stem", "conv"].output_shape[1], layers["block_1", "reduce", "conv"].input_shape[1]]
    sides += [layers[f"block_{number}", "expand", "conv"].output_shape[1] for number in (1, 5, 13)]
    assert sides == [112, 55, 28, 14, 7], "the max-pool has no padding"
    assert layers["block_1", "reduce", "conv"].macs == 55 * 55 * 24 * 60, "the first 1x1 sees its whole input"
    assert layers["block_2", "reduce", "conv"].macs == 28 * 28 * 240 * 60 // 3


def test_plans_that_do_not_fit_the_groups_or_the_residual_are_refused():
    base = create_model("shufflenet_tiny", (1.0,), 5).resolved_plans()[0]
    for layer, count, message in [
        ("block_1_hidden", 25, "block_1_hidden=25 has to be a multiple of 3"),
        ("block_2", 99, "block_2=99 has to be 96, as the block before"),
        ("block_3", 96, "block_3=96 has to be above 96"),
    ]:
        plan = WidthPlan(1.0, tuple((key, count if key == layer else value) for key, value in base.features))
        with pytest.raises(UserError, match=message):
            create_model("shufflenet_tiny", (1.0,), 5, plans=(plan,))
