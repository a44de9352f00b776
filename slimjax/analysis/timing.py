"""Times calls in turns; knows nothing of networks, so that devices that only run a bundle can measure it alike."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

WARM_UP_CALLS = 3

Key = TypeVar("Key", bound=Hashable)

Track = Callable[..., Iterable[Any]]
"""Passes items on while it shows how many are through, as `Progress.track` does: the items, what they are, how many,
and a function that says what they have come to so far, which is asked now and then."""


def untracked(items: Iterable[Any], what: str, total: int, figures: Callable[[], str] = str) -> Iterable[Any]:
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

    def medians() -> str:
        return "ms: " + "  ".join(f"{_label(key)}: {np.median(times):.3g}" for key, times in times_ms.items())

    for _ in track(range(repeats), "timing", repeats, medians):
        for key, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times_ms[key].append((time.perf_counter() - began) * 1e3)
    return {key: _summary(times) for key, times in times_ms.items()}


def _label(key: Hashable) -> str:
    """Such as `0.25` of a width, and `digits 0.25` of a run's."""
    parts = key if isinstance(key, tuple) else (key,)
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)


def _summary(times_ms: list[float]) -> Latency:
    median, p95 = np.percentile(times_ms, (50, 95))
    return Latency(float(median), float(p95))
