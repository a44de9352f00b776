"""The allocator's settings, in processes of their own: they cannot be taken back."""

import subprocess
import sys
from pathlib import Path

import pytest

# Through the C library, since NumPy asks for huge pages by itself.
PROGRAM = """
import ctypes, resource, sys
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
library.free.argtypes = (ctypes.c_void_p,)
library.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
if sys.argv[1] == "kept":
    from slimjax.allocator import keep_freed_memory
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(2**27)
    library.memset(block, 1, 2**27)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    library.free(block)
"""
LIMITED = """
import mmap, resource, threading
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
from slimjax.allocator import keep_freed_memory
assert keep_freed_memory()
done = threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(50)]
for thread in threads:
    thread.start()
mmap.mmap(-1, 2**29)
done.set()
"""
FRAGMENTS = """
import ctypes
from slimjax import allocator
assert allocator.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
library.free.argtypes = (ctypes.c_void_p,)
library.mallinfo2.restype = allocator._Usage
def between():
    usage = library.mallinfo2()
    return usage.fordblks - usage.keepcost
for _ in range(2):
    with allocator.compiling():
        pieces = [library.malloc(100_000) for _ in range(2000)]
        for piece in pieces[::2]:
            library.free(piece)
        print(between())
    print(between(), all(library.malloc(90_000) > max(pieces) for _ in range(500)))
    for piece in pieces[1::2]:
        library.free(piece)
"""
SMALL_PAGES = 2**27 // 2**12

if sys.platform != "linux":
    pytest.skip("glibc's settings are Linux's", allow_module_level=True)


@pytest.fixture(scope="module")
def page_faults():
    """Of writing to 128 MiB that were never used and to 128 MiB that were freed, with the settings and without."""

    def count(which):
        command = [sys.executable, "-c", PROGRAM, which]
        return tuple(map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))

    return {which: count(which) for which in ("kept", "plain")}


def test_memory_that_was_freed_is_there_again(page_faults):
    assert page_faults["plain"][1] > SMALL_PAGES / 2
    assert page_faults["kept"][1] < 100


def test_the_heap_is_on_huge_pages(page_faults):
    granted = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not granted.exists() or "[madvise]" not in granted.read_text():
        pytest.skip("this system does not grant huge pages to those who ask, and to no others")
    assert page_faults["plain"][0] > SMALL_PAGES / 2
    assert page_faults["kept"][0] < SMALL_PAGES / 20


def test_a_limit_of_the_address_space_is_left_to_the_process():
    subprocess.run([sys.executable, "-c", LIMITED], check=True)


def test_what_compiling_leaves_in_fragments_is_set_aside_and_given_back():
    """A hundred megabytes in a thousand pieces are free while something compiles; afterwards nothing is put there."""
    output = subprocess.run([sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True).stdout
    for meanwhile, afterwards in zip(*[iter(output.splitlines())] * 2, strict=True):
        assert int(meanwhile) > 95e6
        left, is_beyond = afterwards.split()
        assert int(left) < 5e6
        assert is_beyond == "True"
