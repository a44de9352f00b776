"""When a program computes something, where XLA would decide otherwise.

XLA:CPU drops `lax.optimization_barrier` before it fuses and schedules. What it cannot do away with is a dependence on a
number, so values are computed here as if they depended on one: on whether its bits are those of one odd NaN, which no
arithmetic gives.
"""

import jax
import jax.numpy as jnp
from jax import lax

_ODD_NAN = 0x7FD51D3A


def computed_once(values: jax.Array, number: jax.Array) -> jax.Array:
    """Values, in memory before anything reads them.

    XLA:CPU repeats what values are computed from in whatever loop reads them, as in each term of a sum over taps. What
    leaves a conditional it does not repeat.

    Args:
      values: any array.
      number: a scalar that the program can compute before.
    """
    return lax.cond(_is_odd(number), lambda values: jnp.zeros_like(values), lambda values: values, values)


def computed_after(values: jax.Array, number: jax.Array) -> jax.Array:
    """Values that nothing can read before a number is there, so that what is computed from them has to wait for it.

    Args:
      values: any array.
      number: a scalar.
    """
    return lax.platform_dependent(
        values,
        number,
        cpu=computed_once,
        default=lambda values, number: values + _is_odd(number).astype(values.dtype),
    )


def _is_odd(number: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(number.astype(jnp.float32), jnp.uint32) == _ODD_NAN
