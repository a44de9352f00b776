"""The C library's allocator, told to keep what XLA:CPU frees, on pages large enough for it."""

import ctypes
import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slimjax.analysis.machine import memory_bytes

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = -1
_FRAGMENTS = tuple(2**power for power in range(26, 10, -1))
"""Bytes of the pieces in which free memory between used is set aside, the largest first."""

_set_aside: list[int] | None = None
"""Addresses of such pieces; None until the allocator is told to keep memory."""


class _Usage(ctypes.Structure):
    """glibc's `mallinfo2`: of the bytes that are free, `fordblks`, `keepcost` are at the end of the heap."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


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
    if known and hasattr(library, "mallinfo2"):
        global _set_aside
        _set_aside = _set_aside or []
    return known


@contextmanager
def compiling() -> Iterator[None]:
    """What is compiled meanwhile leaves the heap in fragments; afterwards they are set aside, until something compiles.

    XLA leaves some hundred thousand free pieces between used ones. glibc, asked for memory of about their size, looks
    through many of them, under a lock, and XLA:CPU's threads ask for some in every operation: they spent a fifth of
    their time there, and waited for each other for longer. Nothing happens unless `keep_freed_memory` was called.
    """
    if _set_aside is None:
        yield
        return
    library = ctypes.CDLL(None)
    library.free.restype, library.free.argtypes = None, (ctypes.c_void_p,)
    # Another thread may give them back at the same time.
    with suppress(IndexError):
        while True:
            library.free(_set_aside.pop())
    try:
        yield
    finally:
        _set_aside.extend(_free_fragments(library))


def _free_fragments(library: ctypes.CDLL) -> Iterator[int]:
    """Takes the free memory between used, in pieces, and leaves what is free at the end of the heap."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.sbrk.restype, library.sbrk.argtypes = ctypes.c_size_t, (ctypes.c_ssize_t,)
    library.mallinfo2.restype = _Usage
    usage = library.mallinfo2()
    between, end = usage.fordblks - usage.keepcost, library.sbrk(0) - usage.keepcost
    for size in _FRAGMENTS:
        # The smallest piece that is large enough is taken, so that of the end comes last.
        while between > 0 and (piece := library.malloc(size)) and piece < end:
            between -= size
            yield piece
        if between > 0 and piece:
            library.free(piece)


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
