"""The task of detection in the trainer's hands: what it is given, what it leaves frozen, and how devices share it."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding
from slimjax.configs import published, shapes_keypoint_rcnn

from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.builders import prepare
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.detection.data.opening import open_data
from slimjax.tasks.detection.data.shapes import write_shapes
from slimjax.tasks.detection.task import DetectionTask, example_settings, sampling_keys
from slimjax.training.evaluation import Evaluator
from slimjax.training.mesh import REPLICATED, SPLIT, data_mesh
from slimjax.training.optimizers import create_optimizer, decay_mask
from slimjax.training.planning import step_cost
from slimjax.training.prefetch import device_batches
from slimjax.training.progress import Progress
from slimjax.training.setup import Training
from slimjax.training.state import initial_state
from slimjax.training.step import TrainStep
from slimjax.training.switches import Turn, create_switch_rule

SPLITS = {"train2017": 40, "val2017": 13}
INFO = DatasetInfo("coco/instances", 3, *SPLITS.values(), ("disc", "box", "triangle"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Wide images of 64 x 96 pixels and tall ones."""
    folder, data_dir = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("data")
    write_shapes(folder, SPLITS, seed=2)
    prepare("coco/instances", str(data_dir), str(folder), "array_record")
    config = shapes_keypoint_rcnn.get_config()
    config.detection.masks = True
    config.detection.short_side, config.detection.long_side = 64, 96
    config.batch_size = 8
    config.dataset.name, config.dataset.data_dir = "coco/instances", str(data_dir)
    config.dataset.train_split, config.dataset.eval_split = SPLITS
    return config


@pytest.fixture(scope="module")
def task(config, create_small_detector):
    return DetectionTask(config, create_small_detector((1.0,)), INFO, open_data(config, example_settings(config)))


def wide_batch(task):
    """Of wide images, as a step takes it."""
    batches = device_batches(data_mesh(jax.devices()[:1]), task.train_batches(0))
    return jax.device_get(next(batch for batch in batches if batch["image"].shape[2] > batch["image"].shape[1]))


def test_what_is_planned_for_is_what_the_pipeline_gives(task, config):
    planned = task.batch_shapes(config.batch_size)
    wide = wide_batch(task)
    assert {name: (array.shape, array.dtype) for name, array in wide.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in planned.items()
    }


def test_every_image_of_every_step_has_random_numbers_of_its_own(task):
    batches = task.train_batches(0)
    seeds = np.concatenate([next(batches)["seed"] for _ in range(4)])
    assert len(set(seeds.tolist())) == len(seeds)


def test_every_width_samples_by_random_numbers_of_its_own():
    seeds = np.array([7, 8], np.uint32)
    keys = [jax.random.key_data(sampling_keys(seeds, switch)) for switch in range(4)]
    assert len({tuple(key.tolist()) for of_width in keys for key in of_width}) == 8
    again = jax.random.key_data(sampling_keys(seeds, 2))
    np.testing.assert_array_equal(keys[2], again)


def test_the_stem_the_first_stage_and_the_batch_norms_are_frozen(task):
    frozen = {"/".join(path): is_frozen for path, is_frozen in flatten_dict(task.frozen_parameters()).items()}
    first = ("backbone/stem/", "backbone/block_1/")
    for path, is_frozen in frozen.items():
        is_norm = path.startswith("backbone/") and path.endswith(("/scale", "/bias"))
        assert is_frozen == (path.startswith(first) or is_norm), path
    assert 0 < sum(frozen.values()) < len(frozen)


@pytest.fixture
def boxes_alone(config, task, create_small_detector):
    """A task of two widths and the recipe's optimiser of it, at one rate; without other heads it compiles soon."""
    task = DetectionTask(config, create_small_detector(masks=False, num_keypoints=0), INFO, task.data)
    return task, create_optimizer(published.coco("slimmable").optimizer, lambda step: 0.01, decay_mask(task.model))


def first_state(task, tx):
    return jax.jit(lambda: initial_state(task.model, tx, seed=1, image_size=64, averages=False))()


def train(task, tx, state, batch, num_devices, steps):
    """The state after some steps of all widths on one batch, and the metrics of each."""
    mesh = data_mesh(jax.devices()[:num_devices])
    state = jax.device_put(jax.device_get(state), NamedSharding(mesh, REPLICATED))
    batch = jax.device_put(batch, NamedSharding(mesh, SPLIT))
    step, turn, metrics = TrainStep(task, tx, mesh, fused=True), Turn(task.model.widths[::-1]), []
    for _ in range(steps):
        state, of_step = step(state, batch, turn)
        metrics.append(of_step)
    return jax.device_get(state), jax.device_get(metrics)


def test_a_step_is_the_same_on_two_devices_and_leaves_alone_what_is_frozen(boxes_alone):
    task, tx = boxes_alone
    first, batch = first_state(task, tx), wide_batch(task)
    states, metrics = {}, {}
    for count in (1, 2):
        states[count], (metrics[count],) = train(task, tx, first, batch, count, steps=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), states[1], states[2])
    before, after = first.params, states[1].params
    for still, old, new in zip(*map(jax.tree.leaves, (task.frozen_parameters(), before, after)), strict=True):
        assert np.array_equal(old, new) == still
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(first.batch_stats), states[1].batch_stats)
    for of_width in metrics[1].widths.values():
        losses = of_width.compute()
        parts = {"rpn_class", "rpn_box", "box_class", "box"}
        assert losses.keys() == {"loss", *parts}
        assert float(losses["loss"]) == pytest.approx(sum(float(losses[part]) for part in parts), rel=1e-5)
    assert metrics[1].widths.keys() == set(task.model.widths)


def test_every_width_learns_a_batch_by_heart(boxes_alone):
    task, tx = boxes_alone
    _, metrics = train(task, tx, first_state(task, tx), wide_batch(task), num_devices=1, steps=30)
    for width in task.model.widths:
        losses = [float(of_step.widths[width].compute()["loss"]) for of_step in metrics]
        assert np.mean(losses[-3:]) < 0.65 * losses[0], (width, losses)


@pytest.mark.slow
def test_every_image_is_judged_once_on_any_number_of_devices(task):
    variables = jax.jit(task.model.init)(jax.random.key(0), np.zeros((1, 64, 96, 3), np.float32))
    by_devices = {}
    for count in (1, 8):
        mesh = data_mesh(jax.devices()[:count])
        metrics = Evaluator(task, mesh, Progress(enabled=False)).metrics(variables["params"], variables["batch_stats"])
        judged = {}
        for batch in metrics[1.0].on_host().batches:
            for row in np.flatnonzero(batch["mask"]):
                index = int(batch["index"][row])
                assert index not in judged
                judged[index] = {name: batch[name][row] for name in ("boxes", "scores", "labels")}
        by_devices[count] = judged
    assert sorted(by_devices[8]) == list(range(SPLITS["val2017"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), by_devices[1], by_devices[8])


@pytest.mark.slow
def test_devices_exchange_what_is_learned_once(config, create_small_detector):
    """For all widths together, and nothing of what is frozen."""
    task = DetectionTask(config, create_small_detector((0.5, 1.0)), INFO)
    tx = create_optimizer(config.optimizer, lambda step: 0.1, decay_mask(task.model))
    rule, mesh = create_switch_rule("all", task.model.widths, 100, seed=0), data_mesh()
    training = Training(config, task, mesh, rule, lambda step: 0.1, tx, TrainStep(task, tx, mesh, fused=True))
    cost = step_cost(training, Turn((1.0, 0.5)), mesh.size, Progress(enabled=False))
    variables = abstract_variables(task.model)
    frozen = jax.tree.leaves(task.frozen_parameters())
    learned = [leaf.size for leaf, still in zip(jax.tree.leaves(variables["params"]), frozen, strict=True) if not still]
    exact = 4 * (sum(learned) + sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"])))
    # The loss, its 6 parts and the number of images, of both widths, and a few more.
    assert exact <= cost.all_reduced_bytes <= exact + 4 * 20
