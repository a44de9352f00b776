"""What two networks' outputs are compared by."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def relative_error():
    """The largest difference over the largest value."""
    return lambda actual, expected: float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


@pytest.fixture(scope="session")
def images():
    """Four images [4, 16, 16, 3]."""
    return jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
