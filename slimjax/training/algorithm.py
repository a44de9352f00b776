"""Algorithm 1 of SNet as one device runs it: gradients of one width after the other, summed, and one update.

Nothing here knows how many programs a step is compiled to; see `step.py`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.errors import UserError
from slimjax.nn.channels import LeadingChannels
from slimjax.nn.scheduling import computed_after
from slimjax.nn.tracing import active_masks, active_parts
from slimjax.tasks.task import Task, Tree
from slimjax.training.mesh import DATA
from slimjax.training.parts import Flat
from slimjax.training.state import TrainState, Weights
from slimjax.training.stem import Stem, StemOutput
from slimjax.training.switches import Turn


class LocalSums(struct.PyTreeNode):
    """What the widths of a step have left on one device, before anything is reduced.

    The first two are trees like the network's; between widths and programs they are flat, by path, and may be a part of
    it only.

    Attributes:
      gradients: of the sum of the losses of the widths so far, float32; of a shared stem's parameters there is none.
      batch_stats: running statistics, updated by each width in its turn.
      stem_output_gradient: of the sum of the losses by the whole output of a stem that the widths share, float32; None
        where they share none.
    """

    gradients: Tree
    batch_stats: Tree
    stem_output_gradient: jax.Array | None = None


class StepMetrics(struct.PyTreeNode):
    """What a step reports, summed over the devices.

    Attributes:
      widths: metrics of every width of the step.
      gradient_norm: global norm of the summed gradients, before clipping.
      parameter_norm: global norm of the parameters after the update; it is finite only if they all are.
    """

    widths: dict[float, Any]
    gradient_norm: jax.Array
    parameter_norm: jax.Array


def add_width(
    task: Task,
    width: float,
    params: Flat,
    sums: LocalSums,
    batch: Tree,
    accumulate_steps: int = 1,
    stem_output: StemOutput | None = None,
    after: jax.Array | None = None,
) -> tuple[LocalSums, Any]:
    """Switches to a width, runs it forward and adds the gradient of its loss (SNet, algorithm 1, lines 7-10).

    Args:
      task: whose loss is differentiated.
      width: to switch to.
      params: at least those that the width reads.
      sums: of the widths before it; the gradient of a parameter that is not among them begins here.
      batch: arrays whose leading axis counts the device's examples.
      accumulate_steps: equal parts of the batch, taken one after the other. The gradient is that of the whole batch,
        apart from its batch norms, which see a part at a time; the memory is that of a part.
      stem_output: of the stem for the whole batch, of which the width takes a slice; None lets it run its own, which it
        has to do where it takes the batch in parts.
      after: a number that it has to wait for, see `computed_after`; None lets it run at any time.

    Returns:
      The sums with this width's share, and the metrics of the width, of this device alone. The gradients of a shared
      stem's parameters are left to `with_stem_gradients`.
    """
    of_stem = sums.stem_output_gradient
    if after is not None and stem_output is None:
        batch = {**batch, "image": computed_after(batch["image"], after)}
    if stem_output is not None:
        gradients, of_slice, batch_stats, metrics = _gradients_behind_stem(
            task, width, params, sums.batch_stats, batch, stem_output, after
        )
        of_stem = stem_output.stem.added(of_stem, of_slice)
    elif accumulate_steps == 1:
        gradients, batch_stats, metrics = _gradients_at(task, width, params, sums.batch_stats, batch)
    else:
        gradients, batch_stats, metrics = _accumulated(task, width, params, sums.batch_stats, batch, accumulate_steps)
    return LocalSums(_added(task, width, sums.gradients, gradients), batch_stats, of_stem), metrics


def _added(task: Task, width: float, totals: Flat, gradients: Flat) -> Flat:
    """Totals plus the gradients of a width, written only where the width reads; elsewhere its gradients are zeros."""
    read = active_parts(task.model, width)
    added = {}
    for path, gradient in gradients.items():
        active = read.get(path, LeadingChannels())
        added[path] = active.add(totals[path], active(gradient)) if path in totals else gradient
    return added


def _gradients_at(task: Task, width: float, params: Flat, batch_stats: Flat, batch: Tree) -> tuple[Flat, Flat, Any]:
    gradients, (updated, metrics) = jax.grad(task.loss, has_aux=True)(
        unflatten_dict(params), unflatten_dict(batch_stats), batch, width
    )
    return flatten_dict(gradients), batch_stats | flatten_dict(updated), metrics


def _gradients_behind_stem(
    task: Task,
    width: float,
    params: Flat,
    batch_stats: Flat,
    batch: Tree,
    stem_output: StemOutput,
    after: jax.Array | None,
) -> tuple[Flat, jax.Array, Flat, Any]:
    """As `_gradients_at`; by the stem's slice of that width, in the second place, rather than by its parameters."""

    def loss(params: Tree, own_slice: jax.Array) -> Any:
        with stem_output.taken(own_slice):
            return task.loss(params, unflatten_dict(batch_stats), batch, width)

    behind = stem_output.stem.without_parameters(params)
    by_both = jax.grad(loss, (0, 1), has_aux=True)
    (gradients, of_slice), (updated, metrics) = by_both(unflatten_dict(behind), stem_output.slice_of(width, after))
    return flatten_dict(gradients), of_slice, batch_stats | flatten_dict(updated), metrics


def _accumulated(
    task: Task, width: float, params: Flat, batch_stats: Flat, batch: Tree, parts: int
) -> tuple[Flat, Flat, Any]:
    """The mean of the parts' gradients, statistics threaded from part to part, and metrics added up."""

    def add_part(so_far: tuple[Flat, Flat], part: Tree) -> tuple[tuple[Flat, Flat], Any]:
        total, batch_stats = so_far
        gradients, batch_stats, metrics = _gradients_at(task, width, params, batch_stats, part)
        return (_added(task, width, total, gradients), batch_stats), metrics

    split = jax.tree.map(lambda array: array.reshape(parts, -1, *array.shape[1:]), batch)
    zeros = jax.tree.map(jnp.zeros_like, params)
    (total, batch_stats), metrics = jax.lax.scan(add_part, (zeros, batch_stats), split)
    add_up = partial(jnp.sum, axis=0)
    return jax.tree.map(lambda gradient: gradient / parts, total), batch_stats, jax.tree.map(add_up, metrics)


def shared_stem(task: Task, accumulate_steps: int) -> Stem | None:
    """The stem whose output the widths of a step take slices of; None if each runs its own.

    Parts of a batch that come one after the other are to need no more memory than one of them does, which the output
    for the whole batch would.
    """
    return Stem.of(task.model) if task.shares_stem and accumulate_steps == 1 else None


def with_stem_gradients(stem: Stem | None, params: Flat, sums: LocalSums, batch: Tree) -> LocalSums:
    """The sums of all widths with the gradients of the parameters of the stem that they have shared, if any."""
    if stem is None:
        return sums
    assert sums.stem_output_gradient is not None
    of_stem = stem.gradients(params, batch["image"], sums.stem_output_gradient)
    return LocalSums(sums.gradients | of_stem, sums.batch_stats)


def summed_gradients(
    task: Task, widths: tuple[float, ...], params: Tree, batch_stats: Tree, batch: Tree, accumulate_steps: int = 1
) -> tuple[LocalSums, dict[float, Any]]:
    """Gradients of the sum of all widths' losses on one device's share of a batch (SNet, algorithm 1, lines 6-11).

    Each width waits for the one before, so that what it keeps of its layers takes the place of what that one has kept.

    Args:
      task: whose loss is differentiated.
      widths: in the order in which they run.
      params: the shared parameters at their widest.
      batch_stats: running statistics of all widths.
      batch: arrays whose leading axis counts the device's examples.
      accumulate_steps: see `add_width`.

    Returns:
      The sums, not yet reduced over devices, and the metrics of every width.

    Raises:
      UserError: if `widths` is empty.
    """
    if not widths:
        raise UserError("a step needs at least one width")
    # A single width has nobody to share with.
    stem = shared_stem(task, accumulate_steps) if len(widths) > 1 else None
    flat = flatten_dict(params)
    output = stem.run(flat, batch["image"]) if stem else None
    metrics, sums, after = {}, LocalSums({}, flatten_dict(batch_stats)), None
    for width in widths:
        sums, metrics[width] = add_width(task, width, flat, sums, batch, accumulate_steps, output, after)
        after = _number_of_all(sums)
    sums = with_stem_gradients(stem, flat, sums, batch)
    return LocalSums(unflatten_dict(sums.gradients), unflatten_dict(sums.batch_stats)), metrics


def _number_of_all(sums: LocalSums) -> jax.Array:
    """A number that is there once all gradients of the widths so far are."""
    return sum(gradient.ravel()[0] for gradient in jax.tree.leaves((sums.gradients, sums.stem_output_gradient)))


def reduced_update(
    tx: optax.GradientTransformation, trained: Tree | None, ema_decay: float, state: TrainState, sums: LocalSums
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Reduces the sums over the devices, once, and updates the parameters (SNet, algorithm 1, line 12).

    Args:
      tx: the optimiser.
      trained: which elements of the parameters may change, like `params` with booleans; None lets all change.
      ema_decay: weight of the old value in the moving averages of the weights, if the state has some.
      state: before the step.
      sums: of this device.

    Returns:
      The next state and StepMetrics' norms.
    """
    gradients, batch_stats = jax.lax.pmean((sums.gradients, sums.batch_stats), DATA)
    # Masked before, so that clipping sees what can move, and after, since weight decay moves what has no gradient.
    gradients = _masked(gradients, trained)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, _masked(updates, trained))
    norms = {"gradient_norm": optax.tree.norm(gradients), "parameter_norm": optax.tree.norm(params)}
    averaged = None
    if state.averaged is not None:
        averaged = _moved(state.averaged, Weights(params, batch_stats), ema_decay, state.step)
    return TrainState(state.step + 1, params, batch_stats, opt_state, averaged), norms


def _moved(averaged: Weights, weights: Weights, ema_decay: float, step: jax.Array) -> Weights:
    """Moves exponential averages towards the new weights.

    The decay begins low, so that the random start is soon forgotten, as in TensorFlow's ExponentialMovingAverage with
    `num_updates`, with which the MobileNets were trained.
    """
    decay = jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, averaged, weights)


def _masked(values: Tree, trained: Tree | None) -> Tree:
    if trained is None:
        return values
    return jax.tree.map(lambda value, mask: jnp.where(mask, value, 0.0), values, trained)


def trained_elements(task: Task, turn: Turn) -> Tree | None:
    """Which elements of the parameters a turn may change, None being all; see Task and Phase."""
    frozen, of_phase = task.frozen_parameters(), _elements_of_phase(task, turn)
    if frozen is None:
        return of_phase
    if of_phase is None:
        return jax.tree.map(lambda still: not still, frozen)
    return jax.tree.map(lambda mask, still: mask & (not still), of_phase, frozen)


def _elements_of_phase(task: Task, turn: Turn) -> Tree | None:
    if turn.phase is None:
        return None
    read = [active_masks(task.model, width) for width in turn.widths]
    trained = jax.tree.map(lambda *masks: sum(masks) > 0, *read)
    if turn.phase.frozen is None:
        return trained
    return jax.tree.map(lambda mask, frozen: mask & ~frozen, trained, active_masks(task.model, turn.phase.frozen))
