"""The bottleneck block against plain layers, and the feature maps of the stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from slimjax import create_model
from slimjax.models.network import Stage
from slimjax.models.resnet import Bottleneck
from slimjax.nn import SwitchableBatchNorm


@pytest.mark.parametrize(
    ("strides", "features", "projects"), [(1, (4, 8), False), (1, (4, 8), True), (1, (8, 12), True), (2, (4, 8), True)]
)
def test_block_is_plain_layers(rng, strides, features, projects):
    in_features, hidden = (4, 8), (2, 5)
    block = Bottleneck(in_features, hidden, features, SwitchableBatchNorm, strides, projects, jnp.float32)
    variables = jax.jit(block.init, static_argnums=2)(jax.random.key(0), jnp.zeros((1, 5, 5, 8)), 1)
    variables = jax.tree.map_with_path(
        lambda path, leaf: leaf if path[-1].key == "kernel" else jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape)),
        variables,
    )
    assert ("shortcut" in variables["params"]) == projects

    def by_hand(variables, x, switch):
        def layer(name, x, out, strides=1):
            kernel = variables["params"][name]["conv"]["kernel"][:, :, : x.shape[-1], :out]
            padding = ((kernel.shape[0] - 1) // 2,) * 2
            y = lax.conv_general_dilated(
                x, kernel, (strides,) * 2, (padding,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            own = f"switch_{switch}"
            affine, running = variables["params"][name]["bn"][own], variables["batch_stats"][name]["bn"][own]
            return (y - running["mean"]) / jnp.sqrt(running["var"] + 1e-5) * affine["scale"] + affine["bias"]

        y = jnp.maximum(layer("reduce", x, hidden[switch]), 0)
        y = jnp.maximum(layer("spatial", y, hidden[switch], strides), 0)
        y = layer("expand", y, features[switch])
        return jnp.maximum(y + (layer("shortcut", x, features[switch], strides) if projects else x), 0)

    for switch in (0, 1):
        x = jnp.asarray(rng.normal(size=(2, 5, 5, in_features[switch])), jnp.float32)
        actual = jax.jit(block.apply, static_argnums=2)(variables, x, switch)
        expected = jax.jit(by_hand, static_argnums=2)(variables, x, switch)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_stage_features_are_the_outputs_of_the_stages_last_blocks():
    model = create_model("resnet_tiny", (0.5, 1.0), 5, stages=(Stage(64, 2, 1), Stage(128, 3, 2), Stage(256, 2, 2)))
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    @jax.jit
    def both(variables):
        features = model.apply(variables, images, width=0.5, method="stage_features")
        logits, captured = model.apply(
            variables, images, width=0.5, capture_intermediates=lambda module, _: isinstance(module, Bottleneck)
        )
        return features, logits, captured["intermediates"]

    features, logits, captured = both(variables)
    assert [f.shape for f in features] == [(2, 16, 16, 32), (2, 8, 8, 64), (2, 4, 4, 128)]
    outputs = [captured[f"block_{number}"]["__call__"][0] for number in range(1, 8)]
    for feature, last in zip(features, (2, 5, 7), strict=True):
        np.testing.assert_array_equal(feature, outputs[last - 1])
        assert (feature != outputs[last - 2]).any(), "the block before has the same shape and other values"
    classifier = variables["params"]["classifier"]
    expected = features[-1].mean((1, 2)) @ classifier["kernel"][:128] + classifier["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_stage_features_of_resnet50_have_the_strides_of_detection():
    model = create_model("resnet50", (0.25, 1.0), 1000)
    images = jax.ShapeDtypeStruct((1, 64, 100, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    features = jax.eval_shape(lambda v, x: model.apply(v, x, width=0.25, method="stage_features"), variables, images)
    assert [f.shape for f in features] == [(1, 16, 25, 64), (1, 8, 13, 128), (1, 4, 7, 256), (1, 2, 4, 512)]
