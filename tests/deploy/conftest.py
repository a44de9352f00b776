"""Variables without compiling an initialisation, and what two networks' outputs are compared by."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax import create_model
from slimjax.models.mobilenet_v2 import InvertedStage
from slimjax.models.network import Stage

# Compiling takes the time: two or three blocks, one residual connection at every width.
STAGES = {
    "mobilenet_v1": (Stage(32, 1, 1), Stage(64, 1, 2)),
    "mobilenet_v2": (InvertedStage(16, 1, 1, expansion=1), InvertedStage(24, 2, 2)),
    "resnet50": (Stage(64, 2, 2),),
    "shufflenet": (Stage(96, 2, 2),),
}


@pytest.fixture(scope="session")
def create_small():
    """Builds a family's smallest network for images of 16 pixels and 5 classes."""
    return lambda name, widths, **options: create_model(name, widths, 5, stem="small", stages=STAGES[name], **options)


@pytest.fixture(scope="session")
def random_variables():
    """Makes a model's variables: kernels that keep activations alive, batch norms of which no part is trivial."""

    def make(model):
        rng = np.random.default_rng(1)

        def value(path, shape):
            if path[-1] in ("scale", "var"):
                return rng.uniform(0.5, 1.5, shape)
            if path[-1] in ("bias", "mean"):
                return rng.normal(0, 0.2, shape)
            return rng.normal(0, (2 / math.prod(shape[:-1])) ** 0.5, shape)

        shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
        return unflatten_dict({path: jnp.asarray(value(path, s.shape), jnp.float32) for path, s in shapes.items()})

    return make


@pytest.fixture(scope="session")
def relative_error():
    """The largest difference over the largest value."""
    return lambda actual, expected: float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


@pytest.fixture(scope="session")
def images():
    """Four images [4, 16, 16, 3]."""
    return jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
