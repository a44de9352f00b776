"""The C library's allocator, told to keep what XLA:CPU frees, on pages large enough for it."""

import ctypes
import mmap
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_NEVER, _LARGEST = -1, 2**30 - 1
_MADV_HUGEPAGE = 14
_PIECE_BYTES = 2**29


def keep_freed_memory() -> bool:
    """Makes glibc keep large blocks in the process rather than give them back to the system and fetch them again.

    XLA:CPU allocates and frees its temporaries, hundreds of MB, in every call, and fresh memory costs page faults. The
    price: the process keeps its peak memory. Where the system grants huge pages on request, they are requested: with
    pages of 4 kB, a sixth of a step's time goes into looking them up. To be called before JAX starts.

    Returns:
      Whether the C library knows the settings; elsewhere than on glibc nothing happens.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1))
    known = all(library.mallopt(parameter, value) for parameter, value in settings)
    if known and hasattr(library, "madvise"):
        _reserve_huge_pages(library)
    return known


def _reserve_huge_pages(library: ctypes.CDLL) -> None:
    """Grows the heap by half of the machine's memory, asks for huge pages there, and frees it again.

    The heap keeps the addresses, of which only what is used later takes memory. Where the system grants less, such as
    under a limit of the address space, less is reserved.
    """
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.restype, library.free.argtypes = None, (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    pieces = []
    for _ in range(memory_bytes // 2 // _PIECE_BYTES):
        if not (piece := library.malloc(_PIECE_BYTES)):
            break
        pieces.append(piece)
        first_page = -(-piece // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(first_page, _PIECE_BYTES - mmap.PAGESIZE, _MADV_HUGEPAGE)
    for piece in pieces:
        library.free(piece)
