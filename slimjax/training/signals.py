"""Interruptions: finish the step, save, leave."""

import signal
from types import FrameType, TracebackType
from typing import Self


class StopSignals:
    """Notes SIGTERM and SIGINT instead of dying of them, so that the loop can save first.

    A second SIGINT ends the program at once.

    Attributes:
      received: the signal that came, or None.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which is how machines are taken back in good order; 130 after Ctrl-C, as shells expect."""
        return 130 if self.received == signal.SIGINT else 0
