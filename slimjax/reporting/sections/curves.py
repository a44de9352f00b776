"""Training and validation curves of every width, as in figure 2 of SNet."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from slimjax.analysis.plot_style import series_style
from slimjax.reporting.charts import add_legend, draw
from slimjax.reporting.metrics import Curve
from slimjax.reporting.parts import Heading, Part, Picture, Pictures, Section, Text
from slimjax.reporting.runs import Measured, slug, width_text

_SPLITS = {"train": "Training", "eval": "Validation"}
_TICKS = {False: (0, 1, 2, 5, 10, 20), True: (0, 1, 5, 10, 20, 30, 50, 75, 100)}
_CROWDED_FROM = 25
"""Percent of error at which small ones lie close to each other."""

_MARKED_UP_TO = 30
"""Points of a curve that are marked one by one."""


def curves_section(measured: Sequence[Measured]) -> Section:
    """Top-1 error over steps: of the training batches, augmented as they are, and of the evaluation split."""
    parts: list[Part] = [
        Text(
            "Top-1 error of every width while it learned, as the run has logged it: in training, the mean since the "
            "line before, on augmented images and with the batch's own statistics; in validation, on the whole "
            "evaluation split. The error axis is compressed (square root), so that what is left at the end can be read."
        )
    ]
    for of_run in measured:
        parts.append(Heading(of_run.name))
        curves = of_run.run.curves
        pictures = [
            _picture(of_run.name, split, curves[f"{split}/top1_error"])
            for split in _SPLITS
            if curves.get(f"{split}/top1_error")
        ]
        where = f"{of_run.run.workdir} holds no metrics.jsonl with curves, as where a checkpoint was imported"
        parts.append(Pictures(pictures) if pictures else Text(f"Left out: {where} or calibrated."))
    return Section("curves", "Training and validation curves", parts)


def _picture(name: str, split: str, curves: Mapping[float, Curve]) -> Picture:
    ends = ", ".join(f"width {width_text(width)} ends at {curve[-1][1]:.2f} %" for width, curve in curves.items())
    return draw(
        f"curves_{slug(name)}_{split}",
        partial(_paint, curves=curves),
        alt=f"{_SPLITS[split]} error of {name} over steps: {ends}.",
        caption=f"{_SPLITS[split]} error.",
    )


def _paint(figure: Figure, curves: Mapping[float, Curve]) -> None:
    axes = figure.subplots()
    for index, (width, curve) in enumerate(curves.items()):
        steps, errors = zip(*curve, strict=True)
        every = max(1, len(steps) // _MARKED_UP_TO)
        style = series_style(index)
        axes.plot(steps, errors, linewidth=1.4, markersize=4, markevery=every, label=width_text(width), **style)
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    highest = max((error for curve in curves.values() for _, error in curve if np.isfinite(error)), default=1.0)
    ticks = [tick for tick in _TICKS[highest > _CROWDED_FROM] if tick <= max(1.1 * highest, 1)]
    axes.set_ylim(0, max(1.05 * highest, 1))
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("step")
    axes.set_ylabel("top-1 error, %")
    axes.grid(visible=True, alpha=0.2)
    add_legend(figure, axes, "width")
