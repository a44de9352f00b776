"""The C library's allocator, told to keep what XLA:CPU frees, on pages large enough for it."""

import ctypes
import mmap
import resource
from pathlib import Path

from slimjax.analysis.machine import memory_bytes

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = -1


def keep_freed_memory() -> bool:
    """Makes glibc keep large blocks in the process rather than give them back to the system and fetch them again.

    XLA:CPU allocates and frees its temporaries, hundreds of MB, in every call, and fresh memory costs page faults.
    Where the system grants huge pages on request, they are requested, since a step goes through so much memory that
    looking up pages of 4 kB takes a noticeable part of its time (docs/architecture.md). The price: the process keeps
    its peak memory, in pages of 2 MB. To be called before JAX starts.

    Returns:
      Whether the C library knows the settings; elsewhere than on glibc nothing happens.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1))
    known = all(library.mallopt(parameter, value) for parameter, value in settings)
    if known and _may_grow() and hasattr(mmap, "MADV_HUGEPAGE"):
        _grow_on_huge_pages(library)
    return known


def _may_grow() -> bool:
    """Whether addresses cost nothing here until they are used, and huge pages can be had for them."""
    try:
        huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        overcommit = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    except OSError:
        return False
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    is_unlimited = all(limit == resource.RLIM_INFINITY for limit in limits)
    return "[never]" not in huge_pages and overcommit != "2" and is_unlimited


def _grow_on_huge_pages(library: ctypes.CDLL) -> None:
    """Grows the heap by half of the machine's memory, asks for huge pages there, and frees it again.

    The heap keeps the addresses, of which only what is used later takes memory.
    """
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.restype, library.free.argtypes = None, (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = int(memory_bytes()) // 2
    if block := library.malloc(size):
        first_page = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(first_page, size - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
        library.free(block)
