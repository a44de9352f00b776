"""Which variables the widths of a network share, and which are one width's own, such as its batch norms."""

from collections.abc import Mapping
from typing import Any

import jax

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.tracing import Path, variables_read

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
            for path, _ in variables_read(model, width):
                readers.setdefault(path, set()).add(width)
        self._own: dict[float, list[Path]] = {width: [] for width in model.widths}
        for path, widths in readers.items():
            if len(widths) == 1 < len(model.widths):
                self._own[widths.pop()].append(path)
        self._owned = {path for paths in self._own.values() for path in paths}
        self._paths: dict[Any, list[Path]] = {}

    def flatten(self, tree: Any) -> Flat:
        """The arrays of a tree by their paths; quicker than `flatten_dict` once its structure is known."""
        leaves, structure = jax.tree.flatten(tree)
        if structure not in self._paths:
            self._paths[structure] = list(map(_keys, jax.tree.leaves_with_path(tree)))
        return dict(zip(self._paths[structure], leaves, strict=True))

    def only(self, owner: float | None, arrays: Mapping[Path, Any]) -> Flat:
        """The arrays that only a width reads; those that several read for None."""
        if owner is None:
            return {path: array for path, array in arrays.items() if path not in self._owned}
        return {path: arrays[path] for path in self._own[owner] if path in arrays}

    def read_by(self, width: float, arrays: Mapping[Path, Any], own_only: bool = False) -> Flat:
        """The arrays that a width may read: its own and, unless `own_only`, the shared ones."""
        own = self.only(width, arrays)
        return own if own_only else self.only(None, arrays) | own


def _keys(path_and_leaf: tuple[Any, Any]) -> Path:
    return tuple(key.key for key in path_and_leaf[0])
