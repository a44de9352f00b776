"""Which classes the narrow widths lose, and to which others."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from slimjax.reporting.charts import draw, paint_cells, paint_ranges
from slimjax.reporting.parts import DataTable, Heading, Part, Picture, Pictures, Section, Text
from slimjax.reporting.runs import MeasuredClassifier, detailed, slug, width_text

_MOST_CLASSES = 20
"""Rows of the plot of errors by class."""

_MOST_CELLS = 12
"""Classes up to which a whole matrix can be read on a phone."""

_MOST_PAIRS = 8


_MATRICES = (
    " A matrix counts how many more (+) or fewer (-) images a width puts into a cell than the widest does: on the "
    "diagonal, where images are right, more is better, elsewhere fewer. What is worse is orange, what is better blue."
)


def confusion_section(measured: Sequence[MeasuredClassifier]) -> Section:
    """Errors by class and width, and the confusions that narrower widths add to the widest's."""
    parts: list[Part] = []
    for of_run in detailed(measured):
        parts.append(Heading(of_run.name))
        parts += _of_run(of_run) if of_run.run.is_slimmable else [Text(f"Left out: {of_run.name} has one width only.")]
    return Section("confusion", "What narrow widths lose", parts)


def confusion(measured: MeasuredClassifier, width: float) -> np.ndarray:
    """Images by class and by prediction at a width: [classes, classes] int."""
    classes = measured.run.model.num_classes
    flat = measured.labels.astype(np.int64) * classes + measured.outcomes[width].predictions
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def class_errors(measured: MeasuredClassifier, width: float) -> np.ndarray:
    """Error of each class at a width, percent: [classes]; NaN where the split has no image of it."""
    classes = measured.run.model.num_classes
    counts = np.bincount(measured.labels, minlength=classes)
    wrong = np.bincount(measured.labels, ~measured.outcomes[width].is_right, minlength=classes)
    return np.where(counts > 0, 100.0 * wrong / np.maximum(counts, 1), np.nan)


def _of_run(measured: MeasuredClassifier) -> list[Part]:
    narrowest, widest = measured.widths[0], measured.widths[-1]
    lost = class_errors(measured, narrowest) - class_errors(measured, widest)
    order = [int(label) for label in np.argsort(-lost, kind="stable") if np.isfinite(lost[label])]
    shown = order[:_MOST_CLASSES]
    first = order[0]
    worst = f"Class {measured.class_name(first)} loses most from {width_text(widest)} to {width_text(narrowest)}"
    sentence = f"{worst}: {lost[first]:+.2f} percentage points of error." if lost[first] > 0 else "It loses none."
    left_out = len(order) - len(shown)
    note = f" The {left_out} classes that lose less are left out." if left_out else ""
    pictures = [_errors_picture(measured, shown)]
    different: list[float] = []
    has_matrices = measured.run.model.num_classes <= _MOST_CELLS
    if has_matrices:
        different = [width for width in measured.widths[:-1] if np.any(_added(measured, width))]
        largest = max((float(np.abs(_added(measured, width)).max()) for width in different), default=0.0)
        pictures += [_matrix_picture(measured, width, largest) for width in different]
    alike = [width for width in measured.widths[:-1] if has_matrices and width not in different]
    text = Text(
        f"Error of each class at every width; first comes the class of which the narrowest loses most. {sentence}{note}"
        + _MATRICES * bool(different)
        + f" Left out, since nothing differs from the widest: {', '.join(map(width_text, alike))}." * bool(alike)
    )
    return [text, Pictures(pictures), _pairs(measured)]


def _added(measured: MeasuredClassifier, width: float) -> np.ndarray:
    """Images by class and prediction that a width has more than the widest: [classes, classes]."""
    return confusion(measured, width) - confusion(measured, measured.widths[-1])


def _errors_picture(measured: MeasuredClassifier, classes: Sequence[int]) -> Picture:
    series = {}
    for width in measured.widths:
        errors = class_errors(measured, width)[list(classes)]
        series[width_text(width)] = [(error, error, error) for error in errors]
    names = [measured.class_name(label) for label in classes]
    paint = partial(paint_ranges, rows=names, series=series, label="error of the class, %")
    ends = "; ".join(
        f"{name}: {', '.join(f'{of_width[index][1]:.1f} at {width}' for width, of_width in series.items())}"
        for index, name in enumerate(names)
    )
    return draw(
        f"class_errors_{slug(measured.name)}",
        paint,
        alt=f"Error of each class in percent, by width. {ends}.",
        caption="Error by class and width.",
        size=(4.9, max(3.5, 1.3 + 0.36 * len(names))),
    )


def _matrix_picture(measured: MeasuredClassifier, width: float, largest: float) -> Picture:
    widest = measured.widths[-1]
    names = [measured.class_name(label) for label in range(measured.run.model.num_classes)]
    difference = _added(measured, width)
    paint = partial(
        paint_cells,
        values=difference,
        rows=names,
        columns=names,
        labels=("class", "prediction"),
        text=lambda count: f"{count:+.0f}" if count else "",
        largest=largest,
        # On the diagonal more is better.
        signs=1 - 2 * np.eye(len(names)),
    )
    changes = "; ".join(
        f"{names[label]} as {names[other]} {difference[label, other]:+d}" for label, other in np.argwhere(difference)
    )
    return draw(
        f"confusion_{slug(measured.name)}_{slug(width_text(width))}",
        paint,
        alt=f"Images by class and prediction at width {width_text(width)}, less those at {width_text(widest)}: "
        f"{changes or 'no difference'}.",
        caption=f"Width {width_text(width)} less width {width_text(widest)}, images.",
        size=(4.9, 4.2),
    )


def _pairs(measured: MeasuredClassifier) -> DataTable | Text:
    matrices = {width: confusion(measured, width) for width in measured.widths}
    added = _added(measured, measured.widths[0])
    np.fill_diagonal(added, 0)
    order = np.argsort(-added, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(place), len(added)) for place in order if added.flat[place] > 0]
    rows = [
        (
            measured.class_name(label),
            measured.class_name(other),
            *(f"{matrix[label, other]}" for matrix in matrices.values()),
        )
        for label, other in pairs
    ]
    if not rows:
        return Text("The narrowest width adds no confusion.")
    headers = ("class", "taken for", *(f"at {width_text(width)}" for width in matrices))
    caption = "Confusions of which the narrowest width has more than the widest, images."
    return DataTable(caption, headers, rows, left=2)
