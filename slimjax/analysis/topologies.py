"""Devices that need not be there: TPU slices by name, and fake devices of this machine's CPU."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from slimjax.analysis.chips import CHIPS, Chip
from slimjax.analysis.machine import memory_bytes
from slimjax.errors import UserError

MOST_FAKE_DEVICES = 512
_FAKE_DEVICES = "--xla_force_host_platform_device_count"

_COMPILING_ONLY = {
    # libtpu is loaded as a compiler: it takes no TPU, so that another process may have one, or have left its lock file.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # It is not to look for the TPU that this machine may be part of, and to complain that it is none.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
}
"""Variables for libtpu, unless they are set."""


@dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Attributes:
      name: such as `v5e:4x4` or `cpu:8`.
      devices: whose platform decides how programs are compiled.
      num_hosts: machines to which they are attached.
      chip: what each device is; None where it has no published figures.
      memory_bytes: that programs may have on each device.
    """

    name: str
    devices: Sequence[jax.Device]
    num_hosts: int
    chip: Chip | None
    memory_bytes: float


def parse_topology(name: str) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of what a topology's name means: ("v5e", (4, 4)) or ("cpu", (8,)).

    Raises:
      UserError: if there is no such topology.
    """
    match = re.fullmatch(r"(?P<kind>\w+):(?P<shape>[0-9]{1,4}(x[0-9]{1,4})*)", name)
    kinds = ", ".join(CHIPS)
    if not match or (match["kind"] != "cpu" and match["kind"] not in CHIPS):
        raise UserError(
            f"--topology={name!r} is unknown; give a kind of TPU ({kinds}) and the shape of a slice, such as v5e:4x4, "
            "or cpu and a number of fake devices, such as cpu:8"
        )
    kind, shape = match["kind"], tuple(int(size) for size in match["shape"].split("x"))
    if kind == "cpu" and (len(shape) > 1 or not 1 <= shape[0] <= MOST_FAKE_DEVICES):
        raise UserError(f"--topology={name!r}: give cpu and 1 to {MOST_FAKE_DEVICES} fake devices, such as cpu:8")
    if kind != "cpu" and not CHIPS[kind].is_slice(shape):
        raise UserError(f"--topology={name!r}: there is no such slice of {kind} chips; choose {CHIPS[kind].slices}")
    return kind, shape


def prepare_process(name: str) -> None:
    """Sets what has to be set before JAX looks for devices, so that it finds fake ones and takes no accelerator.

    Raises:
      UserError: if there is no such topology, or a package for it is missing.
    """
    kind, shape = parse_topology(name)
    jax.config.update("jax_platforms", "cpu")
    if kind == "cpu":
        # The last of several such flags counts.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FAKE_DEVICES}={shape[0]}".strip()
    elif importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--topology={name!r} needs the TPU compiler; pip install 'slimjax[tpu]'")


def find_topology(name: str, memory_gb: float | None = None) -> Topology:
    """The devices of a name.

    Args:
      name: see `parse_topology`.
      memory_gb: of each device, 1e9 bytes; None takes what the chip has, or the machine's share for each fake device.

    Raises:
      UserError: if there is no such topology, or it cannot be had here.
    """
    if memory_gb is not None and not 0 < memory_gb < math.inf:
        raise UserError(f"--memory_gb={memory_gb} has to be positive")
    kind, shape = parse_topology(name)
    chip = CHIPS.get(kind)
    devices = _fake_devices(name, shape[0]) if chip is None else _tpu_devices(name, shape, chip)
    has = memory_bytes() / len(devices) if chip is None else chip.usable_bytes
    num_hosts = len({device.process_index for device in devices})
    return Topology(name, devices, num_hosts, chip, has if memory_gb is None else memory_gb * 1e9)


def _fake_devices(name: str, count: int) -> Sequence[jax.Device]:
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"--topology={name!r}: JAX has {len(devices)} CPU devices; set XLA_FLAGS={_FAKE_DEVICES}={count} before it "
            "starts"
        )
    return devices[:count]


def _tpu_devices(name: str, shape: tuple[int, ...], chip: Chip) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    for variable, value in _COMPILING_ONLY.items():
        os.environ.setdefault(variable, value)
    # Hosts have 4 chips (or 1, of a slice of 1), as Cloud TPU's machines for training have.
    on_host = tuple(min(2, size) for size in shape[:2])
    options = {"chip_config_name": chip.config_name, "chips_per_host_bounds": (*on_host, 1)}
    try:
        return topologies.get_topology_desc(name, "tpu", **options).devices
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--topology={name!r}: {' '.join(str(error).split())[:300]}") from error
