"""Names beside the points of a plot, where they cover neither points nor each other, nor lines if there is room."""

from collections.abc import Sequence

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes

from slimjax.reporting.charts import FAINT
from slimjax.reporting.runs import width_text

Point = tuple[float, float, float]
"""Cost, score and width."""

_TOUCHING = 9.0
"""Distance, points of 1/72 inch, within which points of a plot are named together."""

_PLACES_OF_A_LINE = 8
"""Between two of its points, from which names are pushed away."""

_ROOM = (1.2, 1.4)
"""Around a name, in its own widths and heights."""

_FAR = 12
"""From a name to its point, points."""

_ROUNDS = 60
"""Of pushing; as many on every machine, so that they end with the same picture."""


def name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Writes the widths of points beside them; those of points that lie on each other together, ascending.

    Args:
      axes: with all that is drawn but the names. The figure is laid out, see `charts.lay_out`.
      points: to name.
    """
    markers = axes.transData.transform([point[:2] for point in points]) * 72 / axes.figure.dpi
    names = []
    for group in _groups(markers):
        cost, score, _ = points[group[0]]
        widths = sorted({points[index][2] for index in group})
        names.append(axes.text(cost, score, ", ".join(map(width_text, widths)), fontsize="small"))
    covered = [line.get_transform().transform(line.get_path().vertices) for line in axes.lines]
    x, y = axes.transData.inverted().transform(np.concatenate([_places_along(vertices) for vertices in covered])).T
    # A name that had to go far has a line to its point.
    leader = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6}
    adjust_text(names, x, y, ax=axes, expand=_ROOM, iter_lim=_ROUNDS, min_arrow_len=_FAR, arrowprops=leader)


def _groups(markers: np.ndarray) -> list[list[int]]:
    """Indices of points [points, 2], together those that touch, by others between them too."""
    groups: list[list[int]] = []
    for index, marker in enumerate(markers):
        near = [group for group in groups if np.linalg.norm(markers[group] - marker, axis=1).min() < _TOUCHING]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([index, *(other for group in near for other in group)]))
    return groups


def _places_along(vertices: np.ndarray) -> np.ndarray:
    """Places on a line, evenly between each two of its points: [points, 2] to [places, 2]."""
    places = np.linspace(0, len(vertices) - 1, _PLACES_OF_A_LINE * (len(vertices) - 1) + 1)
    return np.stack([np.interp(places, np.arange(len(vertices)), column) for column in vertices.T], axis=1)
