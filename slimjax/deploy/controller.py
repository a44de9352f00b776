"""Which width to run within a latency budget, from what the device was measured to take and what it is seen to take."""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

PATIENCE = 8
"""Calls for which a slow one is remembered, at first."""
LONGEST_PATIENCE = 128

_KEPT = 1000


@dataclass(frozen=True)
class Decision:
    """One call that had a budget.

    Attributes:
      width: that ran.
      budget_ms: of the call, or what was left of it when it began; not positive if nothing was.
      expected_ms: what it was going to take by then.
      latency_ms: what it took.
    """

    width: float
    budget_ms: float
    expected_ms: float
    latency_ms: float

    @property
    def overran(self) -> bool:
        """Whether it took longer than its budget."""
        return self.latency_ms > self.budget_ms


@dataclass(frozen=True)
class ControllerReport:
    """What a controller has done.

    Attributes:
      calls: with a budget, by width.
      overruns: calls that took longer than their budgets.
      narrowed: calls that ran narrower than they would have before the slowdown last changed; budgets of different
        calls may differ, and ask for different widths without anything being slower.
      widened: calls that ran wider.
      slowdown: latency now over the latency that was measured.
      recent: the latest decisions, oldest first.
    """

    calls: dict[float, int]
    overruns: int
    narrowed: int
    widened: int
    slowdown: float
    recent: tuple[Decision, ...]


class WidthController:
    """Takes the widest width that fits into the budget of each call.

    What a width is going to take is what it was measured to take, times a slowdown that all widths share: a processor
    that is busy or hot slows them alike. The slowdown is the largest of the latest calls', so that one slow call
    narrows the very next one, and only as many calm ones in a row widen again. Where widening is answered by an
    overrun, twice as many calls are remembered from then on, up to LONGEST_PATIENCE; after four times as many calls
    without one, half as many.
    Threads may share a controller.
    """

    def __init__(self, measured_ms: Mapping[float, float]) -> None:
        """Begins with nothing seen.

        Args:
          measured_ms: of one call of each width, on this device.
        """
        self._lock = threading.Lock()
        self._measured_ms = dict(sorted(measured_ms.items()))
        # As if it had been as fast as measured so far: one fast call is no reason to run wider.
        self._slowdowns: deque[float] = deque([1.0] * PATIENCE, maxlen=LONGEST_PATIENCE)
        self._patience, self._since_overrun = PATIENCE, 0
        self._widened_ago = LONGEST_PATIENCE
        self._slowdown_of_last_call = 1.0
        self._calls: Counter[float] = Counter()
        self._overruns = self._narrowed = self._widened = 0
        self._recent: deque[Decision] = deque(maxlen=_KEPT)

    def choose(self, budget_ms: float) -> float:
        """The widest width expected to take no longer than the budget; the narrowest, if none is."""
        with self._lock:
            return self._widest(budget_ms, self._slowdown)

    def observe(self, width: float, budget_ms: float, latency_ms: float) -> None:
        """Takes note of what a call has taken.

        Args:
          width: that ran.
          budget_ms: of the call.
          latency_ms: that it took.
        """
        with self._lock:
            slowdown = self._slowdown
            decision = Decision(width, budget_ms, self._measured_ms[width] * slowdown, latency_ms)
            before = self._widest(budget_ms, self._slowdown_of_last_call)
            self._slowdown_of_last_call = slowdown
            self._slowdowns.append(latency_ms / self._measured_ms[width])
            self._calls[width] += 1
            self._recent.append(decision)
            self._narrowed += width < before
            self._widened += width > before
            self._widened_ago = 0 if width > before else self._widened_ago + 1
            self._adapt_patience(decision.overran)

    def _adapt_patience(self, overran: bool) -> None:
        self._since_overrun = 0 if overran else self._since_overrun + 1
        if overran:
            self._overruns += 1
            if self._widened_ago < self._patience:
                self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        elif self._since_overrun >= 4 * self._patience and self._patience > PATIENCE:
            self._patience, self._since_overrun = self._patience // 2, 0

    def _widest(self, budget_ms: float, slowdown: float) -> float:
        fitting = [width for width, measured in self._measured_ms.items() if measured * slowdown <= budget_ms]
        return max(fitting, default=min(self._measured_ms))

    @property
    def _slowdown(self) -> float:
        return max(list(self._slowdowns)[-self._patience :])

    def report(self) -> ControllerReport:
        """What has been done so far."""
        with self._lock:
            return ControllerReport(
                calls={width: self._calls[width] for width in self._measured_ms},
                overruns=self._overruns,
                narrowed=self._narrowed,
                widened=self._widened,
                slowdown=self._slowdown,
                recent=tuple(self._recent),
            )
