"""A few images with every width's prediction and confidence."""

from collections.abc import Mapping, Sequence

import numpy as np

from slimjax.reporting.images import cards_png, png_of
from slimjax.reporting.parts import Answer, Card, Cards, Heading, Part, Section, Text, Thumbnail
from slimjax.reporting.runs import MeasuredClassifier, detailed, slug, width_text
from slimjax.reporting.sections.activations import Images

COUNT = 6


def chosen_images(measured: MeasuredClassifier) -> list[int]:
    """The images about which the widths differ most: most different predictions, then least confidence on average."""
    predictions = np.stack([outcome.predictions for outcome in measured.outcomes.values()])
    confidence = np.mean([outcome.confidences for outcome in measured.outcomes.values()], axis=0)
    different = 1 + np.count_nonzero(np.diff(np.sort(predictions, axis=0), axis=0), axis=0)
    order = np.lexsort((confidence, -different))
    return [int(number) for number in order[:COUNT]]


def examples_section(measured: Sequence[MeasuredClassifier], images: Mapping[str, Images]) -> Section:
    """A card for every image.

    Args:
      measured: the runs.
      images: of every run, by its name.
    """
    parts: list[Part] = [
        Text(
            "Images about which the widths differ most; where they agree, those of which they are least sure. Beside "
            "each width its prediction and the probability that it gives to it."
        )
    ]
    for of_run in detailed(measured):
        cards = [_card(of_run, number, images[of_run.name]) for number in chosen_images(of_run)]
        parts += [Heading(of_run.name), Cards(cards, f"examples_{slug(of_run.name)}", cards_png(cards))]
    return Section("examples", "Some images, every width", parts)


def _card(measured: MeasuredClassifier, number: int, images: Images) -> Card:
    label = measured.class_name(int(measured.labels[number]))
    answers = [
        Answer(
            width_text(width),
            measured.class_name(int(outcome.predictions[number])),
            float(outcome.confidences[number]),
            bool(outcome.is_right[number]),
        )
        for width, outcome in measured.outcomes.items()
    ]
    return Card(Thumbnail(png_of(images[number]), f"Image {number}, {label}"), f"class {label}", answers)
