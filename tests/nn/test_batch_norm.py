"""Switchable batch norm against Flax's own and against a moving average written here."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from slimjax.errors import UserError
from slimjax.nn import SwitchableBatchNorm

FEATURES = (2, 4, 4)


def activations(rng, channels, batch=8):
    return jnp.asarray(rng.normal(1.0, 2.0, size=(batch, 3, 3, channels)), jnp.float32)


def filled(layer, rng):
    """Variables of the layer with random values everywhere, positive variances among them."""
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 3, 3, FEATURES[0])), 0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32), variables)


def test_initialisation_makes_every_switch_whatever_switch_runs():
    variables = SwitchableBatchNorm(FEATURES).init(jax.random.key(0), jnp.zeros((1, 3, 3, 2)), 0)
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        f"switch_{index}": {"scale": (size,), "bias": (size,)} for index, size in enumerate(FEATURES)
    }
    for switch in variables["params"].values():
        assert (switch["scale"] == 1).all()
        assert (switch["bias"] == 0).all()
    for switch in variables["batch_stats"].values():
        assert (switch["mean"] == 0).all()
        assert (switch["var"] == 1).all()


@pytest.mark.parametrize("switch", [0, 1, 2])
@pytest.mark.parametrize("train", [False, True])
def test_a_switch_is_flax_batch_norm_with_its_variables(rng, switch, train):
    layer = SwitchableBatchNorm(FEATURES, momentum=0.8)
    variables = filled(layer, rng)
    x = activations(rng, FEATURES[switch])
    plain = nn.BatchNorm(use_running_average=not train, momentum=0.8, epsilon=1e-5)
    own = jax.tree.map(lambda tree: tree[f"switch_{switch}"], variables, is_leaf=lambda t: "switch_0" in t)

    def loss(x, params, layer_call):
        y, updated = layer_call(x, params)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size).reshape(y.shape))), (y, updated)

    def slim(x, params):
        return layer.apply({**variables, "params": params}, x, switch, train, mutable=["batch_stats"])

    def flax(x, params):
        return plain.apply({**own, "params": params}, x, mutable=["batch_stats"])

    gradients, (y, updated) = jax.grad(loss, (0, 1), has_aux=True)(x, variables["params"], slim)
    expected_gradients, (expected, expected_updated) = jax.grad(loss, (0, 1), has_aux=True)(x, own["params"], flax)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradients[0], expected_gradients[0], rtol=1e-3, atol=1e-4)
    for name in ("scale", "bias"):
        np.testing.assert_allclose(
            gradients[1][f"switch_{switch}"][name], expected_gradients[1][name], rtol=1e-4, atol=1e-4
        )
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            updated["batch_stats"][f"switch_{switch}"][name], expected_updated["batch_stats"][name], rtol=1e-5
        )


def test_running_statistics_are_the_moving_average_of_biased_moments(rng):
    layer = SwitchableBatchNorm((4,), momentum=0.7)
    variables = layer.init(jax.random.key(0), activations(rng, 4), 0)
    mean, variance = np.zeros(4), np.ones(4)
    for _ in range(3):
        x = activations(rng, 4)
        _, updated = layer.apply(variables, x, 0, True, mutable=["batch_stats"])
        variables = {**variables, **updated}
        pixels = np.asarray(x, np.float64).reshape(-1, 4)
        mean = 0.7 * mean + 0.3 * pixels.mean(0)
        variance = 0.7 * variance + 0.3 * ((pixels - pixels.mean(0)) ** 2).mean(0)
    np.testing.assert_allclose(variables["batch_stats"]["switch_0"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["switch_0"]["var"], variance, rtol=1e-5)


@pytest.mark.parametrize("sharing", ["switchable", "shared_affine"])
def test_one_switch_leaves_the_others_statistics_untouched(rng, sharing):
    layer = SwitchableBatchNorm(FEATURES, sharing=sharing)
    variables = filled(layer, rng)
    _, updated = layer.apply(variables, activations(rng, 4), 1, True, mutable=["batch_stats"])
    before, after = variables["batch_stats"], updated["batch_stats"]
    for switch in ("switch_0", "switch_2"):
        np.testing.assert_array_equal(before[switch]["mean"], after[switch]["mean"])
        np.testing.assert_array_equal(before[switch]["var"], after[switch]["var"])
    assert (before["switch_1"]["mean"] != after["switch_1"]["mean"]).all()


def test_shared_statistics_are_updated_in_their_leading_part(rng):
    layer = SwitchableBatchNorm(FEATURES, sharing="shared")
    variables = filled(layer, rng)
    assert set(variables["params"]) == {"shared"}
    x = activations(rng, 2)
    _, updated = layer.apply(variables, x, 0, True, mutable=["batch_stats"])
    before, after = variables["batch_stats"]["shared"]["mean"], updated["batch_stats"]["shared"]["mean"]
    np.testing.assert_allclose(after[:2], 0.9 * before[:2] + 0.1 * np.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(after[2:], before[2:])


def test_shared_affine_gives_every_switch_the_leading_scales(rng):
    layer = SwitchableBatchNorm(FEATURES, sharing="shared_affine")
    variables = filled(layer, rng)
    x = activations(rng, 2)
    y = layer.apply(variables, x, 0)
    statistics, affine = variables["batch_stats"]["switch_0"], variables["params"]["shared"]
    expected = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5) * affine["scale"][:2] + affine["bias"][:2]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sharing", ["shared_affine", "shared"])
@pytest.mark.parametrize("train", [False, True])
def test_what_is_shared_behind_groups_is_sliced_inside_each(rng, sharing, train):
    """Two groups of 4 channels; the narrow switch has the first 2 of each, which are channels 0, 1, 4 and 5."""
    layer, own = SwitchableBatchNorm((4, 8), sharing=sharing, groups=2), np.array([0, 1, 4, 5])
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 3, 3, 4)), 0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32), variables)
    x, affine = activations(rng, 4), variables["params"]["shared"]
    key, stored = ("shared", own) if sharing == "shared" else ("switch_0", np.arange(4))
    running = variables["batch_stats"][key]
    y, updated = layer.apply(variables, x, 0, train, mutable=["batch_stats"])
    mean, variance = running["mean"][stored], running["var"][stored]
    if train:
        mean, variance = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + 1e-5) * affine["scale"][own] + affine["bias"][own]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    after = np.array(running["mean"])
    if train:
        after[stored] = 0.9 * after[stored] + 0.1 * mean
    np.testing.assert_allclose(updated["batch_stats"][key]["mean"], after, rtol=1e-5)


@pytest.mark.parametrize("groups", [None, ((0, 1), (2, 3), (4, 5), (6, 7))])
def test_statistics_over_a_group_of_devices_are_those_of_its_images_together(rng, groups):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    layer = SwitchableBatchNorm((4,), axis_name="data", axis_index_groups=groups)
    local = SwitchableBatchNorm((4,))
    x = activations(rng, 4, batch=16)
    variables = local.init(jax.random.key(0), x, 0)

    def of_device(x):
        return layer.apply(variables, x, 0, True, mutable=["batch_stats"])[0]

    spec = PartitionSpec("data")
    y = jax.jit(jax.shard_map(of_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(x)
    size = 16 if groups is None else 4
    expected = [
        local.apply(variables, x[i : i + size], 0, True, mutable=["batch_stats"])[0] for i in range(0, 16, size)
    ]
    np.testing.assert_allclose(y, np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_mistakes_are_named(rng):
    layer = SwitchableBatchNorm(FEATURES)
    variables = filled(layer, rng)
    with pytest.raises(UserError, match="3 channels at switch 1"):
        layer.apply(variables, activations(rng, 3), 1)
    with pytest.raises(UserError, match="choose one of"):
        SwitchableBatchNorm(FEATURES, sharing="half").init(jax.random.key(0), activations(rng, 2), 0)
