"""Interruptions: finish the step, save, leave."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Notes SIGTERM and SIGINT instead of dying of them, so that the loop can save first.

    A second SIGINT ends the program at once. Where there are several processes, a signal to one of them stops all at
    the same step: JAX passes the SIGTERM of one on to the others, so that is left to JAX, and SIGINT becomes one.

    Attributes:
      received: the signal that came to this process, or None.
    """

    received: signal.Signals | None = None

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

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not self._is_alone:
                os.kill(os.getpid(), signal.SIGTERM)

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which is how machines are taken back in good order; 130 after Ctrl-C, as shells expect."""
        return 130 if self.received == signal.SIGINT else 0
