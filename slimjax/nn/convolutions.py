"""Convolutions that are fast on every backend: XLA's own on TPU and GPU, rewritten ones on CPU.

XLA:CPU computes a grouped convolution as if it were dense and leaves most of a 1x1 convolution's backward to slow
paths. `convolve` therefore chooses at lowering time, with `jax.lax.platform_dependent`: on CPU a depthwise convolution
is one shifted multiply-add for each tap, a 1x1 convolution a matrix product, a grouped convolution a convolution for
each group, and the first convolution of a network a product of patches; elsewhere all are
`jax.lax.conv_general_dilated`. Depthwise and 1x1 carry their own gradients (`jax.custom_vjp`), so reverse mode works
and forward mode (`jax.jvp`) does not.

Images are NHWC, kernels HWIO, padding is symmetric.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

# Rows that one step of the depthwise weight gradient adds up. Image sizes are multiples of 7 more often than of 8.
ROWS_PER_GROUP = 7

# Images (3 features) are unfolded into patches on CPU; with more features the patches would take too much memory.
MAX_PATCH_FEATURES = 4


def convolve(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
    """Convolution of images with symmetric zero padding.

    Args:
      x: images [batch, height, width, in_features], float32 or bfloat16.
      kernel: [kernel_height, kernel_width, in_features / groups, features], of x's dtype.
      strides: step of the window, the same in both directions.
      padding: zeros added at each of the four sides.
      groups: outputs [g * features / groups, (g + 1) * features / groups) see only the g-th share of the inputs.

    Returns:
      [batch, (height + 2 * padding - kernel_height) // strides + 1, likewise, features], of x's dtype.

    Raises:
      ValueError: if the features are not divisible by `groups`, or the kernel's inputs are not in_features / groups.
    """
    in_features, features = x.shape[-1], kernel.shape[-1]
    if in_features % groups or features % groups or kernel.shape[2] * groups != in_features:
        raise ValueError(
            f"groups={groups} does not fit x {x.shape} and kernel {kernel.shape}: groups must divide in_features and "
            "features, and the kernel's third dimension must be in_features / groups"
        )
    is_pointwise = kernel.shape[:2] == (1, 1) and padding == 0
    if in_features == groups == features and not is_pointwise:
        return _depthwise(x, kernel, strides, padding)
    if groups > 1:
        return _grouped(x, kernel, strides, padding, groups)
    if is_pointwise:
        return _pointwise(x, kernel) if strides == 1 else _strided_pointwise(x, kernel, strides)
    if in_features <= MAX_PATCH_FEATURES:
        return _by_patches(x, kernel, strides, padding)
    return _native(x, kernel, strides, padding)


def _native(x: jax.Array, kernel: jax.Array, strides: int, padding: int, groups: int = 1) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _pad(x: jax.Array, rows: tuple[int, int], columns: tuple[int, int], dilation: int = 1) -> jax.Array:
    """Zeros (before, after) rows and columns, and `dilation - 1` between neighbours; negative numbers crop."""
    between = dilation - 1
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, between), (*columns, between), (0, 0, 0)))


def _taps(padded: jax.Array, kernel: jax.Array, strides: int, rows: int, columns: int) -> Iterator[jax.Array]:
    """What each element of the kernel, row by row, sees of the padded images: [batch, rows, columns, features]."""
    batch, _, _, features = padded.shape
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            stop = (batch, i + (rows - 1) * strides + 1, j + (columns - 1) * strides + 1, features)
            yield lax.slice(padded, (0, i, j, 0), stop, (1, strides, strides, 1))


def _padded_taps(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> Iterator[jax.Array]:
    rows, columns = ((x.shape[axis] + 2 * padding - kernel.shape[axis - 1]) // strides + 1 for axis in (1, 2))
    return _taps(_pad(x, (padding, padding), (padding, padding)), kernel, strides, rows, columns)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted_sum(x, kernel, strides, padding),
        default=lambda x, kernel: _native(x, kernel, strides, padding, groups=x.shape[-1]),
    )


def _depthwise_forward(
    x: jax.Array, kernel: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _depthwise(x, kernel, strides, padding), (x, kernel)


def _depthwise_backward(
    strides: int, padding: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def native(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda x, kernel: _native(x, kernel, strides, padding, x.shape[-1]), x, kernel)[1](dy)

    def shifted(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        dx = _depthwise_input_gradient(x.shape, kernel, dy, strides, padding)
        return dx, _depthwise_kernel_gradient(x, kernel, dy, strides, padding)

    return lax.platform_dependent(*residuals, dy, cpu=shifted, default=native)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _shifted_sum(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """Depthwise convolution as one shifted multiply-add for each tap, which XLA fuses into one loop over x."""
    taps = _padded_taps(x, kernel, strides, padding)
    weights = kernel.reshape(-1, x.shape[-1]).astype(jnp.float32)
    total = sum(tap.astype(jnp.float32) * weights[index] for index, tap in enumerate(taps))
    return jnp.asarray(total, x.dtype)


def _depthwise_input_gradient(
    shape: tuple[int, ...], kernel: jax.Array, dy: jax.Array, strides: int, padding: int
) -> jax.Array:
    """The transposed convolution: dy spread out by the stride, shifted and added with the kernel turned round."""
    rows, columns = (
        (kernel.shape[axis - 1] - 1 - padding, shape[axis] + padding - 1 - (dy.shape[axis] - 1) * strides)
        for axis in (1, 2)
    )
    return _shifted_sum(_pad(dy, rows, columns, dilation=strides), kernel[::-1, ::-1], 1, 0)


def _depthwise_kernel_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: int, padding: int) -> jax.Array:
    """For each tap, the sum over images, rows and columns of the shifted x times dy.

    All taps are operands of ONE variadic reduction over small groups of rows: it reads x and dy once, where a reduction
    for each tap reads them nine times, and its inner loop runs over contiguous columns and features, so that it
    vectorises. Rows are padded with zeros to whole groups. What remains, [groups, columns, features] for each tap, is
    small and summed by an ordinary reduction.
    """
    batch, rows, columns, features = dy.shape
    groups = -(-rows // ROWS_PER_GROUP)
    whole = groups * ROWS_PER_GROUP
    height, width = ((out - 1) * strides + k for out, k in zip((whole, columns), kernel.shape[:2], strict=True))
    dy = _pad(dy, (0, whole - rows), (0, 0)).reshape(batch * groups, ROWS_PER_GROUP, columns, features)
    dy = dy.astype(jnp.float32)
    x = _pad(x, (padding, height - padding - x.shape[1]), (padding, width - padding - x.shape[2]))
    taps = _taps(x, kernel, strides, whole, columns)
    products = [tap.reshape(dy.shape).astype(jnp.float32) * dy for tap in taps]
    zeros = [jnp.zeros((), jnp.float32)] * len(products)
    of_groups = lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (1,))
    return jnp.stack([part.sum((0, 1)) for part in of_groups]).reshape(kernel.shape).astype(kernel.dtype)


@jax.custom_vjp
def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (_as_matrix(x) @ kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[3])

    return lax.platform_dependent(x, kernel, cpu=product, default=lambda x, kernel: _native(x, kernel, 1, 0))


def _pointwise_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _pointwise(x, kernel), (x, kernel)


def _pointwise_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Products of two-dimensional matrices: left to itself, XLA:CPU transposes dy in memory first."""

    def native(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda x, kernel: _native(x, kernel, 1, 0), x, kernel)[1](dy)

    def products(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        dx = _contract(_as_matrix(dy), kernel[0, 0], 1, 1).reshape(x.shape)
        return dx, _contract(_as_matrix(x), _as_matrix(dy), 0, 0).reshape(kernel.shape)

    return lax.platform_dependent(*residuals, dy, cpu=products, default=native)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _as_matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _contract(a: jax.Array, b: jax.Array, axis_of_a: int, axis_of_b: int) -> jax.Array:
    return lax.dot_general(a, b, (((axis_of_a,), (axis_of_b,)), ((), ())))


def _strided_pointwise(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _pointwise(x[:, ::strides, ::strides], kernel),
        default=lambda x, kernel: _native(x, kernel, strides, 0),
    )


def _by_patches(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """The networks' first convolution: XLA:CPU's own, with so few features, takes three times as long."""

    def patches_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        patches = lax.concatenate(list(_padded_taps(x, kernel, strides, padding)), 3)
        return _pointwise(patches, kernel.reshape(1, 1, -1, kernel.shape[3]))

    return lax.platform_dependent(
        x, kernel, cpu=patches_product, default=lambda x, kernel: _native(x, kernel, strides, padding)
    )


def _grouped(x: jax.Array, kernel: jax.Array, strides: int, padding: int, groups: int) -> jax.Array:
    def each_group(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pairs = zip(jnp.split(x, groups, 3), jnp.split(kernel, groups, 3), strict=True)
        return lax.concatenate([convolve(a, b, strides=strides, padding=padding) for a, b in pairs], 3)

    return lax.platform_dependent(
        x, kernel, cpu=each_group, default=lambda x, kernel: _native(x, kernel, strides, padding, groups)
    )
