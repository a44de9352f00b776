"""Eight fake CPU devices for everything that runs in this process, and the real program in others."""

import fcntl
import math
import os
import subprocess
import sys
from pathlib import Path

# Programs compiled once are read back by the other workers, by subprocesses and by the next run.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": os.path.expanduser("~/.cache/slimjax/tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}
FAKE_DEVICES = "--xla_force_host_platform_device_count"
# As a user has it: flags that make the tests of this process quick are not for programs in others.
ALONE = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | CACHE | {"JAX_PLATFORMS": "cpu"}
os.environ.update(CACHE, JAX_PLATFORMS="cpu")
# The workers of pytest-xdist inherit the fake devices of the process that starts them.
if FAKE_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAKE_DEVICES}=8"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from flax.traverse_util import flatten_dict, unflatten_dict  # noqa: E402
from programs import SMALL  # noqa: E402

from slimjax import create_model  # noqa: E402
from slimjax.models.mobilenet_v2 import InvertedStage  # noqa: E402
from slimjax.models.network import Stage  # noqa: E402

ROOT = Path(__file__).parents[1]
# Compiling takes the time: a few blocks of every kind, one residual connection at every width.
STAGES = {
    "mobilenet_v1": (Stage(32, 1, 1), Stage(64, 1, 2)),
    "mobilenet_v2": (InvertedStage(16, 1, 1, expansion=1), InvertedStage(24, 2, 2)),
    "resnet50": (Stage(64, 2, 2),),
    "shufflenet": (Stage(96, 2, 2),),
}


def pytest_collection_modifyitems(items):
    """Puts what starts programs first: such a file takes minutes, for which at the end one worker would idle."""
    items.sort(key=lambda item: "start_program" not in item.fixturenames)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where tfds keeps the digits during the tests."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def users_environment(data_dir):
    """The variables that users' programs see."""
    return {**ALONE, "TFDS_DATA_DIR": str(data_dir)}


@pytest.fixture(scope="session")
def start_program(users_environment):
    """Starts `python -m slimjax.main`, or another module, with arguments, on one CPU device as a user has it.

    `environment` adds variables to those that the program sees; `devices` above 1 are fake ones.
    """

    def start(*arguments, module="slimjax.main", environment=None, devices=1, **options):
        command = [sys.executable, "-m", module, *map(str, arguments)]
        fake_devices = {"XLA_FLAGS": f"{FAKE_DEVICES}={devices}"} if devices > 1 else {}
        variables = {**users_environment, **fake_devices, **(environment or {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(command, cwd=ROOT, env=variables, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def run_program(start_program):
    """Runs it to the end, for at most so many seconds: exit code, stdout, stderr."""

    def run(*arguments, seconds=300, **options):
        process = start_program(*arguments, **options)
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def finished_run(run_program, tmp_path_factory):
    """The workdir of a short run on the digits, to be read only. The workers of pytest-xdist share it."""
    base = tmp_path_factory.getbasetemp()
    workdir = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    with open(workdir.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (workdir / "metrics.jsonl").exists():
            code, _, err = run_program(f"--workdir={workdir}", *SMALL)
            assert code == 0, err
    return workdir


@pytest.fixture(scope="session")
def report(finished_run, run_program, tmp_path_factory):
    """What the report command prints of that run, and the folder that it writes."""
    output = tmp_path_factory.mktemp("report") / "report"
    code, out, err = run_program(f"--workdir={finished_run}", f"--output={output}", module="slimjax.report")
    assert code == 0, err
    return out, output


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


@pytest.fixture(scope="session")
def create_small():
    """Builds a family's smallest network for images of 16 pixels, and 5 classes if not told otherwise."""

    def create(name, widths, num_classes=5, **options):
        return create_model(name, widths, num_classes, stem="small", stages=STAGES[name], **options)

    return create


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
