import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.nn.channels import LeadingChannels

STORED = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)


@pytest.mark.parametrize(
    ("part", "inputs", "outputs"),
    [
        (LeadingChannels(), range(4), range(6)),
        (LeadingChannels((4,)), range(4), range(4)),
        (LeadingChannels((3, 2)), range(3), range(2)),
        (LeadingChannels((2, 4), groups=2), range(2), [0, 1, 3, 4]),
        (LeadingChannels((3,), groups=3), range(4), [0, 2, 4]),
    ],
)
def test_part_is_taken_replaced_and_added_to(part, inputs, outputs):
    place = np.ix_(range(2), inputs, outputs)
    np.testing.assert_array_equal(part(STORED), STORED[place])
    other = -1 - STORED[place]
    replaced, added = STORED.copy(), STORED.copy()
    replaced[place] = other
    added[place] += other
    np.testing.assert_array_equal(part.replace(jnp.asarray(STORED), jnp.asarray(other)), replaced)
    np.testing.assert_array_equal(part.add(jnp.asarray(STORED), jnp.asarray(other)), added)
