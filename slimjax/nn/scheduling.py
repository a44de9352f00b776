"""When a program computes something, where XLA would decide otherwise.

XLA:CPU drops `lax.optimization_barrier` before it fuses and schedules. What it cannot do away with is a dependence on a
number, so values are computed here as if they depended on one: on whether its bits are those of one odd NaN, which no
arithmetic gives.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_ODD_NAN = 0x7FD51D3A

Take = Callable[[jax.Array], jax.Array]


def computed_once(values: jax.Array, number: jax.Array) -> jax.Array:
    """Values, in memory before anything reads them.

    XLA:CPU repeats what values are computed from in whatever loop reads them, as in each term of a sum over taps. What
    leaves a conditional it does not repeat.

    Args:
      values: any array.
      number: a scalar that the program can compute before.
    """
    return _taken_behind(lambda values: values, values, number)


def computed_after(array: jax.Array, number: jax.Array, take: Take = lambda array: array) -> jax.Array:
    """What is taken of an array, not before a number is there, so that what is computed from it has to wait for that.

    Args:
      array: any array.
      number: a scalar.
      take: what is done with the array, when its time has come; by default nothing.
    """
    return lax.platform_dependent(
        array,
        number,
        cpu=lambda array, number: _taken_behind(take, array, number),
        default=lambda array, number: _unless_odd(take(array), number),
    )


def _taken_behind(take: Take, array: jax.Array, number: jax.Array) -> jax.Array:
    taken = jax.eval_shape(take, array)
    return lax.cond(_is_odd(number), lambda array: jnp.zeros(taken.shape, taken.dtype), take, array)


def _unless_odd(values: jax.Array, number: jax.Array) -> jax.Array:
    return values + _is_odd(number).astype(values.dtype)


def _is_odd(number: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(number.astype(jnp.float32), jnp.uint32) == _ODD_NAN
