"""What the raw results say of each claim, as numbers: errors over seeds and paired differences."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cells import FAMILIES, SLIMMABLE, individual
from raw_results import Result

ERROR = "top1_error"
V1 = "mobilenet_v1"
"""The family of all comparisons but table 3."""

# Top-1 error on ImageNet, %, narrowest first (SNet, table 3).
PUBLISHED_INDIVIDUAL = {
    "mobilenet_v1": (50.2, 36.7, 31.6, 29.1),
    "mobilenet_v2": (39.7, 34.6, 30.2, 28.2),
    "shufflenet": (43.2, 32.6, 26.3),
    "resnet": (36.2, 28.0, 25.3, 23.9),
}
PUBLISHED_SLIMMABLE = {
    "mobilenet_v1": (46.9, 35.2, 30.5, 28.5),
    "mobilenet_v2": (40.3, 35.6, 31.1, 29.5),
    "shufflenet": (42.7, 34.5, 28.7),
    "resnet": (35.0, 27.9, 25.1, 24.0),
}


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
      values: by seed; empty where nothing has run.
    """

    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Of the values; there has to be one."""
        return statistics.mean(self.values.values())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1 below the sum); None for fewer than two seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def less(self, other: "Spread") -> "Spread":
        """The differences between runs of the same seed, for the seeds that both have."""
        both = self.values.keys() & other.values.keys()
        return Spread({seed: self.values[seed] - other.values[seed] for seed in sorted(both)})


class Errors:
    """Top-1 errors of a file of results, %."""

    def __init__(self, results: Iterable[Result]) -> None:
        """Takes the results of one data set and scale."""
        self._results: dict[tuple[str, str], list[Result]] = {}
        for result in results:
            self._results.setdefault((result["family"], result["method"]), []).append(result)

    def of_runs(self, family: str, method: str) -> Sequence[Result]:
        """The runs of a method, as many as have been finished."""
        return self._results.get((family, method), [])

    def widths(self, family: str, method: str) -> tuple[float, ...]:
        """Those that a method's runs have; none if there is no run."""
        return tuple(float(key) for result in self.of_runs(family, method)[:1] for key in result["figures"])

    def at(self, family: str, method: str, width: float, figures: str = "figures") -> Spread:
        """The final validation error at a width; `figures` may be `calibrated`."""
        key = f"{width:g}"
        runs = [result for result in self.of_runs(family, method) if key in (result[figures] or {})]
        return Spread({result["seed"]: result[figures][key][ERROR] for result in runs})

    def in_training(self, family: str, method: str, width: float) -> Spread:
        """The last training error at a width, the mean over the steps since the point before."""
        key = f"{width:g}"
        last: dict[int, float] = {}
        for result in self.of_runs(family, method):
            points = [point[ERROR][key] for point in result["curves"]["train"] if key in point[ERROR]]
            last |= {result["seed"]: points[-1]} if points else {}
        return Spread(last)


@dataclass(frozen=True)
class Comparison:
    """One width of two methods.

    Attributes:
      width: of both.
      reference: errors of the one, %.
      other: errors of the other, %.
    """

    width: float
    reference: Spread
    other: Spread

    @property
    def difference(self) -> Spread:
        """Other less reference, seed by seed, percentage points: negative where the other is better."""
        return self.other.less(self.reference)

    @property
    def better_in(self) -> int:
        """Seeds in which the other has the smaller error."""
        return sum(value < 0 for value in self.difference.values.values())


def compare_individual(
    errors: Errors, family: str, recipe: Callable[[str], str] = lambda method: method
) -> list[Comparison]:
    """Table 3: for each width the individual networks, and the slimmable ones.

    Args:
      errors: of all runs.
      family: of the networks.
      recipe: from a method of table 3 to the one with the recipe to compare at; by default itself.
    """
    slimmable = recipe(SLIMMABLE)
    return [
        Comparison(w, errors.at(family, recipe(individual(w)), w), errors.at(family, slimmable, w))
        for w in FAMILIES[family].widths
    ]


def compare_methods(errors: Errors, family: str, reference: str, other: str) -> list[Comparison]:
    """Two methods at the widths that both have."""
    shared = [width for width in errors.widths(family, reference) if width in errors.widths(family, other)]
    return [Comparison(w, errors.at(family, reference, w), errors.at(family, other, w)) for w in shared]
