"""Switch rules: which widths a training step runs, and what it leaves frozen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slimjax.errors import UserError


@dataclass(frozen=True)
class Phase:
    """A part of incremental training: schedule and optimiser start anew, and only some parameters change.

    Those are the ones that the turn's widths read and the frozen width does not.

    Attributes:
      number: from 1.
      start: the step at which it begins.
      frozen: the width whose parameters stay as they are; None in the first phase.
    """

    number: int
    start: int
    frozen: float | None


@dataclass(frozen=True)
class Turn:
    """What one step trains.

    Attributes:
      widths: of the step, widest first; their gradients are summed.
      phase: None where all parameters are trained from the first step to the last.
    """

    widths: tuple[float, ...]
    phase: Phase | None = None

    @property
    def start(self) -> int:
        """The step from which schedule and optimiser count."""
        return self.phase.start if self.phase else 0


@dataclass(frozen=True)
class SwitchRule:
    """A rule with the number of steps that it takes in all.

    Attributes:
      turn: what a step trains; the same on every host, since it depends on the step alone.
      num_steps: of the whole training.
    """

    turn: Callable[[int], Turn]
    num_steps: int


def all_widths(widths: tuple[float, ...], num_steps: int, seed: int) -> SwitchRule:
    """Every width in every step (SNet, algorithm 1)."""
    del seed
    turn = Turn(widths[::-1])
    return SwitchRule(lambda step: turn, num_steps)


def sandwich(widths: tuple[float, ...], num_steps: int, seed: int) -> SwitchRule:
    """The widest, the narrowest and two others at random (US-Nets, section 4.1), without its distillation."""

    def turn(step: int) -> Turn:
        between = np.random.default_rng((seed, step)).permutation(widths[1:-1])[:2].tolist()
        return Turn(tuple(sorted({widths[0], widths[-1], *between}, reverse=True)))

    return SwitchRule(turn, num_steps)


def incremental(widths: tuple[float, ...], num_steps: int, seed: int) -> SwitchRule:
    """One width after the other, narrowest first; what a narrower one has learned is frozen (SNet, section 3.1).

    Every phase takes `num_steps` steps with a schedule and an optimiser of its own.
    """
    del seed

    def turn(step: int) -> Turn:
        index = min(step // num_steps, len(widths) - 1)
        frozen = widths[index - 1] if index else None
        return Turn((widths[index],), Phase(index + 1, index * num_steps, frozen))

    return SwitchRule(turn, num_steps * len(widths))


SWITCH_RULES: dict[str, Callable[[tuple[float, ...], int, int], SwitchRule]] = {
    "all": all_widths,
    "sandwich": sandwich,
    "incremental": incremental,
}


def create_switch_rule(name: str, widths: tuple[float, ...], num_steps: int, seed: int) -> SwitchRule:
    """The rule of a name; UserError if there is none."""
    if name not in SWITCH_RULES:
        raise UserError(f"switch_rule={name!r} is unknown; choose one of {', '.join(SWITCH_RULES)}")
    return SWITCH_RULES[name](widths, num_steps, seed)
