"""What trains a network: task, optimiser and step, built from a configuration for the devices of a mesh.

They need not be there: planning builds the very same for devices that are only described.
"""

import math
from dataclasses import dataclass
from functools import reduce
from operator import getitem

import jax
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.nn.plans import check_widths
from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.creation import create_task
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.task import Task
from slimjax.training.mesh import DATA, REPLICATED, check_batch_size, group_devices, platform_of
from slimjax.training.optimizers import check_optimizer, create_optimizer, decay_mask
from slimjax.training.schedules import create_schedule, duration
from slimjax.training.state import TrainState, initial_state
from slimjax.training.step import TrainStep
from slimjax.training.switches import SwitchRule, create_switch_rule


@dataclass(frozen=True)
class Training:
    """The parts of a training that follow from its configuration, its data set's size and its devices.

    Attributes:
      config: the whole configuration.
      task: what is trained.
      mesh: of all devices.
      rule: which widths a step runs, and the number of steps.
      schedule: the learning rate, counted from the beginning of a phase.
      tx: the optimiser.
      train_step: the step.
    """

    config: ConfigDict
    task: Task
    mesh: Mesh
    rule: SwitchRule
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    train_step: TrainStep


def create_training(config: ConfigDict, mesh: Mesh, info: DatasetInfo | None = None) -> Training:
    """Builds what trains, from the checks that need least to those that need most.

    Args:
      config: a whole configuration, see configs/default.py.
      mesh: of all devices; they need not be this machine's.
      info: of the data set; None opens it.

    Raises:
      UserError: for whatever in the configuration is unknown, out of range or not at hand.
    """
    check_batch_size(config.batch_size, mesh.size, config.accumulate_steps)
    groups = group_devices(mesh.size, config.batch_norm_group_size)
    _check_without_data(config)
    task = create_task(config, platform_of(mesh), DATA if groups else None, groups, info)
    _check_freezable(config, task)
    steps_per_epoch = steps_of_an_epoch(config, task)
    num_steps = steps_asked_for(config, steps_per_epoch)
    schedule = create_schedule(config.schedule, config.learning_rate, num_steps, steps_per_epoch)
    tx = create_optimizer(config.optimizer, schedule, decay_mask(task.model))
    return Training(
        config=config,
        task=task,
        mesh=mesh,
        rule=create_switch_rule(config.switch_rule, task.model.widths, num_steps, config.seed),
        schedule=schedule,
        tx=tx,
        train_step=TrainStep(
            task,
            tx,
            mesh,
            _is_fused(config),
            accumulate_steps=config.accumulate_steps,
            ema_decay=config.ema_decay,
        ),
    )


def first_state(training: Training) -> TrainState:
    """The state of a new network; traced, see `initial_state`."""
    config, task = training.config, training.task
    return initial_state(task.model, training.tx, config.seed, task.image_size, averages=config.ema_decay > 0)


def state_shapes(training: Training) -> TrainState:
    """Shapes, dtypes and shardings of the state; nothing is computed."""
    sharding = NamedSharding(training.mesh, REPLICATED)
    shapes = jax.eval_shape(lambda: first_state(training))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def steps_of_an_epoch(config: ConfigDict, task: Task) -> float:
    """Training examples over batch size, not rounded."""
    return task.num_train_examples / config.batch_size


def steps_asked_for(config: ConfigDict, steps_per_epoch: float) -> int:
    """Steps of the training, or of each of its phases; UserError if there are none."""
    num_steps = duration(config, "num_train_steps", "num_epochs", steps_per_epoch)
    if not num_steps:
        raise UserError(
            f"num_train_steps={config.num_train_steps} and num_epochs={config.num_epochs} ask for no step; "
            "set one of them to at least one step"
        )
    return num_steps


def _check_without_data(config: ConfigDict) -> None:
    """Builds once, for any length of an epoch, what can be wrong before the data set is opened, which takes seconds."""
    steps_per_epoch, num_steps = 1.0, steps_asked_for(config, steps_per_epoch=1e9)
    check_ranges(config)
    create_schedule(config.schedule, config.learning_rate, num_steps, steps_per_epoch)
    check_optimizer(config.optimizer)
    create_switch_rule(config.switch_rule, check_widths(config.model.widths), num_steps, config.seed)
    _is_fused(config)


def check_ranges(config: ConfigDict) -> None:
    """UserError that names a number of the configuration that is out of its range."""
    positive, fraction, whole = (math.ulp(0.0), math.inf), (0.0, 1.0), (0, 2**31 - 1)
    ranges = {
        "seed": whole,
        "learning_rate": positive,
        "model.batch_norm_momentum": fraction,
        "schedule.factor": positive,
        "schedule.warmup_factor": fraction,
        "optimizer.weight_decay": (0.0, math.inf),
        "optimizer.clip_norm": (0.0, math.inf),
        "ema_decay": (0.0, 0.99999),
        "log_every_steps": (1, math.inf),
        "keep_checkpoints": (1, math.inf),
        "calibration_batches": (1, math.inf),
    }
    for key, (low, high) in ranges.items():
        value = reduce(getitem, key.split("."), config)
        if not low <= value <= high or value == math.inf:
            least = "positive" if low == math.ulp(0.0) else f"at least {low}"
            allowed = f"finite and {least}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"{key}={value} has to be {allowed}")


def _is_fused(config: ConfigDict) -> bool:
    """Whether the step is one program. `auto`: unless the widths are drawn at random."""
    choices = {"fused": True, "per_width": False}
    if config.step_programs == "auto":
        return config.switch_rule != "sandwich"
    if config.step_programs not in choices:
        raise UserError(f"step_programs={config.step_programs!r} is unknown; choose one of auto, {', '.join(choices)}")
    return choices[config.step_programs]


def _check_freezable(config: ConfigDict, task: Task) -> None:
    paths = jax.tree.leaves_with_path(abstract_variables(task.model)["batch_stats"])
    shared = [path for path, _ in paths if any(getattr(key, "key", "") == "shared" for key in path)]
    if config.switch_rule == "incremental" and shared:
        raise UserError(
            "switch_rule=incremental freezes narrower widths, so no batch norm may be shared between widths; set "
            "model.batch_norm=switchable and, for MobileNet v2, model.tail_bn=private"
        )
