"""Devices: one mesh with a single axis `data`, over which batches are split and everything else is replicated."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from slimjax.errors import UserError

DATA = "data"
REPLICATED = PartitionSpec()
SPLIT = PartitionSpec(DATA)


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices along the axis `data`: the given ones, or all of all hosts."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def platform_of(mesh: Mesh) -> str:
    """What its devices are: cpu, gpu or tpu."""
    return mesh.devices.flat[0].platform


def check_platform(platform: str) -> None:
    """Makes JAX use a platform, or whatever it finds for "".

    JAX falls back to the CPU in silence where an accelerator is absent, so an asked-for one is checked.

    Raises:
      UserError: if the platform is unknown or has no devices here.
    """
    known = ("cpu", "gpu", "tpu")
    if platform and platform not in known:
        raise UserError(f"platform={platform!r} is unknown; choose one of {', '.join(known)}, or '' for what is there")
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        found = jax.default_backend()
    except RuntimeError as error:
        # JAX_PLATFORMS names one that is not there.
        raise UserError(" ".join(str(error).split())) from None
    if platform and found != platform:
        raise UserError(
            f"platform={platform!r} was asked for, but JAX finds only {found!r} here; install "
            f"slimjax[{_extra(platform)}] on a machine that has one, or set platform={found!r}"
        )


def _extra(platform: str) -> str:
    return {"gpu": "cuda", "tpu": "tpu"}.get(platform, platform)


def check_batch_size(batch_size: int, device_count: int, accumulate_steps: int = 1) -> None:
    """UserError unless the global batch divides evenly, with at least one image, over the devices and their parts."""
    if accumulate_steps < 1:
        raise UserError(f"accumulate_steps={accumulate_steps} has to be at least 1, which takes a batch at once")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} has to be at least 1")
    parts = device_count * accumulate_steps
    if batch_size % parts:
        among = f"{device_count} devices" + (f" in accumulate_steps={accumulate_steps}" if accumulate_steps > 1 else "")
        nearest = max(1, round(batch_size / parts)) * parts
        raise UserError(f"batch_size={batch_size} does not divide over {among}; the nearest that does is {nearest}")


def group_devices(device_count: int, group_size: int) -> tuple[tuple[int, ...], ...] | None:
    """Consecutive groups of devices along the data axis; None if a group is a single device.

    Raises:
      UserError: if the groups do not fill the devices evenly.
    """
    if group_size < 1 or device_count % group_size:
        divisors = [size for size in range(1, device_count + 1) if device_count % size == 0]
        raise UserError(
            f"batch_norm_group_size={group_size} does not divide {device_count} devices; choose one of {divisors}"
        )
    if group_size == 1:
        return None
    return tuple(tuple(range(first, first + group_size)) for first in range(0, device_count, group_size))


def settled(mesh: Mesh, values: Any) -> Any:
    """The values, waited for where several programs in flight could block each other.

    Several devices of one CPU share a pool of threads. A program that waits in a collective for a device whose thread
    another program has taken waits for ever, so there only one program runs at a time. Real devices have their queues.
    """
    if mesh.size > 1 and platform_of(mesh) == "cpu":
        jax.block_until_ready(values)
    return values


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This host's share of a batch onto its devices, split along the leading axis."""
    sharding = NamedSharding(mesh, SPLIT)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
