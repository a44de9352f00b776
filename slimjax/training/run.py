"""A run: everything that training, evaluation and calibration need, built and checked before anything compiles."""

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.nn.plans import check_widths
from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.classification.task import create_task
from slimjax.tasks.task import Task
from slimjax.training.checkpoints import Checkpoints, Description, check_continues, check_same_network, describe
from slimjax.training.mesh import DATA, REPLICATED, check_batch_size, check_platform, data_mesh, group_devices
from slimjax.training.optimizers import check_optimizer, create_optimizer, decay_mask
from slimjax.training.processes import check_is_connected
from slimjax.training.schedules import create_schedule, duration
from slimjax.training.state import TrainState, initial_state
from slimjax.training.step import TrainStep
from slimjax.training.switches import SwitchRule, create_switch_rule


@dataclass(frozen=True)
class Cadence:
    """How often the loop does what it does beside training.

    Attributes:
      log_every_steps: training metrics.
      eval_every_steps: evaluations.
      checkpoint_every_steps: checkpoints.
    """

    log_every_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int


@dataclass(frozen=True)
class Run:
    """The parts of a run.

    Attributes:
      config: the whole configuration.
      workdir: where checkpoints and logs are.
      task: what is trained.
      mesh: of all devices.
      rule: which widths a step runs, and the number of steps.
      schedule: the learning rate, counted from the beginning of a stage.
      tx: the optimiser.
      train_step: the step.
      cadence: of logs, evaluations and checkpoints.
      checkpoints: of the workdir.
    """

    config: ConfigDict
    workdir: Path
    task: Task
    mesh: Mesh
    rule: SwitchRule
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    train_step: TrainStep
    cadence: Cadence
    checkpoints: Checkpoints

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return self.task.model.num_classes

    def description(self, step: int) -> Description:
        """What a checkpoint of this run says of itself after `step` updates."""
        return describe(self.config, self.num_classes, step)


def create_run(config: ConfigDict, workdir: Path) -> Run:
    """Builds a run.

    Raises:
      UserError: for whatever in the configuration is unknown, out of range or not at hand.
    """
    check_platform(config.platform)
    check_is_connected()
    mesh = data_mesh()
    check_batch_size(config.batch_size, mesh.size)
    groups = group_devices(mesh.size, config.batch_norm_group_size)
    _check_without_data(config, mesh)
    task = create_task(config, DATA if groups else None, groups)
    _check_freezable(config, task)
    steps_per_epoch = task.num_train_examples / config.batch_size
    num_steps = _num_steps(config, steps_per_epoch)
    schedule = create_schedule(config.schedule, config.learning_rate, num_steps, steps_per_epoch)
    tx = create_optimizer(config.optimizer, schedule, decay_mask(task.model))
    rule = create_switch_rule(config.switch_rule, task.model.widths, num_steps, config.seed)
    return Run(
        config=config,
        workdir=workdir,
        task=task,
        mesh=mesh,
        rule=rule,
        schedule=schedule,
        tx=tx,
        train_step=TrainStep(task, tx, mesh, _is_fused(config, mesh)),
        cadence=_cadence(config, rule.num_steps, steps_per_epoch),
        checkpoints=Checkpoints(workdir, config.keep_checkpoints),
    )


def _check_without_data(config: ConfigDict, mesh: Mesh) -> None:
    """Builds once, for any length of an epoch, what can be wrong before the data set is opened, which takes seconds."""
    steps_per_epoch, num_steps = 1.0, _num_steps(config, steps_per_epoch=1e9)
    check_ranges(config)
    create_schedule(config.schedule, config.learning_rate, num_steps, steps_per_epoch)
    check_optimizer(config.optimizer)
    create_switch_rule(config.switch_rule, check_widths(config.model.widths), num_steps, config.seed)
    _is_fused(config, mesh)
    _cadence(config, num_steps, steps_per_epoch)


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
        "log_every_steps": (1, math.inf),
        "keep_checkpoints": (1, math.inf),
        "calibration_batches": (1, math.inf),
    }
    for key, (low, high) in ranges.items():
        value = reduce(getitem, key.split("."), config)
        if not low <= value <= high or value == math.inf:
            allowed = "positive" if low == math.ulp(0.0) else f"between {low} and {high}"
            raise UserError(f"{key}={value} has to be {allowed}")


def _num_steps(config: ConfigDict, steps_per_epoch: float) -> int:
    num_steps = duration(config, "num_train_steps", "num_epochs", steps_per_epoch)
    if not num_steps:
        raise UserError(
            f"num_train_steps={config.num_train_steps} and num_epochs={config.num_epochs} ask for no step; "
            "set one of them to at least one step"
        )
    return num_steps


def _is_fused(config: ConfigDict, mesh: Mesh) -> bool:
    """Whether the step is one program. `auto`: on accelerators, unless the widths are drawn at random."""
    choices = {"fused": True, "per_width": False}
    if config.step_programs == "auto":
        return mesh.devices.flat[0].platform != "cpu" and config.switch_rule != "sandwich"
    if config.step_programs not in choices:
        raise UserError(f"step_programs={config.step_programs!r} is unknown; choose one of auto, {', '.join(choices)}")
    return choices[config.step_programs]


def _cadence(config: ConfigDict, num_steps: int, steps_per_epoch: float) -> Cadence:
    def every(what: str) -> int:
        """Steps between two of them; those that are not asked for come at the end alone."""
        steps = duration(config, f"{what}_steps", f"{what}_epochs", steps_per_epoch)
        if steps == 0:
            raise UserError(f"{what}_steps or {what}_epochs comes to 0 steps; give more, or None for the end alone")
        return num_steps if steps is None else steps

    return Cadence(config.log_every_steps, every("eval_every"), every("checkpoint_every"))


def state_shapes(run: Run) -> TrainState:
    """Shapes, dtypes and shardings of the run's state."""
    sharding = NamedSharding(run.mesh, REPLICATED)
    shapes = jax.eval_shape(lambda: initial_state(run.task.model, run.tx, run.config.seed, run.task.image_size))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def new_state(run: Run) -> TrainState:
    """The state before the first step, of a new network or of another run's weights (`init_from`)."""
    sharding = NamedSharding(run.mesh, REPLICATED)
    create = jax.jit(
        lambda: initial_state(run.task.model, run.tx, run.config.seed, run.task.image_size), out_shardings=sharding
    )
    state = create()
    return _with_weights_of(run, state) if run.config.init_from else state


def _check_freezable(config: ConfigDict, task: Task) -> None:
    paths = jax.tree.leaves_with_path(abstract_variables(task.model)["batch_stats"])
    shared = [path for path, _ in paths if any(getattr(key, "key", "") == "shared" for key in path)]
    if config.switch_rule == "incremental" and shared:
        raise UserError(
            "switch_rule=incremental freezes narrower widths, so no batch norm may be shared between widths; set "
            "model.batch_norm=switchable and, for MobileNet v2, model.tail_bn=private"
        )


def check_start(config: ConfigDict, workdir: Path) -> None:
    """UserError if a run in a new workdir is to start from weights that are not there."""
    if config.init_from and not Checkpoints(workdir).steps():
        try:
            _checkpoints_to_start_from(config).find("latest")
        except UserError as error:
            raise UserError(f"init_from={config.init_from!r}: {error}") from None


def _checkpoints_to_start_from(config: ConfigDict) -> Checkpoints:
    return Checkpoints(Path(config.init_from).expanduser())


def _with_weights_of(run: Run, state: TrainState) -> TrainState:
    source = _checkpoints_to_start_from(run.config)
    step = source.find("latest")
    stored = source.description(step)
    check_same_network(stored, run.config, run.num_classes, source.directory / str(step), "config.init_from")
    weights = source.restore_weights(step, state_shapes(run))
    source.close()
    return state.replace(params=weights.params, batch_stats=weights.batch_stats)


def restored_state(run: Run, step: int) -> TrainState:
    """The state of one of the run's own checkpoints.

    Raises:
      UserError: if it is damaged, of another network, or of a run that this configuration cannot continue.
    """
    stored = run.checkpoints.description(step)
    path = run.checkpoints.directory / str(step)
    check_same_network(stored, run.config, run.num_classes, path)
    check_continues(stored, run.config, path)
    return run.checkpoints.restore(step, state_shapes(run))


def state_to_calibrate(run: Run, step: int) -> tuple[TrainState, Description]:
    """The state of one of the run's own checkpoints, and what that says of itself.

    Raises:
      UserError: if it is damaged or of another network.
    """
    stored = run.checkpoints.description(step)
    check_same_network(stored, run.config, run.num_classes, run.checkpoints.directory / str(step))
    # What the optimiser keeps is laid out as when it was trained.
    tx = create_optimizer(ConfigDict(stored.config["optimizer"]), run.schedule, decay_mask(run.task.model))
    return run.checkpoints.restore(step, state_shapes(replace(run, tx=tx))), stored


def trained_weights(run: Run, which: str) -> tuple[int, Any]:
    """A checkpoint to evaluate.

    Args:
      run: whose checkpoints they are.
      which: `latest`, `best`, or a step.

    Returns:
      The step and a TrainState without an optimiser's state.

    Raises:
      UserError: if there is no such checkpoint or it is not this network's.
    """
    step = run.checkpoints.find(which)
    stored = run.checkpoints.description(step)
    check_same_network(stored, run.config, run.num_classes, run.checkpoints.directory / str(step))
    return step, run.checkpoints.restore_weights(step, state_shapes(run))
