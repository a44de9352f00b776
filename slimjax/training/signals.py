"""Interruptions: finish the step, save, leave."""

import _thread
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import jax
from jax.experimental import multihost_utils

from slimjax.errors import INTERRUPTED


class StopSignals:
    """Notes SIGTERM and SIGINT instead of dying of them, so that the loop can save first.

    A second SIGINT ends the program at once, without waiting for anything. Where there are several processes, a signal
    to one of them stops all at the same step: JAX passes the SIGTERM of one on to the others, so that is left to JAX,
    and SIGINT becomes one.

    Attributes:
      received: the signal that came to this process, or None.
    """

    received: signal.Signals | None = None

    def __init__(self, say: Callable[[str], None]) -> None:
        """Nothing has come yet; `say` shows a line, and is called by another thread."""
        self._say = say

    def __enter__(self) -> Self:
        self._is_alone = jax.process_count() == 1
        numbers = (signal.SIGTERM, signal.SIGINT) if self._is_alone else (signal.SIGINT,)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stopped_by(self, step: int) -> signal.Signals | None:
        """The signal for which this step is to be the last one, or None; to be asked in every step by every process."""
        if self._is_alone:
            return self.received
        if multihost_utils.reached_preemption_sync_point(step):
            return self.received or signal.SIGTERM
        return None

    @property
    def received_alone(self) -> signal.Signals | None:
        """The signal, where this process may stop by itself, because it is the only one."""
        return self.received if self._is_alone else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        if number != signal.SIGINT:
            self._tell(f"{self.received.name}: saving after this step")
            return
        signal.signal(signal.SIGINT, _end)
        self._tell("SIGINT: saving after this step; once more to end at once, without saving")
        if not self._is_alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def _tell(self, line: str) -> None:
        # What this thread was writing when the signal came may hold the locks that writing needs, and what is written
        # past them, the bars overwrite.
        _thread.start_new_thread(self._say, (line,))

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which is how machines are taken back in good order; 130 after Ctrl-C, as shells expect."""
        return INTERRUPTED if self.received == signal.SIGINT else 0


def _end(number: int, frame: FrameType | None) -> None:
    """Leaves at once: an exception would wait for threads that compile or write. What is saved is whole, always."""
    del number, frame
    if sys.stderr.isatty():
        # The cursor, which the bars hide. Python's own buffers may be in use.
        os.write(sys.stderr.fileno(), b"\n\x1b[?25h\n")
    os._exit(INTERRUPTED)
