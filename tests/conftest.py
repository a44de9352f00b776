"""Eight fake CPU devices for everything, and small things that many tests share."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np
import pytest

# Programs compiled once are read back by the other workers, by subprocesses and by the next run.
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/slimjax/tests"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)
