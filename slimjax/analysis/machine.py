"""The machine and the libraries on which something was measured."""

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
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "versions": package_versions(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
