"""Width plans: how many channels of each layer are active at each width. Plain arithmetic, no JAX."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slimjax.errors import UserError

MAX_WIDTH = 100
"""Beyond it no machine holds the weights, and sizes of arrays overflow before that can be said."""


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, never under 90 % of it and at least one `divisor`.

    This is the rounding of the MobileNets' reference networks; ResNet and ShuffleNet truncate.

    Raises:
      ValueError: if `channels` or `divisor` is not positive.
    """
    if channels <= 0 or divisor <= 0:
        raise ValueError(f"channels={channels} and divisor={divisor} have to be positive")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def truncate_channels(channels: float, groups: int = 1) -> int:
    """`channels` without the fraction, then down to a multiple of `groups`; at least one channel for each group.

    ResNet and ShuffleNet round so. The multiple makes no difference at ShuffleNet's published widths.

    Raises:
      ValueError: if `channels` or `groups` is not positive.
    """
    if channels <= 0 or groups <= 0:
        raise ValueError(f"channels={channels} and groups={groups} have to be positive")
    return max(groups, int(channels) // groups * groups)


@dataclass(frozen=True)
class WidthPlan:
    """The active channels of every slimmable layer at one width.

    A uniform width computes its plan by the family's rounding rule; a searched, non-uniform network is a plan as well.
    Plans are hashable, so a module that holds them can be a static argument of `jax.jit`.

    Attributes:
      width: the name by which a user asks for this plan.
      features: pairs of layer name and active channels, in the order of the network.
    """

    width: float
    features: tuple[tuple[str, int], ...]

    def __getitem__(self, layer: str) -> int:
        """Active channels of one layer; KeyError for a layer that the plan does not have."""
        return dict(self.features)[layer]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the planned layers, in the order of the network."""
        return tuple(layer for layer, _ in self.features)


def read_plans(path: Path) -> tuple[WidthPlan, ...]:
    """Plans from a JSON file, `{"0.25": {"stem": 8, "block_1": 16, ...}, ...}`, ascending by width.

    Raises:
      UserError: if the file cannot be read or has another form.
    """
    try:
        content = json.loads(path.read_text())
        plans = [WidthPlan(float(width), tuple(plan.items())) for width, plan in content.items()]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a JSON file of plans") from None
    except (ValueError, AttributeError):
        raise UserError(
            f'{path} has to be JSON such as {{"0.5": {{"stem": 16, "block_1": 24}}}}: plans by width'
        ) from None
    if not plans:
        raise UserError(f"{path} holds no plan")
    for plan in plans:
        if odd := [layer for layer, channels in plan.features if type(channels) is not int]:
            raise UserError(f"{path}: the plan of width {plan.width:g} gives {odd[0]} no whole number of channels")
    return tuple(sorted(plans, key=lambda plan: plan.width))


def check_widths(widths: Iterable[float]) -> tuple[float, ...]:
    """The widths as a tuple of floats.

    Raises:
      UserError: unless there is at least one, all are positive and at most MAX_WIDTH and they ascend strictly.
    """
    given = tuple(widths) if isinstance(widths, Iterable) and not isinstance(widths, str) else widths
    try:
        checked = tuple(float(width) for width in given)
    except (TypeError, ValueError):
        checked = ()
    ascending = all(low < high for low, high in itertools.pairwise(checked))
    if not checked or not ascending or not all(0 < width <= MAX_WIDTH for width in checked):
        raise UserError(
            f"widths={given!r} has to be a non-empty, strictly ascending list of positive numbers up to {MAX_WIDTH}, "
            "such as (0.5, 1)"
        )
    return checked


def switch_of(widths: tuple[float, ...], width: float | None) -> int:
    """Index of `width` among the ascending `widths`; None stands for the widest.

    Raises:
      UserError: if `width` is not one of them, or is a traced value: widths are static.
    """
    if width is None:
        return len(widths) - 1
    if not isinstance(width, (int, float)):
        raise UserError(
            f"width={width!r} has to be a plain Python number: it chooses shapes, so pass it as a static argument "
            "(static_argnames='width' in jax.jit)"
        )
    if width not in widths:
        raise UserError(f"width={width} is not one of this model's widths {widths}")
    return widths.index(width)


def widths_text(widths: Iterable[float]) -> str:
    """Widths for people: `width 1`, or `widths 0.5, 1`."""
    names = [f"{width:g}" for width in widths]
    return f"width{'s' * (len(names) > 1)} {', '.join(names)}"


def check_plans(plans: tuple[WidthPlan, ...], layers: tuple[str, ...]) -> tuple[WidthPlan, ...]:
    """The plans themselves, once they are known to fit a network with these layers.

    Raises:
      UserError: if a plan lacks a layer, has one too many or gives one fewer than 1 channel.
    """
    for plan in plans:
        if missing := [layer for layer in layers if layer not in plan.layers]:
            raise UserError(f"the plan of width {plan.width} lacks the layers {missing}")
        if unknown := [layer for layer in plan.layers if layer not in layers]:
            raise UserError(f"the plan of width {plan.width} has unknown layers {unknown}; this network has {layers}")
        if empty := [layer for layer, features in plan.features if features < 1]:
            raise UserError(f"the plan of width {plan.width} leaves no channel in {empty}")
    return plans
