"""The numbers of a report as JSON, for scripts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimjax.reporting.runs import Measured, MeasuredClassifier
from slimjax.reporting.sections.agreement import agreement
from slimjax.reporting.sections.confusion import confusion


def as_json(measured: Sequence[Measured], machine: Mapping[str, Any]) -> str:
    """The machine and a list `runs`, each with its `widths`.

    A classifier's width has `confusion`, a list of class, prediction and number of images, without those of none, and
    `top_images`, numbers of images in the evaluation split, from 0.
    """
    return json.dumps({"machine": machine, "runs": [_run(of_run) for of_run in measured]}, indent=1) + "\n"


def _run(measured: Measured) -> dict[str, Any]:
    run = measured.run
    row = {
        "name": run.name,
        "workdir": run.workdir,
        "step": run.step,
        "model": run.config.model.name,
        "dataset": run.config.dataset.name,
        "images": measured.num_images,
        "class_names": [measured.class_name(label) for label in range(run.model.num_classes)],
        "total_params": run.total_params,
        "widths": [_width(measured, width) for width in measured.widths],
    }
    if isinstance(measured, MeasuredClassifier):
        top = measured.top
        row |= {"layer": top.layer.name, "channel": top.channel, "agreement": agreement(measured).round(4).tolist()}
    return row


def _width(measured: Measured, width: float) -> dict[str, Any]:
    profile = measured.run.profiles[width]
    row: dict[str, Any] = {
        "width": width,
        **measured.figures[width],
        "macs": profile.macs,
        "params": profile.params,
        "median_ms": measured.latencies[width].median_ms if measured.latencies else None,
    }
    if isinstance(measured, MeasuredClassifier):
        matrix, top = confusion(measured, width), measured.top.images.get(width)
        row["confusion"] = [[*pair, matrix[tuple(pair)].item()] for pair in np.argwhere(matrix).tolist()]
        row["top_images"] = None if top is None else top.tolist()
    return row
