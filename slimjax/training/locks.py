"""One process at a time writes checkpoints into a workdir."""

import os
from typing import IO

from slimjax.errors import UserError
from slimjax.paths import is_remote

try:
    import fcntl
except ImportError:  # Windows has none; there nothing is locked.
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"


def lock(folder: os.PathLike[str]) -> IO[str] | None:
    """Locks a folder, which is made if it is absent, until the file is closed or the process ends, however it ends.

    Returns:
      The open lock file; None where there are no locks: in buckets, on Windows and on some network file systems.

    Raises:
      UserError: if another process holds the lock.
    """
    if fcntl is None or is_remote(folder):
        return None
    os.makedirs(folder, exist_ok=True)
    file = open(os.path.join(folder, _NAME), "w")  # noqa: SIM115 the lock lasts as long as it is open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"another process writes to {folder}; wait for it, stop it, or give another folder") from None
    except OSError:
        file.close()
        return None
    return file
