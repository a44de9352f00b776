"""A line when a step takes much longer than steps usually do, so that a person need not guess whether a run hangs."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

_PATIENCE = 10.0
"""Median durations of a step after which it is told."""


class _Doing(NamedTuple):
    step: int
    what: str
    step_since: float
    since: float


class Heartbeat:
    """Watches a loop from a thread of its own; what the loop says of itself costs next to nothing."""

    def __init__(self, say: Callable[[str], None], min_seconds: float = 10.0) -> None:
        """Watches nothing yet.

        Args:
          say: prints a line.
          min_seconds: what is shorter is never told.
        """
        self._say, self._min_seconds = say, min_seconds
        self._step_seconds: deque[float] = deque(maxlen=101)
        self._doing: _Doing | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self, step: int, what: str) -> None:
        """Says what the loop does now in which step, such as `waiting for images`."""
        now, before = time.monotonic(), self._doing
        if before and before.step != step:
            self._step_seconds.append(now - before.step_since)
        self._doing = _Doing(step, what, before.step_since if before and before.step == step else now, now)

    def pause(self) -> None:
        """Leaves what comes now, such as compiling, unwatched and unmeasured until the next beat."""
        self._doing = None

    def _watch(self) -> None:
        told_at = 0.0
        while not self._ended.wait(self._min_seconds / 5):
            doing, known = self._doing, list(self._step_seconds)
            if doing is None or not known:
                continue
            usual, waited = statistics.median(known), time.monotonic() - doing.since
            # Told again each time that the wait has doubled.
            if waited > max(self._min_seconds, _PATIENCE * usual) and waited > 2 * (told_at - doing.since):
                told_at = doing.since + waited
                self._say(f"step {doing.step}: {doing.what} for {waited:.0f} s now; a step usually takes {usual:.2g} s")
