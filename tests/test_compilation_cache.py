"""Where compiled programs are kept, in processes of their own: JAX asks its variables once."""

import subprocess
import sys

import pytest

SCRIPT = """
import jax
from slimjax.cli import use_compilation_cache
use_compilation_cache()
print(jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache)
"""


@pytest.fixture
def cache_with(users_environment, tmp_path):
    """Where it is, and whether it is on, for somebody whose home is new."""

    def ask(**variables):
        ours = {name: value for name, value in users_environment.items() if "CACHE" not in name}
        environment = ours | {"HOME": str(tmp_path)} | variables
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    return ask


def test_programs_are_kept_in_the_users_home(cache_with, tmp_path):
    assert cache_with() == f"{tmp_path / '.cache' / 'slimjax' / 'compiled'} True"


def test_a_folder_that_jax_was_told_of_is_left_to_it(cache_with, tmp_path):
    told = str(tmp_path / "told")
    assert cache_with(JAX_COMPILATION_CACHE_DIR=told) == f"{told} True"
