"""The allocator's settings, in a process of their own: they cannot be taken back."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource
import numpy as np
from slimjax.allocator import keep_freed_memory

assert keep_freed_memory()
page_faults = []
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = np.ones(2**25, np.float32)
    page_faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    huge_kb = sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("AnonHugePages"))
    del array
print(*page_faults, huge_kb)
"""


@pytest.fixture(scope="module")
def figures():
    """Page faults of touching 128 MiB of fresh and of kept memory, and how much of it was on huge pages, kB."""
    if sys.platform != "linux":
        pytest.skip("glibc's settings are Linux's")
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return tuple(map(int, run.stdout.split()))


def test_memory_that_was_freed_is_there_again(figures):
    fresh, kept, _ = figures
    assert kept < max(fresh, 1000) / 10


def test_large_arrays_are_on_huge_pages(figures):
    granted = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not granted.exists() or "[never]" in granted.read_text():
        pytest.skip("this system grants no huge pages")
    fresh, _, huge_kb = figures
    assert huge_kb > 100 * 1024
    # 32,768 pages of 4 kB, or 64 of 2 MB.
    assert fresh < 5000
