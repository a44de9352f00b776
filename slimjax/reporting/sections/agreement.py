"""How far the widths of a network predict the same."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from slimjax.reporting.charts import draw, paint_cells
from slimjax.reporting.parts import DataTable, Heading, Part, Pictures, Section, Text
from slimjax.reporting.runs import MeasuredClassifier, detailed, slug, width_text


def agreement_section(measured: Sequence[MeasuredClassifier]) -> Section:
    """Agreement of each pair of widths, and who is right where they differ."""
    parts: list[Part] = []
    runs = detailed(measured)
    largest = max(float(100.0 - agreement(of_run).min()) for of_run in runs)
    for of_run in runs:
        one_width = Text(f"Left out: {of_run.name} has one width only.")
        parts += [Heading(of_run.name), *(_of_run(of_run, largest) if of_run.run.is_slimmable else [one_width])]
    return Section("agreement", "Agreement between widths", parts)


def agreement(measured: MeasuredClassifier) -> np.ndarray:
    """Percent of the images for which two widths predict the same class: [widths, widths]."""
    predictions = np.stack([outcome.predictions for outcome in measured.outcomes.values()])
    return 100.0 * np.mean(predictions[:, None] == predictions[None], axis=-1)


def _of_run(measured: MeasuredClassifier, largest: float) -> list[Part]:
    """Its figures; `largest` is the disagreement, percent, that all runs' matrices colour strongest."""
    names = [width_text(width) for width in measured.widths]
    shares = agreement(measured)
    predictions = np.stack([outcome.predictions for outcome in measured.outcomes.values()])
    right = np.stack([outcome.is_right for outcome in measured.outcomes.values()])
    all_agree = 100.0 * np.mean((predictions == predictions[0]).all(0))
    text = Text(
        f"All widths predict the same class for {all_agree:.2f} % of the {len(measured.labels):,} images. At "
        f"least one width is right for {100.0 * np.mean(right.any(0)):.2f} %, all are for "
        f"{100.0 * np.mean(right.all(0)):.2f} %."
    )
    # Coloured by disagreement, since what differs among numbers close to 100 is what is left to it.
    picture = draw(
        f"agreement_{slug(measured.name)}",
        partial(
            paint_cells,
            values=shares - 100.0,
            rows=names,
            columns=names,
            labels=("width", "width"),
            text=lambda difference: f"{100.0 + difference:.1f}",
            largest=largest,
        ),
        alt="Percent of images for which two widths agree: "
        + "; ".join(
            f"{names[i]} and {names[j]} {shares[i, j]:.2f}" for i in range(len(names)) for j in range(i + 1, len(names))
        ),
        caption="Equal predictions, % of the images; the stronger the colour, the less two widths agree.",
    )
    return [text, Pictures([picture]), _table(measured)]


def _table(measured: MeasuredClassifier) -> DataTable:
    widest = measured.widths[-1]
    wide = measured.outcomes[widest].is_right
    rows = []
    for width in measured.widths[:-1]:
        narrow = measured.outcomes[width].is_right
        counts = (wide & narrow, wide & ~narrow, ~wide & narrow, ~wide & ~narrow)
        rows.append((width_text(width), *(f"{int(count.sum()):,}" for count in counts)))
    headers = ("width", "both right", "only the widest right", "only the narrower right", "both wrong")
    return DataTable(f"Each width against the widest, {width_text(widest)}: numbers of images.", headers, rows)
