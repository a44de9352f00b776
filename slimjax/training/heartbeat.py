"""A line when a step takes much longer than steps usually do, so that a person need not guess whether a run hangs."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PATIENCE = 3.0
"""Usual durations of what the loop may wait for, after which it is told."""


class Heartbeat:
    """Watches a loop from a thread of its own.

    The loop runs ahead of the device and waits for it only where metrics are fetched. So the longest that it usually
    waits is as long as all steps between two lines of metrics take, and that is the measure.
    """

    def __init__(self, say: Callable[[str], None], min_seconds: float = 10.0) -> None:
        """Watches nothing yet.

        Args:
          say: prints a line.
          min_seconds: what is shorter is never told.
        """
        self._say, self._min_seconds = say, min_seconds
        self._usual: deque[tuple[float, int]] = deque(maxlen=51)
        self._current: tuple[int, str, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self, step: int, what: str) -> None:
        """Says what the loop does now, such as `waiting for images`; cheap enough to call at every step."""
        self._current = step, what, time.monotonic()

    def pause(self) -> None:
        """Leaves what comes now, such as compiling, unwatched until the next beat."""
        self._current = None

    def steps_took(self, seconds: float, count: int) -> None:
        """Notes how long the steps between two lines of metrics took."""
        self._usual.append((seconds, count))

    def _watch(self) -> None:
        told_at = 0.0
        while not self._ended.wait(self._min_seconds / 5):
            current, usual = self._current, list(self._usual)
            if current is None or not usual:
                continue
            step, what, since = current
            waited = time.monotonic() - since
            limit = max(self._min_seconds, _PATIENCE * statistics.median(seconds for seconds, _ in usual))
            # Told again each time that the wait has doubled.
            if waited > limit and (told_at < since or waited > 2 * (told_at - since)):
                told_at = since + waited
                of_step = statistics.median(seconds / count for seconds, count in usual)
                self._say(f"step {step}: {what} for {waited:.0f} s now; a step usually takes {of_step:.2g} s")
