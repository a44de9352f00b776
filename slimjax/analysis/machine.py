"""The machine and the libraries on which something was measured."""

import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from slimjax.versions import package_versions


def describe_machine() -> dict[str, Any]:
    """JAX's device, the processor and versions, as plain JSON values."""
    # Imported late: commands ask for cores and memory before they wait for it.
    import jax

    return {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "processor": processor_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "versions": package_versions(),
    }


def commit_of(folder: Path) -> str:
    """The commit of the clone that a folder is in, with `-dirty` behind it if its code has been changed since.

    What is measured by changed documents or records is the commit's own. Empty where there is no clone, or no git.
    """
    try:
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", ":/*.py", ":/requirements.lock"]
        is_dirty = subprocess.run(changed, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("-dirty" if is_dirty else "")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
