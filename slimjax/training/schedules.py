"""Durations and learning-rate schedules. Steps are computed here, so that another batch size needs no new numbers."""

import math

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from slimjax.errors import UserError


def duration(config: ConfigDict, steps_key: str, epochs_key: str, steps_per_epoch: float) -> int | None:
    """A duration in steps that is given in steps or in epochs; None if it is given as neither.

    Raises:
      UserError: if it is given as both, is negative or is not finite.
    """
    steps, epochs = config[steps_key], config[epochs_key]
    if steps is not None and epochs is not None:
        raise UserError(f"{steps_key}={steps} and {epochs_key}={epochs} are both set; give one of them")
    if steps is None and epochs is None:
        return None
    resolved = steps if steps is not None else epochs * steps_per_epoch
    if not 0 <= resolved < math.inf:
        raise UserError(f"{steps_key}={steps}, {epochs_key}={epochs}: give a finite duration of at least 0")
    return round(resolved)


def create_schedule(config: ConfigDict, learning_rate: float, num_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """The learning rate of every step.

    Args:
      config: the section `schedule` of the configuration.
      learning_rate: the peak.
      num_steps: steps of the whole training; `linear` and `cosine` reach 0 there.
      steps_per_epoch: training examples over batch size, not rounded.

    Returns:
      A function of the step. Boundaries and epochs count from step 0, the warm-up included.

    Raises:
      UserError: for an unknown name, or a warm-up longer than the training.
    """
    warmup = duration(config, "warmup_steps", "warmup_epochs", steps_per_epoch) or 0
    if warmup >= num_steps:
        given = f"schedule.warmup_steps={config.warmup_steps}, schedule.warmup_epochs={config.warmup_epochs}"
        raise UserError(
            f"a warm-up of {warmup} steps ({given}) does not fit into {num_steps} steps; shorten it or train longer"
        )
    left = num_steps - warmup
    schedules = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "multistep": lambda: optax.piecewise_constant_schedule(
            learning_rate, dict.fromkeys(_boundaries(config, steps_per_epoch), config.factor)
        ),
        "exponential": lambda: optax.exponential_decay(learning_rate, steps_per_epoch, config.factor, staircase=True),
        "linear": lambda: optax.linear_schedule(learning_rate, 0.0, left, transition_begin=warmup),
        "cosine": lambda: _delayed(optax.cosine_decay_schedule(learning_rate, left), warmup),
    }
    if config.name not in schedules:
        raise UserError(f"schedule.name={config.name!r} is unknown; choose one of {', '.join(schedules)}")
    schedule = schedules[config.name]()
    if not warmup:
        return schedule
    rise = optax.linear_schedule(config.warmup_factor * learning_rate, learning_rate, warmup)
    return lambda step: jnp.where(step < warmup, rise(step), schedule(step))


def _delayed(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    return lambda step: schedule(jnp.maximum(step - steps, 0))


def _boundaries(config: ConfigDict, steps_per_epoch: float) -> list[int]:
    steps, epochs = tuple(config.boundaries_steps), tuple(config.boundaries_epochs)
    if bool(steps) == bool(epochs):
        raise UserError(
            f"multistep needs either schedule.boundaries_steps={steps} or schedule.boundaries_epochs={epochs}; set one"
        )
    if not all(0 <= boundary < math.inf for boundary in steps + epochs):
        raise UserError(
            f"schedule.boundaries_steps={steps}, schedule.boundaries_epochs={epochs}: give finite boundaries "
            "of at least 0"
        )
    return list(steps) or [round(epoch * steps_per_epoch) for epoch in epochs]
