"""Individual against slimmable networks, in the layout of table 3 of SNet."""

from collections.abc import Sequence

from slimjax.configuration import leaves, plain
from slimjax.reporting.parts import DataTable, Heading, Part, Section, Text
from slimjax.reporting.runs import Measured, figure_name, width_text

NONE = "-"

_SAME_BY_NATURE = ("model.widths",)
"""Keys of a configuration in which the compared runs have to differ."""


def comparison_section(measured: Sequence[Measured]) -> Section:
    """A table for every slimmable run; individual runs of the same model are set against its widths."""
    slimmable = [of_run for of_run in measured if of_run.run.is_slimmable]
    individual = [of_run for of_run in measured if not of_run.run.is_slimmable]
    parts: list[Part] = [Text(_introduction(slimmable, individual))]
    for of_run in slimmable:
        compared = [other for other in individual if _is_comparable(of_run, other)]
        if compared:
            parts += [Heading(of_run.name), _table(of_run, compared)]
        elif individual:
            parts += [Heading(of_run.name), Text("None of the individual networks is of its kind and widths.")]
        parts += [Text(line) for other in compared if (line := _differing_settings(of_run, other))]
    return Section("comparison", "Individual and slimmable networks", parts)


def individual_figure(compared: Sequence[Measured], width: float, key: str) -> float | None:
    """A figure of the individual networks of a width, the mean where there are several; None if there is none."""
    values = [other.figures[width][key] for other in compared if key in other.figures.get(width, {})]
    return sum(values) / len(values) if values else None


def _introduction(slimmable: Sequence[Measured], individual: Sequence[Measured]) -> str:
    if not slimmable:
        return "Left out: none of these runs has more than one width; add a slimmable one with another `--workdir`."
    score = slimmable[0].run.score
    text = (
        f"{score.title} of a network of one width that was trained for itself, and of the slimmable network at that "
        f"width; a {'positive' if score.larger_is_better else 'negative'} difference is in favour of the slimmable one."
    )
    if individual:
        return text
    return (
        f"{text} No individual network is among these runs. Train one per width, such as with "
        f'`--config.model.widths="({width_text(slimmable[0].widths[0])},)"`, and add it with another `--workdir`.'
    )


def _is_comparable(slimmable: Measured, individual: Measured) -> bool:
    return _kind(slimmable) == _kind(individual) and individual.widths[0] in slimmable.widths


def _kind(measured: Measured) -> tuple[object, ...]:
    """What is the same in networks of which one may stand beside the other: a Mask R-CNN is no Faster R-CNN."""
    config = measured.run.config
    heads = (config.detection.masks, config.detection.num_keypoints) if config.task == "detection" else ()
    return config.task, config.model.name, *heads


def _table(slimmable: Measured, compared: Sequence[Measured]) -> DataTable:
    keys = _compared_keys(slimmable)
    rows = []
    for width, figures in sorted(slimmable.figures.items(), reverse=True):
        params = next((other.run.total_params for other in compared if width in other.widths), None)
        cells = [cell for key in keys for cell in _cells(individual_figure(compared, width, key), figures[key])]
        macs = f"{slimmable.run.profiles[width].macs / 1e6:,.2f}"
        rows.append((width_text(width), *cells, macs, NONE if params is None else f"{params:,}"))
    whole = (
        f"{slimmable.run.config.model.name}; the slimmable network has {slimmable.run.total_params:,} parameters in all"
    )
    caption = f"{whole}. Individual: {', '.join(other.name for other in compared)}."
    names = {key: f"{figure_name(key)}: " if len(keys) > 1 else "" for key in keys}
    of_keys = [f"{name}{text}" for name in names.values() for text in ("individual, %", "slimmable, %", "difference")]
    return DataTable(caption, ("width", *of_keys, "MACs, M", "individual: parameters"), rows)


def _compared_keys(measured: Measured) -> list[str]:
    """The score, and of a detector all parts' as in the paper's table of COCO."""
    figures = measured.figures[measured.widths[0]]
    return [key for key in figures if key == measured.run.score.key or key.endswith("_ap")]


def _cells(individual: float | None, slimmable: float) -> tuple[str, str, str]:
    if individual is None:
        return NONE, f"{slimmable:.2f}", NONE
    return f"{individual:.2f}", f"{slimmable:.2f}", f"{slimmable - individual:+.2f}"


def _differing_settings(slimmable: Measured, individual: Measured) -> str:
    """A sentence that names the settings in which two compared runs differ; empty if there are none."""
    ours, theirs = (dict(leaves(plain(run.run.config))) for run in (slimmable, individual))
    keys = [key for key in ours if ours[key] != theirs.get(key) and key not in _SAME_BY_NATURE]
    if not keys:
        return ""
    named = "; ".join(f"{key} {theirs.get(key)} instead of {ours[key]}" for key in keys)
    return f"{individual.name} differs from {slimmable.name} in more than its width: {named}."
