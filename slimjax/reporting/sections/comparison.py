"""Individual against slimmable networks, in the layout of table 3 of SNet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimjax.reporting.parts import DataTable, Heading, Part, Section, Text
from slimjax.reporting.runs import Measured, width_text

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
        parts += [Heading(of_run.name), _table(of_run, compared)]
        parts += [Text(line) for other in compared if (line := _differing_settings(of_run, other))]
    return Section("comparison", "Individual and slimmable networks", parts)


def individual_error(compared: Sequence[Measured], width: float) -> float | None:
    """The error of the individual networks of a width, the mean where there are several; None if there is none."""
    errors = [other.outcomes[width].top1_error for other in compared if width in other.outcomes]
    return sum(errors) / len(errors) if errors else None


def _introduction(slimmable: Sequence[Measured], individual: Sequence[Measured]) -> str:
    if not slimmable:
        return "Left out: none of these runs has more than one width; add a slimmable one with another `--workdir`."
    text = (
        "Top-1 error of a network of one width that was trained for itself, and of the slimmable network at that "
        "width; a negative difference is in favour of the slimmable one."
    )
    if individual:
        return text
    return (
        f"{text} No individual network is among these runs. Train one per width, such as with "
        f'`--config.model.widths="({width_text(slimmable[0].widths[0])},)"`, and add it with another `--workdir`.'
    )


def _is_comparable(slimmable: Measured, individual: Measured) -> bool:
    same_model = slimmable.run.config.model.name == individual.run.config.model.name
    return same_model and individual.widths[0] in slimmable.widths


def _table(slimmable: Measured, compared: Sequence[Measured]) -> DataTable:
    rows = []
    for width, outcome in sorted(slimmable.outcomes.items(), reverse=True):
        error = individual_error(compared, width)
        params = next((other.run.total_params for other in compared if width in other.outcomes), None)
        rows.append(
            (
                width_text(width),
                NONE if error is None else f"{error:.2f}",
                f"{outcome.top1_error:.2f}",
                NONE if error is None else f"{outcome.top1_error - error:+.2f}",
                f"{slimmable.run.profiles[width].macs / 1e6:,.2f}",
                NONE if params is None else f"{params:,}",
            )
        )
    whole = (
        f"{slimmable.run.config.model.name}; the slimmable network has {slimmable.run.total_params:,} parameters in all"
    )
    names = ", ".join(other.name for other in compared)
    caption = f"{whole}. Individual: {names}." if names else f"{whole}."
    headers = ("width", "individual, %", "slimmable, %", "difference", "MACs, M", "individual: parameters")
    return DataTable(caption, headers, rows)


def _differing_settings(slimmable: Measured, individual: Measured) -> str:
    """A sentence that names the settings in which two compared runs differ; empty if there are none."""
    ours, theirs = (dict(_settings(json.loads(run.run.config.to_json()))) for run in (slimmable, individual))
    keys = [key for key in ours if ours[key] != theirs.get(key) and key not in _SAME_BY_NATURE]
    if not keys:
        return ""
    named = "; ".join(f"{key} {theirs.get(key)} instead of {ours[key]}" for key in keys)
    return f"{individual.name} differs from {slimmable.name} in more than its width: {named}."


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
