"""Which part of a stored array a width takes."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import lax


@dataclass(frozen=True)
class LeadingChannels:
    """The leading channels along an array's last axes.

    Attributes:
      counts: channels along each of the last axes, in their order; of the axes before them all is taken. None at all
        takes the whole array.
      groups: of the last axis; of each the leading `counts[-1] / groups` are taken.
    """

    counts: tuple[int, ...] = ()
    groups: int = 1

    def __post_init__(self) -> None:
        """ValueError if the last count is no multiple of the groups."""
        if self.groups > 1 and (not self.counts or self.counts[-1] % self.groups):
            raise ValueError(f"counts={self.counts} have to end with a multiple of groups={self.groups}")

    def __call__(self, stored: Any) -> Any:
        """Takes the part [..., *counts] out of a stored array [..., *whole counts], NumPy's or JAX's."""
        return self._joined(self._grouped(stored)[self._slices])

    def replace(self, stored: jax.Array, part: jax.Array) -> jax.Array:
        """The stored array with another part in the place of its own.

        Args:
          stored: [..., *whole counts]; where nothing else reads it, XLA writes the part alone into its memory.
          part: [..., *counts].

        Returns:
          An array of the shape of `stored`.
        """
        grouped = self._grouped(stored)
        return self._joined(lax.dynamic_update_slice(grouped, self._grouped(part), (0,) * grouped.ndim))

    def add(self, stored: jax.Array, part: jax.Array) -> jax.Array:
        """The stored array with something added to its part; see `replace`."""
        return self.replace(stored, self(stored) + part)

    @property
    def _slices(self) -> tuple[Any, ...]:
        if not self.counts:
            return (...,)
        *inner, last = self.counts
        of_last = [last] if self.groups == 1 else [None, last // self.groups]
        return (..., *map(slice, [*inner, *of_last]))

    def _grouped(self, array: Any) -> Any:
        return array if self.groups == 1 else array.reshape(*array.shape[:-1], self.groups, -1)

    def _joined(self, array: Any) -> Any:
        return array if self.groups == 1 else array.reshape(*array.shape[:-2], -1)
