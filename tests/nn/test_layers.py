"""Every layer against the plain Flax layer on a kernel that is sliced here by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.errors import UserError
from slimjax.nn import SlimmableConv, SlimmableDense, SlimmableDepthwiseConv, SwitchableBatchNorm
from slimjax.nn.blocks import BatchNormFactory, ConvNorm


def images(rng, channels, size=7):
    return jnp.asarray(rng.normal(size=(2, size, size, channels)), jnp.float32)


def plain_conv(kernel, x, strides=1, groups=1, bias=None):
    padding = (kernel.shape[0] - 1) // 2
    layer = nn.Conv(
        kernel.shape[-1],
        kernel.shape[:2],
        strides=strides,
        padding=[(padding, padding)] * 2,
        feature_group_count=groups,
        use_bias=bias is not None,
    )
    params = {"kernel": kernel} | ({"bias": bias} if bias is not None else {})
    return layer.apply({"params": params}, x)


def value_and_gradients(function, params, x):
    """Output, and the gradients of a scalar that weighs every output differently."""

    def scalar(params, x):
        y = function(params, x)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

    (_, y), gradients = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)(params, x)
    return y, *gradients


def assert_close(actual, expected):
    # Sums of up to a few hundred float32 products in another order.
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("in_features", "features"), [(6, 8), (2, 3), (6, 1)])
def test_conv_is_the_conv_of_its_leading_slice(rng, kernel_size, strides, in_features, features):
    layer = SlimmableConv(6, 8, kernel_size=kernel_size, strides=strides, use_bias=True)
    params = layer.init(jax.random.key(0), images(rng, 6))["params"]
    params = {"kernel": params["kernel"], "bias": jnp.arange(8.0)}
    x = images(rng, in_features)
    y, dparams, dx = value_and_gradients(lambda p, x: layer.apply({"params": p}, x, features), params, x)
    kernel, bias = params["kernel"][:, :, :in_features, :features], params["bias"][:features]
    expected, (dkernel, dbias), expected_dx = value_and_gradients(
        lambda p, x: plain_conv(p[0], x, strides, bias=p[1]), (kernel, bias), x
    )
    assert_close(y, expected)
    assert_close(dx, expected_dx)
    assert_close(dparams["kernel"][:, :, :in_features, :features], dkernel)
    assert_close(dparams["bias"][:features], dbias)
    inactive = np.array(dparams["kernel"])
    inactive[:, :, :in_features, :features] = 0
    assert not inactive.any(), "channels that are not active have a gradient of exactly zero"
    assert not dparams["bias"][features:].any()


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("in_features", "features"), [(12, 9), (6, 3), (3, 6)])
def test_grouped_conv_slices_inside_each_group(rng, kernel_size, in_features, features):
    groups = 3
    layer = SlimmableConv(12, 9, kernel_size=kernel_size, groups=groups)
    params = layer.init(jax.random.key(0), images(rng, 12))["params"]
    x = images(rng, in_features)
    y, dparams, dx = value_and_gradients(lambda p, x: layer.apply({"params": p}, x, features), params, x)
    # One plain convolution for each group, on that group's leading channels.
    kernels = [
        params["kernel"][:, :, : in_features // groups, group * 3 : group * 3 + features // groups]
        for group in range(groups)
    ]

    def by_group(kernels, x):
        parts = [plain_conv(k, part) for k, part in zip(kernels, jnp.split(x, groups, axis=-1), strict=True)]
        return jnp.concatenate(parts, axis=-1)

    expected, dkernels, expected_dx = value_and_gradients(by_group, kernels, x)
    assert_close(y, expected)
    assert_close(dx, expected_dx)
    active = np.zeros(params["kernel"].shape)
    for group, dkernel in enumerate(dkernels):
        active[:, :, : in_features // groups, group * 3 : group * 3 + features // groups] = dkernel
    assert_close(dparams["kernel"], active)


@pytest.mark.parametrize("features", [9, 3])
def test_outputs_in_groups_see_the_whole_input(rng, features):
    layer = SlimmableConv(4, 9, kernel_size=3, output_groups=3, use_bias=True)
    params = {"kernel": layer.init(jax.random.key(0), images(rng, 4))["params"]["kernel"], "bias": jnp.arange(9.0)}
    x = images(rng, 2)
    y, dparams, dx = value_and_gradients(lambda p, x: layer.apply({"params": p}, x, features), params, x)
    columns = [group * 3 + channel for group in range(3) for channel in range(features // 3)]
    expected, (dkernel, dbias), expected_dx = value_and_gradients(
        lambda p, x: plain_conv(p[0], x, bias=p[1]),
        (params["kernel"][:, :, :2, np.array(columns)], params["bias"][np.array(columns)]),
        x,
    )
    assert_close(y, expected)
    assert_close(dx, expected_dx)
    active = np.zeros(params["kernel"].shape)
    active[:, :, :2, columns] = dkernel
    assert_close(dparams["kernel"], active)
    assert_close(dparams["bias"][np.array(columns)], dbias)
    with pytest.raises(UserError, match="a multiple of groups=3"):
        layer.init(jax.random.key(0), images(rng, 4), 4)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("features", [8, 3])
@pytest.mark.parametrize("size", [6, 7])
def test_depthwise_conv_is_the_grouped_conv_of_its_leading_slice(rng, strides, features, size):
    layer = SlimmableDepthwiseConv(8, strides=strides)
    params = layer.init(jax.random.key(0), images(rng, 8))["params"]
    x = images(rng, features, size)
    y, dparams, dx = value_and_gradients(lambda p, x: layer.apply({"params": p}, x), params, x)
    expected, dkernel, expected_dx = value_and_gradients(
        lambda k, x: plain_conv(k, x, strides, groups=features), params["kernel"][..., :features], x
    )
    assert_close(y, expected)
    assert_close(dx, expected_dx)
    assert_close(dparams["kernel"][..., :features], dkernel)
    assert not dparams["kernel"][..., features:].any()


@pytest.mark.parametrize(("in_features", "features"), [(6, 5), (2, 5), (4, 3)])
def test_dense_is_the_dense_of_its_leading_slice(rng, in_features, features):
    layer = SlimmableDense(6, 5)
    params = {"kernel": jnp.asarray(rng.normal(size=(6, 5)), jnp.float32), "bias": jnp.arange(5.0)}
    x = jnp.asarray(rng.normal(size=(4, in_features)), jnp.float32)
    y, dparams, dx = value_and_gradients(lambda p, x: layer.apply({"params": p}, x, features), params, x)
    plain = {"kernel": params["kernel"][:in_features, :features], "bias": params["bias"][:features]}
    expected, dplain, expected_dx = value_and_gradients(
        lambda p, x: nn.Dense(features).apply({"params": p}, x), plain, x
    )
    assert_close(y, expected)
    assert_close(dx, expected_dx)
    assert_close(dparams["kernel"][:in_features, :features], dplain["kernel"])
    assert_close(dparams["bias"][:features], dplain["bias"])
    assert not dparams["kernel"][in_features:].any()
    assert not dparams["kernel"][:, features:].any()


def test_initialisation_is_that_of_the_facts():
    kernel = SlimmableConv(64, 128).init(jax.random.key(0), jnp.zeros((1, 3, 3, 64)))["params"]["kernel"]
    np.testing.assert_allclose(np.std(kernel), (2 / (9 * 128)) ** 0.5, rtol=0.02)
    # A depthwise kernel counts every output, a grouped one too: no share of its groups.
    depthwise = SlimmableDepthwiseConv(512).init(jax.random.key(1), jnp.zeros((1, 3, 3, 512)))["params"]["kernel"]
    np.testing.assert_allclose(np.std(depthwise), (2 / (9 * 512)) ** 0.5, rtol=0.05)
    grouped = SlimmableConv(96, 192, 1, groups=3).init(jax.random.key(2), jnp.zeros((1, 3, 3, 96)))["params"]["kernel"]
    np.testing.assert_allclose(np.std(grouped), (2 / 192) ** 0.5, rtol=0.05)
    dense = SlimmableDense(300, 200).init(jax.random.key(0), jnp.zeros((1, 300)))["params"]
    np.testing.assert_allclose(np.std(dense["kernel"]), 0.01, rtol=0.02)
    assert not dense["bias"].any()


@pytest.mark.parametrize(
    ("layer", "channels", "features", "message"),
    [
        (SlimmableConv(4, 4), 5, 4, "SlimmableConv: in_features=5 has to be between 1 and 4"),
        (SlimmableConv(4, 4), 4, 5, "SlimmableConv: features=5 has to be between 1 and 4"),
        (SlimmableConv(4, 4), 4, 0, "SlimmableConv: features=0 has to be between 1 and 4"),
        (SlimmableConv(4, 4, groups=2), 4, 3, "a multiple of groups=2"),
        (SlimmableDense(4, 4), 5, 4, "SlimmableDense: in_features=5"),
        (SlimmableDense(4, 4), 4, 0, "SlimmableDense: features=0 has to be between 1 and 4"),
    ],
)
def test_channels_beyond_the_allocated_are_refused(layer, channels, features, message):
    with pytest.raises(UserError, match=message):
        layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, channels)), features)


class Network(nn.Module):
    """A layer inside a block."""

    batch_norm: BatchNormFactory

    @nn.compact
    def __call__(self, x):
        return ConvNorm((4,), (4,), self.batch_norm, name="block_1")(x, 0)


@pytest.mark.parametrize(
    ("channels", "batch_norm", "message"),
    [
        (9, SwitchableBatchNorm, "^block_1/conv: in_features=9 has to be"),
        (4, lambda features, **options: SwitchableBatchNorm((3,), **options), "^block_1/bn: 4 channels at switch 0"),
    ],
)
def test_messages_say_where_in_the_network_a_layer_is(channels, batch_norm, message):
    with pytest.raises(UserError, match=message):
        Network(batch_norm).init(jax.random.key(0), jnp.zeros((1, 4, 4, channels)))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(rng):
    layer = SlimmableConv(4, 4, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), images(rng, 4))
    assert variables["params"]["kernel"].dtype == jnp.float32
    x = images(rng, 4)
    y = layer.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    expected = plain_conv(variables["params"]["kernel"], x)
    # bfloat16 keeps 8 bits: products of rounded factors are within 1 %.
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.03, atol=0.03)
