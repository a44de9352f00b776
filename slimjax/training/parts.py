"""Which variables the widths of a network share, and which are one width's own, such as its batch norms."""

from collections.abc import Mapping
from typing import Any

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import Path, trace_layers

Flat = dict[Path, Any]
"""Arrays of a tree by their paths."""


class Parts:
    """Takes trees of variables apart by the widths that read them.

    A program for one width takes in and hands out what it shares and its own. All arrays of the network would do as
    well, but each costs time when a program starts and when it ends, and most of them are other widths' batch norms.
    """

    def __init__(self, model: SlimmableNetwork) -> None:
        """Follows every width of a network once."""
        readers: dict[Path, set[float]] = {}
        for width in model.widths:
            for layer in trace_layers(model, width):
                for variable in layer.variables:
                    readers.setdefault((*layer.path, *variable.path), set()).add(width)
        self._owners = {path: widths.pop() for path, widths in readers.items() if len(widths) == 1 < len(model.widths)}

    def only(self, owner: float | None, arrays: Mapping[Path, Any]) -> Flat:
        """The arrays that only a width reads; those that several read for None."""
        return {path: array for path, array in arrays.items() if self._owners.get(path) == owner}

    def read_by(self, width: float, arrays: Mapping[Path, Any], own_only: bool = False) -> Flat:
        """The arrays that a width may read: its own and, unless `own_only`, the shared ones."""
        own = self.only(width, arrays)
        return own if own_only else self.only(None, arrays) | own
