"""Convolutions (placeholder until the CPU lowerings land)."""

import jax


def convolve(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
    """NHWC convolution with symmetric padding."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def compiler_options(platform: str) -> dict[str, bool] | None:
    """Options for `jax.jit` under which these convolutions run best on a platform.

    XLA:CPU's default scheduler, made for concurrency, keeps far more temporaries alive than its older one.
    """
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False} if platform == "cpu" else None
