"""By what a call of a bundle says which width it can afford."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from slimjax.deploy.bundle import Manifest
from slimjax.errors import UserError


@dataclass(frozen=True)
class Criteria:
    """At most one criterion for the width of a call; `SlimmableRuntime.predict` says what each is."""

    width: float | None = None
    budget_ms: float | None = None
    max_macs: float | None = None
    max_top1_error: float | None = None
    costs: Mapping[float, float] | None = None
    max_cost: float | None = None

    def check(self) -> None:
        """UserError if a limit is no number, several criteria are given, or half of one."""
        for name in ("budget_ms", "max_macs", "max_top1_error", "max_cost"):
            limit = getattr(self, name)
            if limit is not None and not _is_amount(limit):
                raise UserError(f"{name}={limit!r} has to be a number that is not negative")
        if self.width is not None and not isinstance(self.width, Real):
            raise UserError(f"width={self.width!r} has to be a number, one of this bundle's widths")
        if self.costs is not None and not _is_table(self.costs):
            raise UserError(f"costs={self.costs!r} has to be a table of costs by width, such as {{0.5: 1.2, 1.0: 3.4}}")
        if (self.costs is None) != (self.max_cost is None):
            raise UserError("costs and max_cost go together: a table of costs by width, and the most to spend")
        if len(given := self._given()) > 1:
            raise UserError(f"{' and '.join(given)} are given; a width is chosen by one of them")

    def choose(self, manifest: Manifest) -> float:
        """The width of a bundle that the criterion leads to, the widest without one; budgets are the controller's.

        Raises:
          UserError: if the bundle does not have the width, or none that meets the criterion.
        """
        widths = [entry.width for entry in manifest.widths]
        if not (given := self._given()):
            return widths[-1]
        (name,) = given
        limit = getattr(self, name)
        if name == "width":
            if limit not in widths:
                raise UserError(f"width={limit} is not one of this bundle's widths {tuple(widths)}")
            return float(limit)
        values = self._values(name, manifest)
        fitting = [width for width, value in values.items() if value <= limit]
        if not fitting:
            known = ", ".join(f"{value:g} at {width:g}" for width, value in values.items()) or "nothing of any width"
            raise UserError(f"{name}={limit:g} is met by no width; known: {known}")
        return min(fitting) if name == "max_top1_error" else max(fitting)

    def _given(self) -> list[str]:
        return [name for name, value in vars(self).items() if value is not None and name != "costs"]

    def _values(self, name: str, manifest: Manifest) -> dict[float, float]:
        """What a criterion limits, of every width of which it is known."""
        if name == "max_cost":
            costs = self.costs or {}
            return {entry.width: costs[entry.width] for entry in manifest.widths if entry.width in costs}
        if name == "max_macs":
            return {entry.width: entry.macs for entry in manifest.widths}
        known = (entry for entry in manifest.widths if "top1_error" in entry.figures)
        return {entry.width: entry.figures["top1_error"] for entry in known}


def _is_amount(value: object) -> bool:
    return isinstance(value, Real) and float(value) >= 0


def _is_table(costs: object) -> bool:
    return isinstance(costs, Mapping) and all(isinstance(w, Real) and _is_amount(cost) for w, cost in costs.items())
