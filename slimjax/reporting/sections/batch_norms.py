"""Scale and bias of the batch norms by layer and width: what private parameters learn."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from slimjax.models.network import SlimmableNetwork
from slimjax.nn.layers import read_variable
from slimjax.nn.tracing import trace_layers
from slimjax.reporting.charts import draw, paint_ranges
from slimjax.reporting.parts import Heading, Part, Picture, Pictures, Section, Text
from slimjax.reporting.runs import Measured, ReportedRun, detailed, slug, width_text

NAMES = ("scale", "bias")
_QUANTILES = (0.1, 0.5, 0.9)
_SHARING = {
    "switchable": "Every width has its own.",
    "shared_affine": "All widths share them here; each reads the channels that it has.",
    "shared": "All widths share them here, statistics included; each reads the channels that it has.",
}


def batch_norm_section(measured: Sequence[Measured]) -> Section:
    """A row for every batch norm: median over its channels, and the range from the 10th to the 90th percentile."""
    parts: list[Part] = [
        Text(
            "Scale and bias of every batch norm: the marker is the median over its channels, the line reaches from the "
            "10th to the 90th percentile. Layers are in the order of the network, named by the convolution before them."
        )
    ]
    for of_run in detailed(measured):
        pictures = [_picture(of_run.run, name) for name in NAMES]
        model = of_run.run.model
        sharing = [Text(sharing_of(model))] if len(model.widths) > 1 else []
        parts += [Heading(of_run.name), *sharing, Pictures(pictures)]
    return Section("batch_norms", "Scale and bias of the batch norms", parts)


def affine_parameters(run: ReportedRun, name: str) -> dict[float, dict[str, np.ndarray]]:
    """What the batch norms of every width scale by, or add: [channels] float32, by width and layer.

    Args:
      run: the run.
      name: `scale` or `bias`.
    """
    values: dict[float, dict[str, np.ndarray]] = {}
    for width in run.model.widths:
        of_width = values.setdefault(width, {})
        for trace in trace_layers(run.model, width):
            for variable in trace.variables:
                # A convolution or the classifier may have a bias of its own.
                if variable.path[-1] == name and len(variable.path) > 1:
                    stored = np.asarray(read_variable(run.variables, trace.path, variable))
                    of_width["/".join(trace.path[:-1])] = variable.active(stored)
    return values


def sharing_of(model: SlimmableNetwork) -> str:
    """Which batch norms the widths share, for people; MobileNet v2 shares its last one unless it is told not to."""
    shared = [
        "/".join(trace.path[:-1])
        for trace in trace_layers(model, model.widths[-1])
        if any(variable.path[0] == "shared" and variable.path[-1] == "scale" for variable in trace.variables)
    ]
    if model.batch_norm != "switchable" or not shared:
        return _SHARING[model.batch_norm]
    return f"{_SHARING[model.batch_norm]} Only that of {', '.join(shared)} is the same one for all."


def _picture(run: ReportedRun, name: str) -> Picture:
    values = affine_parameters(run, name)
    layers = list(values[run.model.widths[0]])
    series = {
        width_text(width): [tuple(np.quantile(of_width[layer], _QUANTILES)) for layer in layers]
        for width, of_width in values.items()
    }
    medians = "; ".join(
        f"{layer}: {', '.join(f'{of_width[index][1]:.2f} at {width}' for width, of_width in series.items())}"
        for index, layer in enumerate(layers)
    )
    return draw(
        f"batch_norm_{name}_{slug(run.name)}",
        partial(paint_ranges, rows=layers, series=series, label=name),
        alt=f"Median {name} of each batch norm, by width. {medians}.",
        caption=f"{name.capitalize()} by layer and width.",
        size=(4.9, 1.3 + (0.16 + 0.09 * len(series)) * len(layers)),
    )
