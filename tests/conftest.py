"""Eight fake CPU devices for everything that runs in this process, and the real program in others."""

import os
import subprocess
import sys
from pathlib import Path

# Programs compiled once are read back by the other workers, by subprocesses and by the next run.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": os.path.expanduser("~/.cache/slimjax/tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}
# The workers of pytest-xdist inherit the fake devices of the process that starts them.
ONE_DEVICE = (
    {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | CACHE | {"JAX_PLATFORMS": "cpu"}
)
os.environ.update(CACHE, JAX_PLATFORMS="cpu")
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import numpy as np  # noqa: E402
import pytest  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where tfds keeps the digits during the tests."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def start_program(data_dir):
    """Starts `python -m slimjax.main`, or another module, with arguments, on one CPU device as a user has it."""

    def start(*arguments, module="slimjax.main", **options):
        command = [sys.executable, "-m", module, *map(str, arguments)]
        environment = {**ONE_DEVICE, "TFDS_DATA_DIR": str(data_dir)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, **options)

    return start


@pytest.fixture(scope="session")
def run_program(start_program):
    """Runs it to the end: exit code, stdout, stderr."""

    def run(*arguments, **options):
        process = start_program(*arguments, **options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run
