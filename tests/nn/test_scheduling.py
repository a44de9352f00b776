"""Values that wait for a number are the values, whatever the number is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.nn import scheduling


@pytest.mark.parametrize("function", [scheduling.computed_once, scheduling.computed_after])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_number_changes_the_values(function, dtype, rng):
    values = jnp.asarray(rng.normal(size=(3, 5)), dtype)
    for number in (0.0, -0.0, 1.5, np.inf, -np.inf, np.nan):
        np.testing.assert_array_equal(jax.jit(function)(values, jnp.asarray(number, dtype)), values)


def test_what_is_taken_of_an_array_is_taken_behind_the_number(rng):
    """So that a program whose number takes long does not hold what is taken meanwhile."""
    array = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    taken = jax.jit(lambda array, number: scheduling.computed_after(array, number, lambda array: array[:, :2]))
    np.testing.assert_array_equal(taken(array, 1.5), array[:, :2])
    branch = taken.lower(array, 1.5).as_text().partition("stablehlo.case")[2]
    assert "stablehlo.slice" in branch


def test_the_values_depend_on_the_number():
    """Else a compiler might leave it out: of one NaN, which no arithmetic gives, they do."""
    odd = jax.lax.bitcast_convert_type(jnp.uint32(scheduling._ODD_NAN), jnp.float32)
    assert not jax.jit(scheduling.computed_once)(jnp.ones(3), odd).any()
