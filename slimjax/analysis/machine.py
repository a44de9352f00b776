"""The machine and the libraries on which something was measured."""

import math
import os
import platform
from pathlib import Path
from typing import Any

import jax

from slimjax.versions import package_versions


def describe_machine() -> dict[str, Any]:
    """JAX's device, the processor and versions, as plain JSON values."""
    return {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "versions": package_versions(),
    }


def memory_bytes() -> float:
    """The machine's memory; infinity where nobody knows."""
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return math.inf


def processor_name() -> str:
    """The processor, by the name that the system gives it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
