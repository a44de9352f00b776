"""Convolutions that are fast on every backend: XLA's own on TPU and GPU, rewritten ones on CPU.

XLA:CPU computes a grouped convolution as if it were dense and leaves most of a 1x1 convolution's backward to slow paths.
`convolve` therefore chooses at lowering time, with `jax.lax.platform_dependent`: on CPU a depthwise convolution is nine
shifted multiply-adds, a 1x1 convolution a matrix product, a grouped convolution a convolution per group; elsewhere it is
`jax.lax.conv_general_dilated`. The CPU forms carry their own gradients (`jax.custom_vjp`), so reverse mode works and
forward mode (`jax.jvp`) does not.

Images are NHWC, kernels HWIO, padding is symmetric.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")

# Rows that one step of the depthwise weight gradient adds up. Image sizes are multiples of 7 more often than of 8.
ROWS_PER_GROUP = 7


def convolve(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
    """Convolution of images with symmetric zero padding.

    Args:
      x: images [batch, height, width, in_features], float32 or bfloat16.
      kernel: [kernel_height, kernel_width, in_features / groups, out_features], of x's dtype.
      strides: step of the window, the same in both directions.
      padding: zeros added at each of the four sides.
      groups: output features [g * out / groups, (g + 1) * out / groups) see only the g-th share of the input features.

    Returns:
      [batch, (height + 2 * padding - kernel_height) // strides + 1, likewise, out_features], of x's dtype.

    Raises:
      ValueError: if the features are not divisible by `groups`, or the kernel's inputs are not in_features / groups.
    """
    in_features, out_features = x.shape[-1], kernel.shape[-1]
    if in_features % groups or out_features % groups or kernel.shape[2] * groups != in_features:
        raise ValueError(
            f"groups={groups} does not fit x {x.shape} and kernel {kernel.shape}: groups must divide in_features and"
            " out_features, and the kernel's third dimension must be in_features / groups"
        )
    x, kernel = _vary_alike(x, kernel)
    if in_features == groups == out_features and kernel.shape[:2] != (1, 1):
        return _depthwise(x, kernel, strides, padding)
    if kernel.shape[:2] == (1, 1) and groups == 1 and padding == 0:
        return _pointwise(x[:, ::strides, ::strides], kernel)
    if groups > 1:
        return _grouped(x, kernel, strides, padding, groups)
    return _native(x, kernel, strides, padding, 1)


def _native(x, kernel, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        ((padding, padding), (padding, padding)),
        feature_group_count=groups,
        dimension_numbers=DIMENSION_NUMBERS,
    )


def _vary_alike(x, kernel):
    """Lets both vary over the same mesh axes inside shard_map, as a custom gradient's arguments must.

    Done outside the custom gradient, so that the transpose sums the kernel's gradient over the axes that only x varies on.
    """
    axes = [_varying_axes(a) for a in (x, kernel)]
    missing = [tuple((axes[0] | axes[1]) - a) for a in axes]
    return tuple(lax.pcast(a, m, to="varying") if m else a for a, m in zip((x, kernel), missing))


def _varying_axes(a):
    """The shard_map axes along which `a` differs; JAX 0.10.2 moved the attribute that says so."""
    kind = jax.typeof(a)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


# Depthwise ------------------------------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, strides, padding):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted_sum(x, kernel, strides, padding),
        default=lambda x, kernel: _native(x, kernel, strides, padding, x.shape[-1]),
    )


def _depthwise_forward(x, kernel, strides, padding):
    return _depthwise(x, kernel, strides, padding), (x, kernel)


def _depthwise_backward(strides, padding, residuals, dy):
    def native(x, kernel, dy):
        return jax.vjp(lambda x, kernel: _native(x, kernel, strides, padding, x.shape[-1]), x, kernel)[1](dy)

    def shifted(x, kernel, dy):
        dx = _depthwise_input_gradient(x.shape, kernel, dy, strides, padding)
        return dx, _depthwise_kernel_gradient(x, kernel, dy, strides, padding)

    return lax.platform_dependent(*residuals, dy, cpu=shifted, default=native)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _pad(x, rows, columns, dilation=1):
    """Zeros (before, after) rows and columns, and `dilation - 1` between neighbours; negative numbers crop."""
    between = dilation - 1
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, between), (*columns, between), (0, 0, 0)))


def _shifted_sum(x, kernel, strides, padding):
    """Depthwise convolution as one shifted multiply-add for each tap, which XLA fuses into one loop over x."""
    rows, columns = ((size + 2 * padding - k) // strides + 1 for size, k in zip(x.shape[1:3], kernel.shape))
    padded = _pad(x, (padding, padding), (padding, padding))
    total = jnp.zeros((), jnp.float32)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            stop = (x.shape[0], i + (rows - 1) * strides + 1, j + (columns - 1) * strides + 1, x.shape[3])
            tap = lax.slice(padded, (0, i, j, 0), stop, (1, strides, strides, 1))
            total += tap.astype(jnp.float32) * kernel[i, j].astype(jnp.float32)
    return total.astype(x.dtype)


def _depthwise_input_gradient(shape, kernel, dy, strides, padding):
    """The transposed convolution: dy spread out by the stride, shifted and added with the kernel turned round."""
    before = [k - 1 - padding for k in kernel.shape[:2]]
    after = [size + padding - 1 - (out - 1) * strides for size, out in zip(shape[1:3], dy.shape[1:3])]
    spread = _pad(dy, (before[0], after[0]), (before[1], after[1]), dilation=strides)
    return _shifted_sum(spread, kernel[::-1, ::-1], 1, 0)


def _depthwise_kernel_gradient(x, kernel, dy, strides, padding):
    """For each tap, the sum over images, rows and columns of the shifted x times dy.

    All taps are operands of ONE variadic reduction over small groups of rows: it reads x and dy once, where a reduction
    for each tap reads them nine times, and its inner loop runs over contiguous columns and features, so that it
    vectorises. Rows are padded with zeros to whole groups. What remains, [groups, columns, features] for each tap, is
    small and summed by an ordinary reduction.
    """
    batch, rows, columns, features = dy.shape
    groups = -(-rows // ROWS_PER_GROUP)
    whole = groups * ROWS_PER_GROUP
    height, width = ((out - 1) * strides + k for out, k in zip((whole, columns), kernel.shape))
    dy = _pad(dy, (0, whole - rows), (0, 0)).reshape(batch * groups, ROWS_PER_GROUP, columns, features)
    x = _pad(x, (padding, height - padding - x.shape[1]), (padding, width - padding - x.shape[2]))
    products = []
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            stop = (batch, i + (whole - 1) * strides + 1, j + (columns - 1) * strides + 1, features)
            tap = lax.slice(x, (0, i, j, 0), stop, (1, strides, strides, 1)).reshape(dy.shape)
            products.append(tap.astype(jnp.float32) * dy.astype(jnp.float32))
    zeros = [jnp.zeros((), jnp.float32)] * len(products)
    partial_sums = lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b)], (1,))
    return jnp.stack([s.sum((0, 1)) for s in partial_sums]).reshape(kernel.shape).astype(kernel.dtype)


# Pointwise ------------------------------------------------------------------------------------------------------------


@jax.custom_vjp
def _pointwise(x, kernel):
    def product(x, kernel):
        return _dot(_as_matrix(x), kernel[0, 0], (1, 0)).reshape(*x.shape[:3], kernel.shape[3])

    return lax.platform_dependent(x, kernel, cpu=product, default=lambda x, kernel: _native(x, kernel, 1, 0, 1))


def _pointwise_forward(x, kernel):
    return _pointwise(x, kernel), (x, kernel)


def _pointwise_backward(residuals, dy):
    """Products of two-dimensional matrices: left to itself, XLA:CPU transposes dy in memory first."""

    def native(x, kernel, dy):
        return jax.vjp(lambda x, kernel: _native(x, kernel, 1, 0, 1), x, kernel)[1](dy)

    def products(x, kernel, dy):
        dx = _dot(_as_matrix(dy), kernel[0, 0], (1, 1)).reshape(x.shape)
        return dx, _dot(_as_matrix(x), _as_matrix(dy), (0, 0)).reshape(kernel.shape)

    return lax.platform_dependent(*residuals, dy, cpu=products, default=native)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _as_matrix(x):
    return x.reshape(-1, x.shape[-1])


def _dot(a, b, contracted):
    return lax.dot_general(a, b, (((contracted[0],), (contracted[1],)), ((), ())))


# Grouped --------------------------------------------------------------------------------------------------------------


def _grouped(x, kernel, strides, padding, groups):
    def each_group(x, kernel):
        sizes = [x.shape[3] // groups] * groups, [kernel.shape[3] // groups] * groups
        pairs = zip(lax.split(x, sizes[0], 3), lax.split(kernel, sizes[1], 3))
        outputs = [convolve(a, b, strides=strides, padding=padding) for a, b in pairs]
        return lax.concatenate(outputs, 3)

    def native(x, kernel):
        return _native(x, kernel, strides, padding, groups)

    return lax.platform_dependent(x, kernel, cpu=each_group, default=native)


def compiler_options(platform: str) -> dict[str, bool] | None:
    """Options for `jax.jit` under which these convolutions run best on a platform.

    XLA:CPU's default scheduler, made for concurrency, keeps far more temporaries alive than its older one.
    """
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False} if platform == "cpu" else None
