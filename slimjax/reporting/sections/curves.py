"""Training and validation curves of every width, as in figure 2 of SNet."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure

from slimjax.analysis.plot_style import series_style
from slimjax.reporting.charts import add_legend, compress_errors, draw
from slimjax.reporting.metrics import Curve
from slimjax.reporting.parts import Heading, Part, Picture, Pictures, Section, Text
from slimjax.reporting.runs import Measured, slug, width_text

_SPLITS = {"train": "Training", "eval": "Validation"}
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
    for name, curves in _groups(measured).items():
        parts.append(Heading(name))
        pictures = [_picture(name, split, of_split) for split, of_split in curves.items() if of_split]
        if pictures:
            parts.append(Pictures(pictures))
    parts += [
        Text(
            f"{of_run.run.workdir} holds no metrics.jsonl with curves, as where a checkpoint was imported or "
            "calibrated, so it is left out."
        )
        for of_run in measured
        if not _curves_of(of_run)
    ]
    return Section("curves", "Training and validation curves", parts)


def _curves_of(measured: Measured) -> dict[str, Mapping[float, Curve]]:
    """Errors of a run by split and width; nothing of a split that it has not logged."""
    curves = measured.run.curves
    return {split: curves[f"{split}/top1_error"] for split in _SPLITS if curves.get(f"{split}/top1_error")}


def _groups(measured: Sequence[Measured]) -> dict[str, dict[str, dict[float, Curve]]]:
    """Errors by plot, split and width: individual runs of a model share plots, unless they are of the same width."""
    groups: dict[str, dict[str, dict[float, Curve]]] = {}
    for of_run in measured:
        curves = _curves_of(of_run)
        name = of_run.series
        if any(set(of_split) & set(groups.get(name, {}).get(split, {})) for split, of_split in curves.items()):
            name = of_run.name
        for split, of_split in curves.items():
            groups.setdefault(name, {}).setdefault(split, {}).update(of_split)
    return groups


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
    compress_errors(axes, [error for curve in curves.values() for _, error in curve])
    axes.set_xlabel("step")
    axes.set_ylabel("top-1 error, %")
    axes.grid(visible=True, alpha=0.2)
    add_legend(figure, axes, "width")
