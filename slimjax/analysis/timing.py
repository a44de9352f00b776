"""Times calls in turns; knows nothing of networks, so that devices that only run a bundle can measure it alike."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

WARM_UP_CALLS = 3

Key = TypeVar("Key", bound=Hashable)

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Passes items on while it shows how many are through: the items, what they are, and their number."""


def untracked(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """A Track that shows nothing."""
    return items


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call, over the repeats.

    Attributes:
      median_ms: the median.
      p95_ms: the 95th percentile.
    """

    median_ms: float
    p95_ms: float


def time_in_turns(calls: Mapping[Key, Callable[[], Any]], repeats: int, track: Track = untracked) -> dict[Key, Latency]:
    """Times calls round by round, each once a round, until what it returns is computed; warms each up before."""
    for call in calls.values():
        for _ in range(WARM_UP_CALLS):
            jax.block_until_ready(call())
    times_ms: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in track(range(repeats), "timing", repeats):
        for key, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times_ms[key].append((time.perf_counter() - began) * 1e3)
    return {key: _summary(times) for key, times in times_ms.items()}


def _summary(times_ms: list[float]) -> Latency:
    median, p95 = np.percentile(times_ms, (50, 95))
    return Latency(float(median), float(p95))
