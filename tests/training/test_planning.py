"""Planned steps against counts by hand on 8 fake devices, and the search for the largest batch."""

import dataclasses

import jax
import pytest
from flax.traverse_util import flatten_dict
from slimjax.configs import default

from slimjax import UserError
from slimjax.analysis.profile import profile_model
from slimjax.analysis.program_costs import ProgramCost, StepCost
from slimjax.tasks.classification.task import ClassificationTask, create_task
from slimjax.tasks.dtypes import compute_dtype
from slimjax.training.mesh import data_mesh
from slimjax.training.optimizers import create_optimizer, decay_mask
from slimjax.training.planning import costliest_turn, find_largest_batch, step_cost, training_without_data
from slimjax.training.prefetch import device_batches
from slimjax.training.progress import Progress
from slimjax.training.setup import Training, state_shapes
from slimjax.training.step import TrainStep
from slimjax.training.switches import Turn, create_switch_rule

DEVICES, BATCH = 8, 32
OF_ONE_IMAGE = 4 * 16 * 16 * 3 + 4  # float32 pixels and an int32 label


@pytest.fixture(scope="module")
def training(make_task):
    """Of a small network at three widths."""
    config, task = default.get_config(), make_task()
    tx = create_optimizer(config.optimizer, lambda step: 0.1, decay_mask(task.model))
    rule = create_switch_rule("all", task.model.widths, 100, seed=0)
    mesh = data_mesh()
    return lambda fused: Training(config, task, mesh, rule, lambda step: 0.1, tx, TrainStep(task, tx, mesh, fused))


@pytest.fixture(scope="module")
def planned(training):
    """The costs of all widths' step, fused and not, and of a step without the middle width."""
    turns = {"fused": (1.0, 0.5, 0.25), "per_width": (1.0, 0.5, 0.25), "sandwich": (1.0, 0.25)}
    return {
        name: step_cost(training(name == "fused"), Turn(widths), BATCH, Progress(enabled=False))
        for name, widths in turns.items()
    }


@pytest.fixture(scope="module")
def sizes(training):
    """Bytes of the state and its parts; `own` by the index of a width, and `shared`, are what programs hand on."""
    state = state_shapes(training(True))

    def size(tree):
        return sum(4 * leaf.size for leaf in jax.tree.leaves(tree))

    arrays = [*flatten_dict(state.params).items(), *flatten_dict(state.batch_stats).items()]
    own = [sum(size(leaf) for path, leaf in arrays if f"switch_{switch}" in path) for switch in range(3)]
    return {
        "leaves": len(jax.tree.leaves(state)),
        "state": size(state),
        "params": size(state.params),
        "batch_stats": size(state.batch_stats),
        "own": dict(zip((0.25, 0.5, 1.0), own, strict=True)),
        "shared": size(state.params) + size(state.batch_stats) - sum(own),
        "batch": BATCH // DEVICES * OF_ONE_IMAGE,
        # The stem keeps the resolution and has 32 channels, and a gradient of the same size.
        "stem": BATCH // DEVICES * 16 * 16 * 32 * 4,
        "stem_kernel": 3 * 3 * 3 * 32 * 4,
    }


def test_a_fused_step_is_given_the_state_and_a_share_of_the_batch(planned, sizes):
    (fused,) = planned["fused"].programs
    assert fused.name == "fused"
    assert fused.argument_bytes == sizes["state"] + sizes["batch"]
    # The state is updated in place; what else comes out are metrics, and a table of 8 bytes for each output.
    assert fused.aliased_bytes == sizes["state"]
    assert sizes["state"] <= fused.output_bytes <= sizes["state"] + 8 * sizes["leaves"] + 500
    assert fused.beside_bytes == 0
    assert fused.temporary_bytes > 0
    assert planned["fused"].peak_bytes == fused.argument_bytes + fused.temporary_bytes + (
        fused.output_bytes - fused.aliased_bytes
    )


def test_between_programs_the_state_the_batch_and_what_widths_handed_on_stay_alive(planned, sizes):
    *widths, update = planned["per_width"].programs
    assert [program.name for program in widths] == ["width 1", "width 0.5", "width 0.25"]
    assert update.name == "update"
    alive = sizes["state"] + sizes["batch"]
    handed_on = {width: sizes["own"][width] for width in (1.0, 0.5, 0.25)}
    # Gradients and statistics of what is shared; of the stem, its output and the gradient of that.
    handed_on[1.0] += sizes["shared"] - sizes["stem_kernel"] + 2 * sizes["stem"]
    for handed, program in zip(handed_on.values(), widths, strict=True):
        assert program.argument_bytes + program.beside_bytes == alive, program.name
        alive += handed
        assert 0 <= program.output_bytes - program.aliased_bytes - handed <= 500
    # The stem's output is gone. The update is told, in a byte for each, which widths have run.
    assert update.argument_bytes + update.beside_bytes == alive - sizes["stem"] + 3
    assert planned["per_width"].peak_bytes == max(program.peak_bytes for program in (*widths, update))


def test_what_a_width_hands_on_that_does_not_run_is_alive_as_zeros(planned, sizes):
    first, *_, update = planned["sandwich"].programs
    alive = sizes["state"] + sizes["batch"] + sizes["own"][0.5]
    assert first.argument_bytes + first.beside_bytes == alive
    others = sizes["shared"] - sizes["stem_kernel"] + sizes["stem"] + sizes["own"][1.0] + sizes["own"][0.25]
    assert update.argument_bytes + update.beside_bytes == alive + others + 3


@pytest.mark.parametrize("name", ["fused", "per_width"])
def test_devices_exchange_parameters_and_statistics_once(planned, sizes, name):
    # Every width adds 6 scalars of metrics.
    exact = sizes["params"] + sizes["batch_stats"]
    assert exact <= planned[name].all_reduced_bytes <= exact + 3 * 6 * 4


@pytest.mark.parametrize("name", ["fused", "per_width"])
def test_operations_are_about_three_forward_passes(planned, training, name):
    """A backward pass has two products for one forward, except in the stem; batch norms and the like come on top."""
    macs = sum(row.macs for row in profile_model(training(True).task.model, 16))
    by_hand = 3 * 2 * macs * BATCH / DEVICES
    assert 0.9 * by_hand < planned[name].flops < 1.6 * by_hand


@pytest.mark.parametrize("fused", [True, False])
def test_accumulated_parts_are_all_counted(training, planned, fused):
    whole = training(fused)
    config = whole.config.copy_and_resolve_references()
    config.accumulate_steps = 2
    step = TrainStep(whole.task, whole.tx, whole.mesh, fused, accumulate_steps=2)
    in_parts = dataclasses.replace(whole, config=config, train_step=step)
    cost = step_cost(in_parts, Turn((1.0, 0.5, 0.25)), BATCH, Progress(enabled=False))
    # The parts' gradients are added up as well, and a fused step's update is counted twice.
    assert cost.flops == pytest.approx(planned["fused" if fused else "per_width"].flops, rel=0.15)


def test_batches_have_the_shapes_that_the_pipeline_gives(data_dir):
    config = default.get_config()
    config.num_train_steps, config.dataset.data_dir = 10, str(data_dir)
    task = create_task(config, "cpu")
    batch = next(device_batches(data_mesh(), task.train_batches(0)))
    shapes = task.batch_shapes(config.batch_size)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in shapes.items()
    }


def test_the_devices_decide_the_dtype():
    assert [compute_dtype("auto", platform).__name__ for platform in ("cpu", "gpu", "tpu")] == [
        "float32",
        "bfloat16",
        "bfloat16",
    ]
    assert compute_dtype("float32", "tpu").__name__ == "float32"


@pytest.mark.parametrize(
    "durations",
    [
        {"num_train_steps": 100, "schedule.warmup_epochs": 5.0},
        {"num_epochs": 2.0, "schedule.warmup_steps": 500},
        {"num_epochs": 480.0, "schedule.name": "linear"},
    ],
)
def test_any_durations_that_may_be_valid_can_be_planned(durations):
    config = default.get_config()
    config.model.widths = (1.0,)
    config.update_from_flattened_dict(durations)
    training = training_without_data(config, jax.devices(), 10)
    assert isinstance(training.task, ClassificationTask)
    assert training.task.model.num_classes == 10
    assert training.mesh.size == DEVICES


def test_mistakes_show_before_anything_is_compiled():
    config = default.get_config()
    config.num_train_steps, config.batch_size = 10, 60
    with pytest.raises(UserError, match="batch_size=60 does not divide over 8 devices; the nearest that does is 64"):
        training_without_data(config, jax.devices(), 10)


def test_the_costliest_turn_is_planned():
    widths = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
    assert costliest_turn(create_switch_rule("all", widths, 1, 0)).widths == widths[::-1]
    assert costliest_turn(create_switch_rule("incremental", widths, 1000, 0)).widths == (1.0,)
    assert costliest_turn(create_switch_rule("sandwich", widths, 1000, 0)).widths == (1.0, 0.85, 0.75, 0.25)


def searched(peak_of, memory, start, devices=4):
    """The result of a search among made-up costs; `peak_of` images a device, None where a compiler refuses."""
    tried = []

    def cost_of(batch_size):
        tried.append(batch_size)
        peak, images = peak_of(batch_size // devices), batch_size // devices
        assert batch_size % devices == 0
        if peak is None:
            return StepCost(batch_size, (), memory * 2 * images)
        return StepCost(batch_size, (ProgramCost("step", peak, 0, 0, 0, 0, 0, 0.0, 0.0, 0, 0),))

    first = cost_of(start * devices)
    found = find_largest_batch(first, cost_of, memory, devices)
    assert list(found.compiled) == tried
    return found


@pytest.mark.parametrize("start", [1, 10, 64, 100, 700, 1000])
def test_four_compilations_find_the_largest_batch_of_affine_memory(start):
    found = searched(lambda images: 1000 + 7 * images, memory=1000 + 7 * 700 + 3, start=start)
    assert (found.batch_size, found.next_batch_size) == (4 * 696, 4 * 704) if start != 700 else (2800, 2816)
    assert found.peak_bytes <= 1000 + 7 * 700 + 3 < found.next_peak_bytes
    assert len(found.compiled) <= 4


@pytest.mark.parametrize("memory", [1, 1013, 1014, 1020, 1430, 1440, 1447, 1448, 1449, 9999])
def test_the_batch_that_is_found_fits_and_the_next_does_not(memory):
    def peak(images):
        # Two slopes and a step, like programs of which now this one and now that one is the largest.
        return max(1000 + 7 * images, 700 + 12 * images) + (40 if images > 50 else 0)

    found = searched(peak, memory, start=16)
    images, above = found.batch_size // 4, found.next_batch_size // 4
    assert above - images == (8 if images >= 64 else 1)
    assert peak(above) > memory
    assert not images or peak(images) <= memory
    assert len(found.compiled) <= 12


def test_nothing_fits():
    found = searched(lambda images: 1000 * images, memory=999, start=8)
    assert (found.batch_size, found.next_batch_size, found.peak_bytes, found.next_peak_bytes) == (0, 4, 0, 1000)


def test_batches_that_the_compiler_refuses_are_searched_around():
    found = searched(lambda images: 100 + images if images <= 90 else None, memory=1000, start=512)
    assert (found.batch_size, found.next_batch_size) == (4 * 88, 4 * 96)
