"""The C library's allocator, told to keep what XLA:CPU frees."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST = 2**30


def keep_freed_memory() -> bool:
    """Makes glibc keep large blocks in the process rather than give them back to the system and fetch them again.

    XLA:CPU allocates and frees its temporaries, hundreds of MB, in every call, and fresh memory costs page
    faults. The price: the process keeps its peak memory. To be called before JAX starts.

    Returns:
      Whether the C library knows the setting; elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST - 1), (_M_TRIM_THRESHOLD, 2 * _LARGEST - 1), (_M_ARENA_MAX, 1))
    return all(mallopt(parameter, value) for parameter, value in settings)
