"""Keeps from users what native libraries print, past Python, to the file descriptors of stdout and stderr.

While a function here holds them back, all threads of the process are held back too; none may run for long.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import IO

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def _written_to(held: IO[bytes], *descriptors: int) -> Iterator[None]:
    """Sends what is written to file descriptors to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    real = {descriptor: os.dup(descriptor) for descriptor in descriptors}
    for descriptor in descriptors:
        os.dup2(held.fileno(), descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in real.items():
            os.dup2(copy, descriptor)
            os.close(copy)


@contextlib.contextmanager
def without_lines(*chatter: bytes) -> Iterator[None]:
    """Holds back stderr, and afterwards lets through every line that has none of `chatter` in it."""
    with tempfile.TemporaryFile() as held:
        try:
            with _written_to(held, _STDERR):
                yield
        finally:
            held.seek(0)
            for line in held:
                if not any(known in line for known in chatter):
                    os.write(_STDERR, line)


@contextlib.contextmanager
def silence_unless_failing() -> Iterator[None]:
    """Holds back stdout and stderr for good, unless an exception is raised: then all of it goes to stderr.

    Python's own streams are held back too, which in a notebook are no file descriptors.
    """
    with tempfile.TemporaryFile() as held, open(held.fileno(), "w", buffering=1, closefd=False) as text:
        try:
            with _written_to(held, _STDOUT, _STDERR), redirect_stdout(text), redirect_stderr(text):
                yield
        except BaseException:
            held.seek(0)
            os.write(_STDERR, held.read())
            raise
