"""Names beside the points of a plot, where they cover neither lines nor each other. Lengths are points, 1/72 inch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from slimjax.reporting.runs import width_text

Point = tuple[float, float, float]
"""Cost, score and width."""

_TOUCHING, _BESIDE = 6.0, 15.0
"""Distances within which points are named together: whatever their widths, and those of one width."""

_RADIUS = 3.5
"""Of a marker, with its edge."""

_GAP = 3.0
"""Between names that are told apart."""

_OFFSETS = tuple(
    (x * distance, y * distance)
    for distance in (5.0, 12.0)
    for x, y in ((1, 1), (-1, 1), (0, 1), (1, 0), (1, -1), (-1, 0), (-1, -1), (0, -1))
)
"""From a marker to the edge or corner of its name, in the order in which they are preferred."""

_SWEEPS = 3
"""Rounds in which names move in turn, each to where it is best among the others."""


class _Place(NamedTuple):
    """Beside which of its points a name is, and at which offset."""

    point: int
    offset: tuple[float, float]


class _Name:
    """What some points are called."""

    def __init__(self, axes: Axes, points: Sequence[Point], markers: np.ndarray) -> None:
        """Writes it; `markers` is where the points are [points, 2]."""
        text = ", ".join(map(width_text, sorted({width for *_, width in points})))
        self.markers, self._points = markers, points
        self.places = [_Place(*place) for place in product(range(len(points)), _OFFSETS)]
        self._annotation = axes.annotate(text, points[0][:2], (0, 0), textcoords="offset points", fontsize="small")
        self._size = np.array(self._annotation.get_window_extent().size) * _length_of_pixel(axes)
        self.move(self.places[0])

    def box_at(self, place: _Place) -> Bbox:
        """What it covers at a place: it is written away from its point."""
        corner = self.markers[place.point] + place.offset + (np.sign(place.offset) - 1) / 2 * self._size
        return Bbox([corner, corner + self._size])

    def move(self, place: _Place) -> None:
        """Moves it to a place."""
        x, y = map(int, np.sign(place.offset))
        written: dict[str, Any] = {"ha": ("center", "left", "right")[x], "va": ("center", "bottom", "top")[y]}
        self._annotation.xy = self._points[place.point][:2]
        self._annotation.set(position=place.offset, **written)
        self.box = self.box_at(place)


@dataclass(frozen=True)
class _Plot:
    """What names may cover.

    Attributes:
      area: within the axes.
      markers: of all points [points, 2].
      lines: of all that is drawn.
    """

    area: Bbox
    markers: np.ndarray
    lines: Sequence[Path]

    def cost(self, name: _Name, place: _Place, others: Sequence[Bbox]) -> float:
        """How bad a place of a name is, beside the other names: what it covers counts most, what is preferred least."""
        box = name.box_at(place)
        middle = np.mean([box.min, box.max], axis=0)
        overlaps = sum(box.padded(_GAP).overlaps(other) for other in others)
        is_outside = not (self.area.contains(*box.min) and self.area.contains(*box.max))
        covers = sum(box.padded(_RADIUS).contains(*marker) for marker in self.markers)
        crosses = sum(line.intersects_bbox(box, filled=False) for line in self.lines)
        is_anothers = _distances(self.markers, middle).min() < _distances(name.markers, middle).min() - _TOUCHING
        bad = 100 * overlaps + 60 * is_outside + 40 * covers + 20 * crosses + 10 * is_anothers
        return float(bad + 0.3 * _OFFSETS.index(place.offset) + 0.1 * place.point)


def name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Writes the widths of points beside them; those of points that lie on each other together, ascending.

    Args:
      axes: with all that is drawn but the names. The figure is laid out, see `lay_out`.
      points: to name.
    """
    unit = _length_of_pixel(axes)
    markers = axes.transData.transform([point[:2] for point in points]) * unit
    lines = [line for line in axes.lines if len(line.get_path()) > 1]
    paths = [Path(line.get_transform().transform(line.get_path().vertices) * unit) for line in lines]
    plot = _Plot(Bbox(axes.bbox.get_points() * unit), markers, paths)
    names = [_Name(axes, [points[index] for index in group], markers[group]) for group in _groups(points, markers)]
    for _ in range(_SWEEPS):
        for name in names:
            others = [other.box for other in names if other is not name]
            costs = [plot.cost(name, place, others) for place in name.places]
            name.move(name.places[int(np.argmin(costs))])


def _groups(points: Sequence[Point], markers: np.ndarray) -> list[list[int]]:
    """Indices of points, together those that are named together, by others between them too."""
    groups: list[list[int]] = []
    for index, (*_, width) in enumerate(points):
        reaches = [_BESIDE if other == width else _TOUCHING for *_, other in points]
        is_near = _distances(markers, markers[index]) < reaches
        joined = [group for group in groups if is_near[group].any()]
        groups = [group for group in groups if group not in joined]
        groups.append([*(other for group in joined for other in group), index])
    return groups


def _distances(markers: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.linalg.norm(markers - place, axis=1)


def _length_of_pixel(axes: Axes) -> float:
    return 72 / axes.figure.dpi
