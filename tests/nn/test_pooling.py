"""Pooling on CPU against loops over windows, and what other platforms get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from slimjax.nn.pooling import average_pool, max_pool

# name: (x shape, window, strides, padding)
CASES = {
    "resnet": ((2, 8, 6, 3), 3, 2, 1),
    "shufflenet_unpadded": ((2, 8, 9, 3), 3, 2, 0),
    "odd": ((1, 7, 9, 2), 3, 2, 1),
    "pixels_that_no_window_sees": ((1, 8, 8, 2), 2, 3, 0),
    "overlapping_everywhere": ((1, 5, 6, 2), 3, 1, 1),
    "window_of_5": ((1, 9, 8, 2), 5, 2, 2),
}


def pooled_by_loops(x, dy, window, strides, padding, kind):
    """The output and, once there is a gradient of it, the input's, a window at a time in float64."""
    outside = -np.inf if kind is max_pool else 0.0
    padded = np.pad(np.float64(x), ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=outside)
    rows, columns = ((size + 2 * padding - window) // strides + 1 for size in x.shape[1:3])
    y, dx = np.empty((x.shape[0], rows, columns, x.shape[3])), np.zeros_like(padded)
    for image, row, column, feature in np.ndindex(y.shape):
        top, left = row * strides, column * strides
        seen = padded[image, top : top + window, left : left + window, feature]
        share = dx[image, top : top + window, left : left + window, feature]
        gradient = 0.0 if dy is None else float(dy[image, row, column, feature])
        if kind is max_pool:
            y[image, row, column, feature] = seen.max()
            share[np.unravel_index(seen.argmax(), seen.shape)] += gradient
        else:
            y[image, row, column, feature] = seen.mean()
            share += gradient / window**2
    inside = slice(padding, padding + x.shape[1]), slice(padding, padding + x.shape[2])
    return y, dx[:, *inside]


@pytest.mark.parametrize("kind", [max_pool, average_pool])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_match_loops(case, kind):
    shape, window, strides, padding = CASES[case]
    rng = np.random.default_rng(0)
    # Small integers, so that many values are equal and some windows are all negative.
    x = rng.integers(-3, 3, shape).astype(np.float32)

    @jax.jit
    def value_and_gradient(x, dy):
        y, pullback = jax.vjp(lambda x: kind(x, window, strides, padding), x)
        return y, pullback(dy)[0]

    places, _ = pooled_by_loops(x, None, window, strides, padding, kind)
    dy = rng.standard_normal(places.shape).astype(np.float32)
    expected = pooled_by_loops(x, dy, window, strides, padding, kind)
    for actual, wanted in zip(value_and_gradient(x, dy), expected, strict=True):
        assert actual.shape == wanted.shape
        # At most 25 terms of a few units each.
        np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-5)


def test_a_value_that_is_nan_leaves_the_gradients_of_other_windows_alone():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(jnp.nan)
    y, pullback = jax.vjp(lambda x: max_pool(x, 2, 2), x)
    assert jnp.isnan(y[0, 0, 0, 0])
    # The other three windows, all zeros, hand theirs to their first pixel; nothing equals the NaN of this one.
    (gradient,) = pullback(jnp.ones_like(y))
    assert np.argwhere(gradient[0, :, :, 0] == 1).tolist() == [[0, 2], [2, 0], [2, 2]]
    assert gradient.sum() == 3


@pytest.mark.parametrize("kind", [max_pool, average_pool])
def test_bfloat16_stays_bfloat16(kind):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6, 6, 2)), jnp.bfloat16)
    y, pullback = jax.vjp(lambda x: kind(x, 3, 2, 1), x)
    wanted, _ = pooled_by_loops(np.float32(x), None, 3, 2, 1, kind)
    np.testing.assert_allclose(np.float32(y), wanted, rtol=2**-8, atol=2**-8)
    assert y.dtype == pullback(y)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", [max_pool, average_pool])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_window_reduction(platform, kind):
    function = jax.jit(lambda x: kind(x, 3, 2, 1))
    shape = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    module = export.export(function, platforms=(platform,))(shape).mlir_module()
    assert module.count("stablehlo.reduce_window") == 1
    assert "stablehlo.slice" not in module
    assert "stablehlo.convolution" not in module
