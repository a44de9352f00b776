"""Convolutions that are fast on every backend: XLA's own on TPU and GPU, rewritten ones on CPU.

XLA:CPU computes a grouped convolution as if it were dense, leaves most of a 1x1 convolution's backward to slow paths
and takes long for the kernel gradient of any. `convolve` therefore chooses at lowering time, with
`jax.lax.platform_dependent`: on CPU a depthwise convolution is one shifted multiply-add for each tap, a 1x1 convolution
a matrix product, a grouped convolution a convolution for each group, and of the others what is faster as a product of
patches is one; elsewhere all are `jax.lax.conv_general_dilated`. They carry their own gradients (`jax.custom_vjp`), so
reverse mode works and forward mode (`jax.jvp`) does not.

Images are NHWC, kernels HWIO, padding is symmetric.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from slimjax.nn.windows import output_size, pad_images, padded_taps, taps

# Rows that one step of the depthwise weight gradient adds up. Image sizes are multiples of 7 more often than of 8.
ROWS_PER_GROUP = 7

# Where unfolding patches and multiplying was faster than XLA:CPU's own dense convolution, at batch 8 on the shapes of
# ResNet-50 (3x3, strides 1 and 2): forward and input gradient for so few output pixels and for a network's first
# convolution, the kernel gradient there and from as many features on.
FEW_PIXELS = 14 * 14
STEM_FEATURES = 4
MIN_FEATURES_TO_UNFOLD = 32

Convolution: TypeAlias = Callable[[jax.Array, jax.Array, int, int], jax.Array]
"""From images, kernel, strides and padding to images."""

Gradients: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array, int, int], tuple[jax.Array, jax.Array]]
"""From images, kernel, the gradient of the output, strides and padding to the gradients of images and kernel."""


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
        return _pointwise(x, kernel, 1, 0) if strides == 1 else _strided_pointwise(x, kernel, strides)
    return _dense(x, kernel, strides, padding)


def _native(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def _native_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(lambda x, kernel: _native(x, kernel, strides, padding), x, kernel)[1](dy)


def _rewritten_on_cpu(on_cpu: Convolution, gradients_on_cpu: Gradients) -> Convolution:
    """A convolution with a form and gradients of its own on CPU, and XLA's elsewhere."""

    @partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def convolution(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: on_cpu(x, kernel, strides, padding),
            default=lambda x, kernel: _native(x, kernel, strides, padding),
        )

    def forward(
        x: jax.Array, kernel: jax.Array, strides: int, padding: int
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return convolution(x, kernel, strides, padding), (x, kernel)

    def backward(
        strides: int, padding: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return lax.platform_dependent(
            *residuals,
            dy,
            cpu=lambda x, kernel, dy: gradients_on_cpu(x, kernel, dy, strides, padding),
            default=lambda x, kernel, dy: _native_gradients(x, kernel, dy, strides, padding),
        )

    convolution.defvjp(forward, backward)
    return convolution


def _shifted_sum(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """Depthwise convolution as one shifted multiply-add for each tap, which XLA fuses into one loop over x."""
    seen = padded_taps(x, kernel.shape[:2], strides, padding)
    weights = kernel.reshape(-1, x.shape[-1]).astype(jnp.float32)
    total = sum(tap.astype(jnp.float32) * weights[index] for index, tap in enumerate(seen))
    return jnp.asarray(total, x.dtype)


def _spread(dy: jax.Array, kernel: jax.Array, size: tuple[int, ...], strides: int, padding: int) -> jax.Array:
    """Dy with zeros between and around, so that a window of the kernel at every place sees what saw that pixel."""
    rows, columns = (
        (window - 1 - padding, pixels + padding - 1 - (places - 1) * strides)
        for window, pixels, places in zip(kernel.shape, size, dy.shape[1:3], strict=False)
    )
    return pad_images(dy, rows, columns, dilation=strides)


def _depthwise_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """The input's is the transposed convolution: dy spread, shifted and added with the kernel turned round."""
    dx = _shifted_sum(_spread(dy, kernel, x.shape[1:3], strides, padding), kernel[::-1, ::-1], 1, 0)
    return dx, _depthwise_kernel_gradient(x, kernel, dy, strides, padding)


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
    dy = pad_images(dy, (0, whole - rows), (0, 0)).reshape(batch * groups, ROWS_PER_GROUP, columns, features)
    dy = dy.astype(jnp.float32)
    x = pad_images(x, (padding, height - padding - x.shape[1]), (padding, width - padding - x.shape[2]))
    seen = taps(x, kernel.shape[:2], strides, whole, columns)
    products = [tap.reshape(dy.shape).astype(jnp.float32) * dy for tap in seen]
    zeros = [jnp.zeros((), jnp.float32)] * len(products)
    of_groups = lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (1,))
    return jnp.stack([part.sum((0, 1)) for part in of_groups]).reshape(kernel.shape).astype(kernel.dtype)


_depthwise = _rewritten_on_cpu(_shifted_sum, _depthwise_gradients)


def _product(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """A 1x1 convolution without strides and padding as a matrix product."""
    return (_as_matrix(x) @ kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[3])


def _product_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """Products of two-dimensional matrices: left to itself, XLA:CPU transposes dy in memory first."""
    dx = _contract(_as_matrix(dy), kernel[0, 0], 1, 1).reshape(x.shape)
    return dx, _contract(_as_matrix(x), _as_matrix(dy), 0, 0).reshape(kernel.shape)


_pointwise = _rewritten_on_cpu(_product, _product_gradients)


def _as_matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _contract(a: jax.Array, b: jax.Array, axis_of_a: int, axis_of_b: int) -> jax.Array:
    return lax.dot_general(a, b, (((axis_of_a,), (axis_of_b,)), ((), ())))


def _strided_pointwise(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _pointwise(padded_taps(x, (1, 1), strides, 0)[0], kernel, 1, 0),
        default=lambda x, kernel: _native(x, kernel, strides, 0),
    )


def _patches(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """What the kernel sees at each place: [batch, rows, columns, kernel_height * kernel_width * in_features]."""
    return lax.concatenate(padded_taps(x, kernel.shape[:2], strides, padding), 3)


def _native_or_unfolded(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    rows, columns = (output_size(x.shape[axis], kernel.shape[axis - 1], strides, padding) for axis in (1, 2))
    if rows * columns > FEW_PIXELS and x.shape[3] > STEM_FEATURES:
        return _native(x, kernel, strides, padding)
    return _product(_patches(x, kernel, strides, padding), kernel.reshape(1, 1, -1, kernel.shape[3]), 1, 0)


def _dense_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    dx, dkernel = _native_gradients(x, kernel, dy, strides, padding)
    if strides == 1:
        turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
        dx = _native_or_unfolded(_spread(dy, kernel, x.shape[1:3], 1, padding), turned, 1, 0)
    if not STEM_FEATURES < x.shape[3] < MIN_FEATURES_TO_UNFOLD:
        patches = _as_matrix(_patches(x, kernel, strides, padding))
        dkernel = _contract(patches, _as_matrix(dy), 0, 0).reshape(kernel.shape)
    return dx, dkernel


_dense = _rewritten_on_cpu(_native_or_unfolded, _dense_gradients)


def _grouped(x: jax.Array, kernel: jax.Array, strides: int, padding: int, groups: int) -> jax.Array:
    def each_group(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pairs = zip(jnp.split(x, groups, 3), jnp.split(kernel, groups, 3), strict=True)
        return lax.concatenate([convolve(a, b, strides=strides, padding=padding) for a, b in pairs], 3)

    return lax.platform_dependent(
        x, kernel, cpu=each_group, default=lambda x, kernel: _native(x, kernel, strides, padding)
    )
