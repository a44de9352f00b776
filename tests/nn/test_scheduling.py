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


def test_the_values_depend_on_the_number():
    """Else a compiler might leave it out: of one NaN, which no arithmetic gives, they do."""
    odd = jax.lax.bitcast_convert_type(jnp.uint32(scheduling._ODD_NAN), jnp.float32)
    assert not jax.jit(scheduling.computed_once)(jnp.ones(3), odd).any()
