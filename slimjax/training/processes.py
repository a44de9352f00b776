"""Several processes, as on the hosts of a pod: finding each other, and saying so when one of them is lost."""

import faulthandler
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax

from slimjax.errors import USAGE_ERROR, UserError

# Where Linux shows the TPU chips of a machine.
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/vfio")
_LOST = 3
# What collectives say of a process that is gone, on CPU (gloo), GPU and TPU.
_CONNECTION = re.compile("gloo|nccl|connect|socket|peer|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED", re.IGNORECASE)


def connect_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run into one; to be called before JAX looks for devices.

    On a TPU pod the processes find each other. Elsewhere all three arguments are needed; with none, and no pod, the
    process is alone.

    Args:
      coordinator: `HOST:PORT` of process 0, the same in every process.
      num_processes: of the run.
      process_id: of this process, counted from 0.

    Raises:
      UserError: if the arguments are incomplete or out of range, or the others are not found.
    """
    if coordinator is None and num_processes is None and process_id is None:
        if _has_tpu():
            _join_pod()
        return
    if coordinator is None or num_processes is None or process_id is None:
        given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
        missing = " and ".join(name for name, value in given.items() if value is None)
        raise UserError(
            "several processes need --coordinator=HOST:PORT, --num_processes=N and --process_id=I, "
            f"from 0 to N - 1, in each of them; give {missing} too"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT; give that of process 0, such as 10.0.0.1:1234")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id} is not one of {num_processes} processes; give 0 or more, below")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes did not find each other: {' '.join(str(error).split())[:300]}") from error
    # JAX ends a process whose others are lost by aborting, after its message; where it was then helps nobody.
    faulthandler.disable()


def check_is_connected() -> None:
    """UserError if this is one process of several that have not found each other; starts JAX's backend."""
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"this is process {jax.process_index()} of {jax.process_count()}, which did not find each other; "
            "give --coordinator=HOST:PORT --num_processes=N --process_id=I in each of them"
        )


def _has_tpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None and any(Path(path).exists() for path in _TPU_DEVICES)


def _join_pod() -> None:
    """Finds the pod's other hosts. A TPU outside a pod may have nobody to ask, and then is alone."""
    with suppress(Exception):
        jax.distributed.initialize()


@contextmanager
def ended_with_the_others() -> Iterator[None]:
    """Ends one of several processes with one line where another is gone, or where it cannot go on itself.

    Collectives fail when a process is gone, of which JAX says only that a connection was closed. Leaving in good order
    would wait for the others, which wait in a collective, so nothing is cleaned up: they see this one gone, and the
    next start goes on from the newest checkpoint.
    """
    try:
        yield
    except UserError as error:
        if jax.process_count() == 1:
            raise
        print(f"error: process {jax.process_index()} of {jax.process_count()}: {error}", file=sys.stderr, flush=True)
        os._exit(USAGE_ERROR)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or not _CONNECTION.search(str(error)):
            raise
        reason = " ".join(str(error).split())[:200]
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} lost another one ({reason}); start all of "
            "them again with the same command, and they go on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(_LOST)
