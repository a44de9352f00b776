"""The images that one channel answers to most, at every width: figure 3 of SNet."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from slimjax.reporting.images import png_of, rows_png
from slimjax.reporting.parts import Heading, ImageRow, ImageRows, Part, Section, Text, Thumbnail
from slimjax.reporting.runs import MeasuredClassifier, detailed, slug, width_text

Images = Mapping[int, np.ndarray]
"""By number in the evaluation split, [height, width, 3] uint8."""


def wanted_images(measured: MeasuredClassifier) -> Collection[int]:
    """The numbers of the images that the section shows."""
    return {int(number) for numbers in measured.top.images.values() for number in numbers}


def activations_section(measured: Sequence[MeasuredClassifier], images: Mapping[str, Images]) -> Section:
    """A row of images for every width.

    Args:
      measured: the runs.
      images: of every run, by its name.
    """
    parts: list[Part] = []
    for of_run in detailed(measured):
        rows = [_row(of_run, width, images[of_run.name]) for width in of_run.widths]
        name = f"activations_{slug(of_run.name)}"
        parts += [Heading(of_run.name), Text(_introduction(of_run)), ImageRows(rows, name, rows_png(rows))]
    return Section("activations", "What one channel looks for", parts)


def _introduction(measured: MeasuredClassifier) -> str:
    layer = measured.top.layer
    return (
        f"The images of the evaluation split for which channel {measured.top.channel} of `{layer.name}` is highest at "
        "some place of the image, behind its batch norm, strongest first: the same channel at every width. A solid "
        "green outline and ✓: this width classifies the image rightly; a dashed red one and ✗: wrongly, with its class "
        "and what it is taken for beneath. Another channel: `--layer` and `--channel`."
    )


def _row(measured: MeasuredClassifier, width: float, images: Images) -> ImageRow:
    title = f"width {width_text(width)}"
    if width not in measured.top.images:
        count = len(measured.top.layer.channels[width])
        return ImageRow(title, (), f"has {count} channels of this layer, and this one is not among them")
    return ImageRow(title, [_thumbnail(measured, width, int(n), images) for n in measured.top.images[width]])


def _thumbnail(measured: MeasuredClassifier, width: float, number: int, images: Images) -> Thumbnail:
    outcome = measured.outcomes[width]
    label = measured.class_name(int(measured.labels[number]))
    prediction = measured.class_name(int(outcome.predictions[number]))
    is_right = bool(outcome.is_right[number])
    alt = f"Image {number}, {label}, {'classified rightly' if is_right else f'taken for {prediction}'}"
    caption = label if is_right else f"{label} → {prediction}"
    return Thumbnail(png_of(images[number]), alt, caption, is_right)
