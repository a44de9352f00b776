"""Training and validation curves of every width, as in figure 2 of SNet."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from slimjax.analysis.plot_style import series_style
from slimjax.reporting.charts import add_legend, compress_errors, draw
from slimjax.reporting.metrics import Curve
from slimjax.reporting.parts import Heading, Part, Picture, Pictures, Section, Text
from slimjax.reporting.runs import Measured, Score, slug, width_text

_SPLITS = {"train": "Training", "eval": "Validation"}
_MARKED_UP_TO = 30
"""Points of a curve that are marked one by one."""


def curves_section(measured: Sequence[Measured]) -> Section:
    """The score over steps: in training, on batches augmented as they are, or its loss; on the evaluation split."""
    score = measured[0].run.score
    text = (
        "How every width has learned, by the lines that the run has logged: in training, the mean since the line "
        f"before, {_images_of_training(measured)} and, where batch norms are not frozen, with the batch's own "
        "statistics; in validation, on the whole evaluation split."
    )
    if not score.larger_is_better:
        text += " The error axis is compressed (square root), so that what is left at the end can be read."
    parts: list[Part] = [Text(text)]
    for name, curves in _groups(measured).items():
        parts.append(Heading(name))
        pictures = [_picture(name, split, of_split, score) for split, of_split in curves.items() if of_split]
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


def _images_of_training(measured: Sequence[Measured]) -> str:
    """On what runs have trained, by their configurations."""
    augmented = [_is_augmented(of_run.run.config) for of_run in measured]
    if all(augmented):
        return "on augmented images"
    if not any(augmented):
        return "on the images as they are, without augmentation,"
    names = [of_run.name for of_run, is_augmented in zip(measured, augmented, strict=True) if is_augmented]
    return f"on augmented images ({', '.join(names)}) or the images as they are (the other runs)"


def _is_augmented(config: ConfigDict) -> bool:
    """Whether training changes images at random; detectors do no more than mirror them."""
    data = config.dataset
    of_classifiers = data.augmentation != "none" or data.color_jitter > 0 or data.pca_noise > 0
    return data.flip or (config.task == "classification" and of_classifiers)


def _curves_of(measured: Measured) -> dict[str, Mapping[float, Curve]]:
    """Curves of a run by split and width; nothing of a split that it has not logged."""
    curves, score = measured.run.curves, measured.run.score
    names = {"train": f"train/{score.training}", "eval": f"eval/{score.key}"}
    return {split: curves[name] for split, name in names.items() if curves.get(name)}


def _groups(measured: Sequence[Measured]) -> dict[str, dict[str, dict[float, Curve]]]:
    """Curves by plot, split and width: individual runs of a model share plots, unless they are of the same width."""
    groups: dict[str, dict[str, dict[float, Curve]]] = {}
    for of_run in measured:
        curves = _curves_of(of_run)
        name = of_run.series
        if any(set(of_split) & set(groups.get(name, {}).get(split, {})) for split, of_split in curves.items()):
            name = of_run.name
        for split, of_split in curves.items():
            groups.setdefault(name, {}).setdefault(split, {}).update(of_split)
    return groups


def _picture(name: str, split: str, curves: Mapping[float, Curve], score: Score) -> Picture:
    label = score.training_name if split == "train" else f"{score.name}, %"
    what, _, unit = label.partition(", ")
    ends = ", ".join(
        f"width {width_text(width)} ends at {curve[-1][1]:.2f} {unit}".rstrip() for width, curve in curves.items()
    )
    are_errors = unit == "%" and not score.larger_is_better
    return draw(
        f"curves_{slug(name)}_{split}",
        partial(_paint, curves=curves, label=label, are_errors=are_errors),
        alt=f"{_SPLITS[split]}: {what} of {name} over steps: {ends}.",
        caption=f"{_SPLITS[split]}: {what}.",
    )


def _paint(figure: Figure, curves: Mapping[float, Curve], label: str, are_errors: bool) -> None:
    axes = figure.subplots()
    for index, (width, curve) in enumerate(curves.items()):
        steps, values = zip(*curve, strict=True)
        every = max(1, len(steps) // _MARKED_UP_TO)
        style = series_style(index)
        axes.plot(steps, values, linewidth=1.4, markersize=4, markevery=every, label=width_text(width), **style)
    shown = [value for curve in curves.values() for _, value in curve if np.isfinite(value)]
    if are_errors:
        compress_errors(axes, shown)
    else:
        # Room above the highest, whose marker would be cut off where all are much the same.
        axes.set_ylim(0, 1.1 * (max(shown, default=0) or 1))
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(visible=True, alpha=0.2)
    add_legend(figure, axes, "width")
