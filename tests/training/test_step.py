"""The step against algorithm 1 written out with separate gradients and NumPy, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from algorithm_by_hand import assert_trees_close, by_hand, digits
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from slimjax import UserError
from slimjax.analysis.collectives import all_reduces
from slimjax.training.mesh import group_devices, put_batch
from slimjax.training.optimizers import decay_mask
from slimjax.training.state import Weights, initial_state
from slimjax.training.step import TrainStep
from slimjax.training.switches import Turn, create_switch_rule

LEARNING_RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-2


def sgd(task):
    decay = optax.add_decayed_weights(DECAY, decay_mask(task.model))
    return optax.chain(decay, optax.sgd(LEARNING_RATE, momentum=MOMENTUM, nesterov=True))


def state_on(task, tx, mesh):
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda: initial_state(task.model, tx, 0, 8), out_shardings=replicated)()


def run_steps(task, mesh, fused, turns, count=16, **options):
    tx = sgd(task)
    state, step = state_on(task, tx, mesh), TrainStep(task, tx, mesh, fused, **options)
    for turn in turns:
        state, metrics = step(state, put_batch(mesh, digits(count)), turn)
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def task(make_task):
    return make_task()


@pytest.fixture(scope="module", params=["switchable", "shared_affine", "shared"])
def network(request, make_task):
    """A task, for each way of sharing batch norms, and its first step by hand."""
    task = make_task(batch_norm=request.param)
    return task, by_hand(task)


@pytest.mark.parametrize("fused", [True, False])
def test_one_step_is_algorithm_1_with_one_update(network, meshes, fused):
    task, (params, gradients, statistics, losses) = network
    state, metrics = run_steps(task, meshes[1], fused, [Turn(task.model.widths[::-1])])

    def updated(path, weight, gradient):
        role_decays = path[-1] == "kernel" and "depthwise" not in path[-3]
        gradient = gradient + DECAY * weight * role_decays
        # Nesterov from zero momentum: the velocity is the gradient, looked ahead once more.
        return weight - LEARNING_RATE * (gradient + MOMENTUM * gradient)

    total = flatten_dict(jax.tree.map(lambda *parts: sum(parts), *gradients))
    actual = flatten_dict(state.params)
    for path, weight in flatten_dict(params).items():
        np.testing.assert_allclose(
            actual[path], updated(("", "", *path), weight, total[path]), rtol=1e-3, atol=1e-5, err_msg=str(path)
        )
    assert_trees_close(state.batch_stats, statistics, rtol=1e-4, atol=1e-6)
    assert state.step == 1
    for width, loss in losses.items():
        np.testing.assert_allclose(metrics.widths[width].compute()["loss"], loss, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in total.values()))
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-4)


def test_the_sandwich_rule_in_one_program_equals_one_program_a_width(make_task, meshes):
    """The fused program of a turn never hears of its absent widths; the others are told that they have done nothing."""
    task = make_task(widths=(0.25, 0.5, 0.75, 1.0))
    turns = [Turn((1.0, 0.5, 0.25)), Turn((1.0, 0.75, 0.25)), Turn((1.0, 0.5, 0.25))]
    fused, _ = run_steps(task, meshes[1], True, turns)
    per_width, _ = run_steps(task, meshes[1], False, turns)
    assert_trees_close(per_width.params, fused.params, rtol=1e-3, atol=1e-5)
    assert_trees_close(per_width.batch_stats, fused.batch_stats, rtol=1e-3, atol=1e-5)
    assert_trees_close(per_width.opt_state, fused.opt_state, rtol=1e-3, atol=1e-4)


def test_eight_devices_agree_with_one_where_batch_norm_spans_them(make_task, task, meshes):
    turns = [Turn(task.model.widths[::-1])] * 2
    spanning = make_task(batch_norm_axis="data")
    one, one_metrics = run_steps(task, meshes[1], False, turns)
    for fused in (True, False):
        eight, eight_metrics = run_steps(spanning, meshes[8], fused, turns)
        # Sums over 16 images in another order, through two steps.
        assert_trees_close(eight.params, one.params, rtol=2e-3, atol=2e-4)
        assert_trees_close(eight.batch_stats, one.batch_stats, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(eight_metrics.gradient_norm, one_metrics.gradient_norm, rtol=1e-3)
        for width, metrics in one_metrics.widths.items():
            np.testing.assert_allclose(
                eight_metrics.widths[width].compute()["loss"], metrics.compute()["loss"], rtol=1e-3
            )


@pytest.mark.parametrize("fused", [True, False])
def test_accumulated_parts_on_one_device_are_what_as_many_devices_compute(task, meshes, fused):
    """Eight parts one after the other, and eight devices with a part each: batch norms see two images in both."""
    turns = [Turn(task.model.widths[::-1])]
    eight, eight_metrics = run_steps(task, meshes[8], fused, turns)
    one, one_metrics = run_steps(task, meshes[1], fused, turns, accumulate_steps=8)
    assert_trees_close(one.params, eight.params, rtol=1e-3, atol=1e-5)
    for width, metrics in eight_metrics.widths.items():
        for name, value in metrics.compute().items():
            np.testing.assert_allclose(one_metrics.widths[width].compute()[name], value, rtol=1e-4)


def test_accumulated_parts_equal_the_whole_batch_where_batch_norms_are_the_same(task, meshes):
    """Every part is the same two images, so that its batch norms are those of the whole batch."""
    same = jax.tree.map(lambda array: np.tile(array[:2], (8, *[1] * (array.ndim - 1))), digits(2))
    tx, turn = sgd(task), Turn(task.model.widths[::-1])
    states = []
    for parts in (1, 4):
        step = TrainStep(task, tx, meshes[1], True, accumulate_steps=parts)
        states.append(jax.device_get(step(state_on(task, tx, meshes[1]), put_batch(meshes[1], same), turn)[0]))
    at_once, in_parts = states
    assert_trees_close(in_parts.params, at_once.params, rtol=1e-3, atol=1e-5)
    initial = jax.device_get(state_on(task, tx, meshes[1])).batch_stats
    # Four times momentum .9 instead of once, towards the same batch statistics.
    expected = jax.tree.map(lambda old, once: old + (once - old) * (1 - 0.9**4) / 0.1, initial, at_once.batch_stats)
    assert_trees_close(in_parts.batch_stats, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_accumulating_takes_the_memory_of_a_part(task, meshes, fused):
    tx, turn = sgd(task), Turn(task.model.widths[::-1])
    state, batch = state_on(task, tx, meshes[1]), digits(256)

    def temporary_bytes(parts):
        programs = TrainStep(task, tx, meshes[1], fused, accumulate_steps=parts).compile(state, batch, turn)
        return max(program.memory_analysis().temp_size_in_bytes for program in programs)

    assert temporary_bytes(8) < temporary_bytes(1) / 4


def test_moving_averages_follow_the_weights_with_a_decay_that_begins_low(task, meshes):
    tx, turn, decay = sgd(task), Turn(task.model.widths[::-1]), 0.25
    step = TrainStep(task, tx, meshes[1], False, ema_decay=decay)
    state = jax.jit(lambda: initial_state(task.model, tx, 0, 8, averages=True))()
    expected = jax.device_get(state.weights)
    for number in range(3):
        state, _ = step(state, put_batch(meshes[1], digits(16)), turn)
        d = min(decay, (1 + number) / (10 + number))
        new = jax.device_get((state.params, state.batch_stats))
        old = (expected.params, expected.batch_stats)
        expected = Weights(*jax.tree.map(lambda a, b, d=d: d * a + (1 - d) * b, old, new))
    assert_trees_close(jax.device_get(state.weights), expected, rtol=1e-5, atol=1e-6)
    plain, _ = run_steps(task, meshes[1], False, [turn] * 3)
    assert_trees_close(jax.device_get(state.params), plain.params, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("group_size", [1, 4])
def test_statistics_stay_within_a_group_of_devices(make_task, task, meshes, group_size):
    """Eight devices with two images each: the running mean moves by the mean of the groups' own updates."""
    groups = group_devices(8, group_size)
    grouped = make_task(batch_norm_axis="data", batch_norm_groups=groups) if groups else task
    state, _ = run_steps(grouped, meshes[8], False, [Turn((1.0,))])
    variables = jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    images, count = digits(16)["image"], 2 * group_size
    update = jax.jit(lambda images: task.model.apply(variables, images, train=True, mutable=["batch_stats"])[1])
    of_groups = [update(images[i : i + count])["batch_stats"] for i in range(0, 16, count)]
    expected = jax.tree.map(lambda *parts: np.mean(parts, 0), *of_groups)
    assert_trees_close(state.batch_stats, expected, rtol=1e-3, atol=1e-5)


def test_gradients_go_through_the_statistics_of_a_group(make_task, meshes):
    """Groups of four devices with two images each, against halves of eight images that one device takes in turn."""
    grouped = make_task(batch_norm_axis="data", batch_norm_groups=group_devices(8, 4))
    alone = make_task()
    turn = Turn((1.0,))
    state, _ = run_steps(grouped, meshes[8], True, [turn])
    expected, _ = run_steps(alone, meshes[1], True, [turn], accumulate_steps=2)
    assert_trees_close(state.params, expected.params, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_the_parameters_cross_the_wire_once_whatever_the_number_of_widths(make_task, meshes, fused):
    for widths in [(1.0,), (0.25, 0.5, 0.75, 1.0), (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)]:
        task = make_task(widths=widths)
        tx = sgd(task)
        state = jax.eval_shape(lambda task=task, tx=tx: initial_state(task.model, tx, 0, 8))
        programs = TrainStep(task, tx, meshes[8], fused).compile(state, digits(16), Turn(widths[::-1]))
        sizes = {
            name: 4 * sum(leaf.size for leaf in jax.tree.leaves(tree))
            for name, tree in (("params", state.params), ("statistics", state.batch_stats))
        }
        # Every width adds 6 scalars of metrics.
        sent = all_reduces(programs).bytes
        assert sizes["params"] + sizes["statistics"] <= sent <= sum(sizes.values()) + 4 * 6 * len(widths)


@pytest.mark.parametrize("fused", [True, False])
def test_four_widths_in_turn_take_the_temporary_memory_of_the_widest(make_task, meshes, fused):
    largest = {}
    for widths in [(1.0,), (0.25, 0.5, 0.75, 1.0)]:
        task = make_task(widths=widths)
        tx = sgd(task)
        state = jax.eval_shape(lambda task=task, tx=tx: initial_state(task.model, tx, 0, 16))
        programs = TrainStep(task, tx, meshes[1], fused).compile(state, digits(64, size=16), Turn(widths[::-1]))
        largest[widths] = max(program.memory_analysis().temp_size_in_bytes for program in programs)
    alone, together = largest.values()
    if not fused:
        # Between the programs travel the stem's output, of 32 channels, and its gradient.
        together += 2 * 64 * 16 * 16 * 32 * 4
    assert together <= 1.15 * alone


class SpoiltAtTheWidest:
    """A task whose loss at the widest width is NaN."""

    def __init__(self, task):
        self._task = task

    def __getattr__(self, name):
        return getattr(self._task, name)

    def loss(self, params, batch_stats, batch, width):
        loss, (updated, metrics) = self._task.loss(params, batch_stats, batch, width)
        return loss * (jnp.nan if width == max(self.model.widths) else 1.0), (updated, metrics)


def test_widths_wait_for_one_that_is_not_finite_without_becoming_so(task, meshes):
    """So that the one at fault can be told."""
    turns = [Turn(task.model.widths[::-1])]
    _, expected = run_steps(task, meshes[1], True, turns)
    _, metrics = run_steps(SpoiltAtTheWidest(task), meshes[1], True, turns)
    assert np.isnan(metrics.gradient_norm)
    for width in task.model.widths:
        np.testing.assert_allclose(
            metrics.widths[width].compute()["loss"], expected.widths[width].compute()["loss"], rtol=1e-5
        )


def test_a_step_of_one_width_leaves_the_others_statistics_and_batch_norms_alone(task, meshes):
    before = jax.device_get(state_on(task, sgd(task), meshes[1]))
    after, _ = run_steps(task, meshes[1], False, [Turn((0.5,))])
    for path, value in flatten_dict(before.batch_stats).items():
        assert (value != flatten_dict(after.batch_stats)[path]).any() == ("switch_1" in path), path
    for path, value in flatten_dict(before.params).items():
        if "switch_0" in path or "switch_2" in path:
            np.testing.assert_array_equal(value, flatten_dict(after.params)[path])


def test_incremental_training_freezes_what_narrower_widths_have_learned(task, meshes):
    rule = create_switch_rule("incremental", task.model.widths, 2, seed=0)
    assert rule.num_steps == 6
    tx = sgd(task)
    state, step = state_on(task, tx, meshes[1]), TrainStep(task, tx, meshes[1], False)
    stem = ("stem", "conv", "kernel")
    stems = [flatten_dict(jax.device_get(state.params))[stem]]
    for number in range(rule.num_steps):
        state, _ = step(state, put_batch(meshes[1], digits(16)), rule.turn(number))
        stems.append(flatten_dict(jax.device_get(state.params))[stem])
    # 8, 16 and 32 channels at the three widths; two steps of each. Weight decay must not touch the frozen either.
    for number, (first, last) in enumerate([(0, 8), (0, 8), (8, 16), (8, 16), (16, 32), (16, 32)]):
        changed = (stems[number] != stems[number + 1]).any(axis=(0, 1, 2))
        assert changed[first:last].all()
        assert not changed[:first].any()
        assert not changed[last:].any()


def test_incremental_training_leaves_the_narrow_network_as_it_was(task, meshes):
    rule = create_switch_rule("incremental", task.model.widths, 2, seed=0)
    tx = sgd(task)
    state, step = state_on(task, tx, meshes[1]), TrainStep(task, tx, meshes[1], False)
    logits = jax.jit(task.model.apply, static_argnames="width")
    seen = []
    for number in range(rule.num_steps):
        state, _ = step(state, put_batch(meshes[1], digits(16)), rule.turn(number))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        seen.append(np.asarray(logits(variables, digits(16)["image"], width=0.25)))
    assert (seen[0] != seen[1]).any()
    for later in seen[2:]:
        np.testing.assert_array_equal(later, seen[1])


def test_bfloat16_computes_a_step_close_to_float32s_and_keeps_float32_state(make_task, task, meshes):
    turn = Turn(task.model.widths[::-1])
    _, exact_metrics = run_steps(task, meshes[1], False, [turn])
    rounded, metrics = run_steps(make_task(dtype=jnp.bfloat16), meshes[1], False, [turn])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((rounded.params, rounded.batch_stats)))
    for width, of_width in exact_metrics.widths.items():
        np.testing.assert_allclose(metrics.widths[width].compute()["loss"], of_width.compute()["loss"], rtol=0.03)
    np.testing.assert_allclose(metrics.gradient_norm, exact_metrics.gradient_norm, rtol=0.1)


def test_random_widths_come_from_the_step_and_seed_alone():
    widths = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
    turns = [create_switch_rule("sandwich", widths, 100, seed=3).turn(step) for step in range(100)]
    assert turns == [create_switch_rule("sandwich", widths, 100, seed=3).turn(step) for step in range(100)]
    assert turns != [create_switch_rule("sandwich", widths, 100, seed=4).turn(step) for step in range(100)]
    for turn in turns:
        assert len(turn.widths) == 4
        assert (turn.widths[0], turn.widths[-1]) == (1.0, 0.25)
    assert {width for turn in turns for width in turn.widths} == set(widths)


def test_random_widths_compile_at_most_two_programs_a_width(make_task, meshes):
    task = make_task(widths=(0.25, 0.5, 0.75, 1.0, 1.25))
    tx = sgd(task)
    state, step = state_on(task, tx, meshes[1]), TrainStep(task, tx, meshes[1], False)
    rule = create_switch_rule("sandwich", task.model.widths, 8, seed=0)
    assert len({rule.turn(number).widths for number in range(8)}) == 3
    batch = put_batch(meshes[1], digits(16))
    programs = {id(program) for number in range(8) for program in step.compile(state, batch, rule.turn(number))}
    assert len(programs) == 1 + 4 + 1


def test_an_unknown_rule_is_named():
    with pytest.raises(UserError, match="switch_rule='some' is unknown; choose one of all, sandwich, incremental"):
        create_switch_rule("some", (1.0,), 1, 0)
