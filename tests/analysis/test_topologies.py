"""Names of topologies, fake devices, and what is said where the compiler for TPUs is missing."""

import os

import jax
import pytest

from slimjax import UserError
from slimjax.analysis import topologies
from slimjax.analysis.topologies import find_topology, parse_topology, prepare_process

GARBAGE = ("gpu:8", "garbage", "", "v5e", "v5e:", "v5e:4x", "cpu:-1")


def test_names_that_mean_something():
    assert parse_topology("v5e:4x4") == ("v5e", (4, 4))
    assert parse_topology("v4:4x4x8") == ("v4", (4, 4, 8))
    assert parse_topology("cpu:8") == ("cpu", (8,))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:9x9x9", "there is no such slice of v5e chips; choose 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        ("v4:2x2", "there is no such slice of v4 chips; choose 2x2x1, "),
        ("v9:2x2", "is unknown; give a kind of TPU (v4, v5e, v5p, v6e) and the shape of a slice, such as v5e:4x4, or"),
        ("cpu:0", "give cpu and 1 to 512 fake devices, such as cpu:8"),
        ("cpu:513", "give cpu and 1 to 512 fake devices"),
        ("cpu:2x2", "give cpu and 1 to 512 fake devices"),
        *((name, "is unknown; give a kind of TPU") for name in GARBAGE),
    ],
)
def test_names_that_do_not(name, message):
    with pytest.raises(UserError) as refused:
        parse_topology(name)
    assert str(refused.value).startswith(f"--topology={name!r}")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_fake_devices_share_the_memory_of_the_machine():
    topology = find_topology("cpu:8")
    assert list(topology.devices) == jax.devices()[:8]
    assert topology.chip is None
    assert topology.num_hosts == 1
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert topology.memory_bytes == pytest.approx(whole / 8)
    assert find_topology("cpu:4", memory_gb=2.5).memory_bytes == 2.5e9
    assert len(find_topology("cpu:4").devices) == 4


@pytest.mark.parametrize("memory_gb", [0.0, -1.0, float("nan"), float("inf")])
def test_memory_is_positive(memory_gb):
    with pytest.raises(UserError, match="has to be positive"):
        find_topology("cpu:8", memory_gb)


def test_more_fake_devices_than_jax_was_started_with():
    with pytest.raises(UserError, match=r"JAX has 8 CPU devices; set XLA_FLAGS=.*=16 before it starts"):
        find_topology("cpu:16")


def test_without_the_compiler_for_tpus_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'slimjax\[tpu\]'"):
        prepare_process("v5e:2x2")


def test_the_last_flag_for_fake_devices_is_ours(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    prepare_process("cpu:8")
    assert os.environ["XLA_FLAGS"].endswith("=2 --xla_force_host_platform_device_count=8")
