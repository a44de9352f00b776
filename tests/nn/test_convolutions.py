"""`convolve` against `jax.lax.conv_general_dilated` and its gradients, on every kind of convolution in the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import Mesh, PartitionSpec

from slimjax.nn.convolutions import convolve

# name: (x shape, kernel shape, strides, padding, groups)
CASES = {
    "depthwise": ((2, 8, 8, 5), (3, 3, 1, 5), 1, 1, 5),
    "depthwise_one_image_one_pixel": ((1, 1, 1, 3), (3, 3, 1, 3), 1, 1, 3),
    "depthwise_odd": ((3, 7, 9, 4), (3, 3, 1, 4), 1, 1, 4),
    "depthwise_stride_2_even": ((2, 8, 6, 5), (3, 3, 1, 5), 2, 1, 5),
    "depthwise_stride_2_odd": ((2, 17, 15, 4), (3, 3, 1, 4), 2, 1, 4),
    "depthwise_many_rows": ((1, 30, 4, 3), (3, 3, 1, 3), 1, 1, 3),
    "depthwise_5x5": ((2, 9, 8, 4), (5, 5, 1, 4), 2, 2, 4),
    "depthwise_unpadded": ((2, 9, 8, 4), (3, 3, 1, 4), 1, 0, 4),
    "depthwise_unpadded_stride_2": ((2, 10, 8, 4), (3, 3, 1, 4), 2, 0, 4),
    "pointwise": ((2, 5, 7, 6), (1, 1, 6, 4), 1, 0, 1),
    "pointwise_stride_2_even": ((2, 6, 8, 6), (1, 1, 6, 4), 2, 0, 1),
    "pointwise_stride_2_odd": ((2, 7, 5, 6), (1, 1, 6, 4), 2, 0, 1),
    "stem": ((2, 16, 16, 3), (3, 3, 3, 8), 2, 1, 1),
    "dense_7x7": ((1, 17, 17, 3), (7, 7, 3, 8), 2, 3, 1),
    "dense_3x3": ((2, 7, 7, 6), (3, 3, 6, 4), 1, 1, 1),
    "dense_large_image": ((1, 17, 15, 5), (3, 3, 5, 4), 1, 1, 1),
    "dense_many_features": ((1, 15, 17, 32), (3, 3, 32, 4), 1, 1, 1),
    "dense_many_features_small_image": ((2, 5, 7, 33), (3, 3, 33, 4), 1, 1, 1),
    "dense_stride_2_odd": ((2, 7, 5, 33), (3, 3, 33, 4), 2, 1, 1),
    "dense_stride_2_even": ((1, 32, 30, 6), (3, 3, 6, 4), 2, 1, 1),
    "dense_unpadded": ((1, 8, 7, 6), (3, 2, 6, 4), 1, 0, 1),
    "grouped_pointwise": ((2, 6, 5, 9), (1, 1, 3, 12), 1, 0, 3),
    "grouped_pointwise_stride_2": ((2, 6, 5, 9), (1, 1, 3, 12), 2, 0, 3),
    "grouped_3x3": ((2, 7, 6, 6), (3, 3, 2, 9), 2, 1, 3),
    "channel_multiplier_2": ((2, 7, 6, 3), (3, 3, 1, 6), 1, 1, 3),
    "per_channel_scale": ((2, 5, 5, 4), (1, 1, 1, 4), 1, 0, 4),
}


def native(x, kernel, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        ((padding, padding), (padding, padding)),
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def operands(case, dtype=np.float32):
    x_shape, kernel_shape, *_ = CASES[case]
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in (x_shape, kernel_shape)]


def value_and_gradients(function, x, kernel):
    """The output, and the gradients for a cotangent that differs from place to place."""
    y, pullback = jax.vjp(function, x, kernel)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    return y, *pullback(jnp.asarray(dy, y.dtype))


def assert_close(actual, expected, terms, dtype=np.float32):
    """Sums of `terms` products of standard normals, added in any order.

    Each of the additions rounds by at most eps / 2 of a partial sum, whose size is about sqrt(terms): the error is
    below eps * terms. Allow eps * (4 + terms).
    """
    tolerance = float(jnp.finfo(dtype).eps) * (4 + terms)
    np.testing.assert_allclose(np.float64(actual), np.float64(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_match_lax(case):
    strides, padding, groups = CASES[case][2:]
    x, kernel = operands(case)

    def fast(x, kernel):
        return convolve(x, kernel, strides=strides, padding=padding, groups=groups)

    expected = value_and_gradients(lambda x, kernel: native(x, kernel, strides, padding, groups), x, kernel)
    actual = jax.jit(lambda x, kernel: value_and_gradients(fast, x, kernel))(x, kernel)
    places = expected[0].size // expected[0].shape[-1]
    terms = [int(np.prod(kernel.shape[:3])), int(np.prod(kernel.shape[:2])) * kernel.shape[3] // groups, places]
    for name, a, e, count in zip(("y", "dx", "dkernel"), actual, expected, terms, strict=False):
        assert (a.shape, a.dtype) == (e.shape, e.dtype), name
        assert_close(a, e, count)


@pytest.mark.parametrize("case", ["depthwise_stride_2_odd", "pointwise", "grouped_pointwise", "dense_3x3"])
def test_bfloat16_rounds_once(case):
    """Products and sums are float32 inside, so that only the result is rounded: within one bfloat16 eps of float64."""
    strides, padding, groups = CASES[case][2:]
    x16, kernel16 = operands(case, jnp.bfloat16)

    def fast(x, k):
        return convolve(x, k, strides=strides, padding=padding, groups=groups)

    y, pullback = jax.vjp(fast, x16, kernel16)
    dy16 = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), jnp.bfloat16)
    x, kernel, dy = (a.astype(jnp.float32) for a in (x16, kernel16, dy16))
    exact, exact_pullback = jax.vjp(lambda x, k: native(x, k, strides, padding, groups), x, kernel)
    for actual, expected in zip((y, *pullback(dy16)), (exact, *exact_pullback(dy)), strict=False):
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(actual), expected, rtol=2**-8, atol=2**-8)


def test_shard_map_sums_the_kernels_gradient_over_devices():
    """A replicated kernel and a sharded batch: the gradient is that of the whole batch."""
    x, kernel = operands("depthwise")
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    def loss(x, kernel):
        return (convolve(x, kernel, padding=1, groups=5) ** 2).sum()

    sharded = jax.shard_map(
        lambda x, kernel: lax.psum(loss(x, kernel), "data"),
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    actual = jax.jit(jax.grad(sharded, (0, 1)))(x, kernel)
    for a, e in zip(actual, jax.grad(loss, (0, 1))(x, kernel), strict=False):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["depthwise", "pointwise_stride_2_odd", "grouped_pointwise", "stem"])
def test_exports_for_all_platforms_at_once(case):
    """CPU gets the rewritten form, the other platforms XLA's convolution, in one module, with a symbolic batch."""
    strides, padding, groups = CASES[case][2:]
    x, kernel = operands(case)
    (batch,) = export.symbolic_shape("b")
    function = jax.jit(lambda x, k: convolve(x, k, strides=strides, padding=padding, groups=groups))
    exported = export.export(function, platforms=("cpu", "cuda", "tpu"))(
        jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), kernel
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(
        exported.call(x, kernel), native(x, kernel, strides, padding, groups), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "case", ["depthwise", "pointwise", "pointwise_stride_2_odd", "grouped_pointwise", "stem", "dense_3x3"]
)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_native_convolution(platform, case):
    """Exactly forward, input gradient and kernel gradient, one convolution each, and nothing of the CPU form."""
    strides, padding, groups = CASES[case][2:]
    x, kernel = operands(case)

    def fast(x, k):
        return convolve(x, k, strides=strides, padding=padding, groups=groups)

    function = jax.jit(lambda x, k: value_and_gradients(fast, x, k))
    module = export.export(function, platforms=(platform,))(x, kernel).mlir_module()
    assert module.count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in module
    assert "stablehlo.reduce(" not in module


def test_eval_shape():
    x, kernel = operands("depthwise_stride_2_odd")
    shape = jax.eval_shape(lambda x, k: convolve(x, k, strides=2, padding=1, groups=4), x, kernel)
    assert shape.shape == (2, 9, 8, 4)


def test_groups_that_do_not_fit_are_refused():
    x, kernel = operands("pointwise")
    with pytest.raises(ValueError, match="groups=4 does not fit"):
        convolve(x, kernel, groups=4)
