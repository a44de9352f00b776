"""A run: everything that training, evaluation and calibration need, built and checked before anything compiles."""

from dataclasses import dataclass, replace

import jax
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from slimjax.errors import UserError
from slimjax.models.network import BACKBONE
from slimjax.paths import folder_path
from slimjax.training.checkpoints import Checkpoints, Description, check_continues, check_same_network, describe
from slimjax.training.mesh import REPLICATED, check_platform, data_mesh
from slimjax.training.optimizers import create_optimizer, decay_mask
from slimjax.training.processes import check_is_connected
from slimjax.training.schedules import duration
from slimjax.training.setup import (
    Training,
    create_training,
    first_state,
    state_shapes,
    steps_asked_for,
    steps_of_an_epoch,
)
from slimjax.training.state import TrainState, Weights


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
class Run(Training):
    """A training with its place.

    Attributes:
      workdir: where checkpoints and logs are.
      cadence: of logs, evaluations and checkpoints.
      checkpoints: of the workdir.
    """

    workdir: epath.Path
    cadence: Cadence
    checkpoints: Checkpoints

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier, or categories of objects."""
        return self.task.model.num_classes

    def description(self, step: int) -> Description:
        """What a checkpoint of this run says of itself after `step` updates."""
        return describe(self.config, self.num_classes, step, self.task.info)


def create_run(config: ConfigDict, workdir: epath.Path) -> Run:
    """Builds a run.

    Raises:
      UserError: for whatever in the configuration is unknown, out of range or not at hand.
    """
    check_platform(config.platform)
    check_is_connected()
    # Checked before the data set is opened, which takes seconds, with epochs so long that nothing comes to no step.
    long_epoch = 1e9
    _cadence(config, steps_asked_for(config, long_epoch), long_epoch)
    training = create_training(config, data_mesh())
    return Run(
        **vars(training),
        workdir=workdir,
        cadence=_cadence(config, training.rule.num_steps, steps_of_an_epoch(config, training.task)),
        checkpoints=Checkpoints(workdir, config.keep_checkpoints),
    )


def _cadence(config: ConfigDict, num_steps: int, steps_per_epoch: float) -> Cadence:
    def every(what: str) -> int:
        """Steps between two of them; those that are not asked for come at the end alone."""
        steps = duration(config, f"{what}_steps", f"{what}_epochs", steps_per_epoch)
        if steps == 0:
            raise UserError(f"{what}_steps or {what}_epochs comes to 0 steps; give more, or None for the end alone")
        return num_steps if steps is None else steps

    return Cadence(config.log_every_steps, every("eval_every"), every("checkpoint_every"))


def new_state(run: Run) -> TrainState:
    """The state before the first step, of a new network or of another run's weights (`init_from`)."""
    sharding = NamedSharding(run.mesh, REPLICATED)
    state = jax.jit(lambda: first_state(run), out_shardings=sharding)()
    return state.starting_from(_other_weights(run, state)) if run.config.init_from else state


def check_start(config: ConfigDict, workdir: epath.Path) -> None:
    """UserError if a run in a new workdir is to start from weights that are not there, or nobody has named."""
    if not (config.init_classifier or config.init_from):
        raise UserError(
            "init_classifier=False says nothing alone; give --config.init_from too, the run whose weights are taken"
        )
    begins = not Checkpoints(workdir).steps()
    if config.task == "detection" and begins and not config.init_from:
        section = config.detection
        if section.frozen_stages or section.frozen_batch_norm:
            raise UserError(
                f"detection.frozen_stages={section.frozen_stages} and frozen_batch_norm={section.frozen_batch_norm} "
                "keep parts of the backbone as they are, which nobody has trained; give --config.init_from, the "
                "workdir of a trained ResNet, or set them to 0 and False"
            )
    if config.init_from and begins:
        try:
            _checkpoints_to_start_from(config).find("latest")
        except UserError as error:
            reason = str(error).replace("--workdir", "init_from")
            raise UserError(f"init_from={config.init_from!r}: {reason}") from None


def _checkpoints_to_start_from(config: ConfigDict) -> Checkpoints:
    return Checkpoints(folder_path(config.init_from, "config.init_from"))


def _other_weights(run: Run, new: TrainState) -> Weights:
    """Those of the run that `init_from` names, with a new classifier where the other's is not wanted."""
    source = _checkpoints_to_start_from(run.config)
    step = source.find("latest")
    stored = source.description(step)
    if run.config.task == "detection" and stored.config["task"] == "classification":
        return _with_backbone(run, new, source, step)
    path = source.directory / str(step)
    anew = not run.config.init_classifier
    check_same_network(stored, run.config, None if anew else run.num_classes, path, "config.init_from")
    shapes = state_shapes(run)
    ours = {place for place in flatten_dict(new.params) if anew and _is_of_classes(run, place)}
    theirs = {place: shape for place, shape in flatten_dict(shapes.params).items() if place not in ours}
    weights = source.restore_weights(step, Weights(unflatten_dict(theirs), shapes.batch_stats))
    source.close()
    kept = {place: array for place, array in flatten_dict(new.params).items() if place in ours}
    return weights.replace(params=unflatten_dict({**flatten_dict(weights.params), **kept}))


def _is_of_classes(run: Run, place: tuple[str, ...]) -> bool:
    """Whether a parameter is of a layer whose size follows from the number of classes."""
    return any(place[: len(layer)] == layer for layer in run.task.model.class_layers)


def _with_backbone(run: Run, new: TrainState, source: Checkpoints, step: int) -> Weights:
    """The weights of a new detector, those of its backbone a classifier's."""
    path = source.directory / str(step)
    check_same_network(
        source.description(step), run.config, None, path, "config.init_from", ignored=("task", "detection")
    )
    shapes = state_shapes(run)
    restored = source.restore_weights(step, Weights(shapes.params[BACKBONE], shapes.batch_stats[BACKBONE]))
    source.close()
    return Weights({**new.params, BACKBONE: restored.params}, {**new.batch_stats, BACKBONE: restored.batch_stats})


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
    # What the optimiser and the averages keep is laid out as when it was trained.
    tx = create_optimizer(ConfigDict(stored.config["optimizer"]), run.schedule, decay_mask(run.task.model))
    config = run.config.copy_and_resolve_references()
    config.ema_decay = stored.config["ema_decay"]
    return run.checkpoints.restore(step, state_shapes(replace(run, tx=tx, config=config))), stored


def trained_weights(run: Run, which: str) -> tuple[int, Weights]:
    """A checkpoint to evaluate.

    Args:
      run: whose checkpoints they are.
      which: `latest`, `best`, or a step.

    Returns:
      The step and its weights: moving averages where the run has kept some.

    Raises:
      UserError: if there is no such checkpoint or it is not this network's.
    """
    step = run.checkpoints.find(which)
    stored = run.checkpoints.description(step)
    check_same_network(stored, run.config, run.num_classes, run.checkpoints.directory / str(step))
    return step, run.checkpoints.restore_weights(step, state_shapes(run))
