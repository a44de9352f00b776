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
from flax.traverse_util import flatten_dict  # noqa: E402

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
    """Starts `python -m slimjax.main`, or another module, with arguments, on one CPU device as a user has it.

    `environment` adds variables to those that the program sees.
    """

    def start(*arguments, module="slimjax.main", environment=None, **options):
        command = [sys.executable, "-m", module, *map(str, arguments)]
        variables = {**ONE_DEVICE, "TFDS_DATA_DIR": str(data_dir), **(environment or {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(command, cwd=ROOT, env=variables, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def run_program(start_program):
    """Runs it to the end: exit code, stdout, stderr."""

    def run(*arguments, **options):
        process = start_program(*arguments, **options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def assert_refused():
    """Asserts that a program ended with a user's mistake, told in one line."""

    def check(result, message):
        code, out, err = result
        assert code == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert message in err
        assert not out

    return check


@pytest.fixture(scope="session")
def elements_of():
    """Slices a network by hand, by the rules of the papers."""

    def elements(stored, narrow_shapes, switch):
        """For every variable of the network that has one width only: where it is stored, and which elements it has."""
        stored = flatten_dict(stored)
        in_groups = any("reduce" in path for path in stored) and any("depthwise" in path for path in stored)
        for path, narrow in flatten_dict(narrow_shapes).items():
            source = tuple(f"switch_{switch}" if key == "switch_0" else key for key in path)
            axes = [np.arange(size) for size in narrow.shape]
            # ShuffleNet: outputs of the 1x1 convolutions and the stem in 3 groups, of each its leading channels.
            if in_groups and {"stem", "reduce", "expand"} & set(path):
                size, widest = narrow.shape[-1], stored[source].shape[-1]
                axes[-1] = np.concatenate([group * widest // 3 + np.arange(size // 3) for group in range(3)])
            yield path, source, np.ix_(*axes)

    return elements
