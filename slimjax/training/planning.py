"""What a training step costs on devices that need not be there: compiled as training compiles it, and never run."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from slimjax.analysis.cost_cache import CostCache
from slimjax.analysis.plan_report import LargestBatch
from slimjax.analysis.program_costs import ProgramCost, StepCost, bytes_on_device, program_cost, refused_bytes
from slimjax.compilation import compile_all
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.training.mesh import SPLIT, data_mesh, platform_of
from slimjax.training.progress import Progress
from slimjax.training.setup import Training, create_training, state_shapes
from slimjax.training.switches import SwitchRule, Turn

_LOOKED_AT = 64
"""Steps whose turns are compared; a rule that draws widths at random comes to its costliest turn within these."""

_FINE = 64
"""Images a device up to which a search looks at every number of them."""

_PREDICTIONS = 6
"""Batches after which a search halves instead of predicting."""


def training_without_data(config: ConfigDict, devices: Sequence[jax.Device], num_classes: int) -> Training:
    """What trains, for a data set of which only the number of classes is known.

    An epoch is given a length at which any duration that may be valid is. It decides constants of the schedule alone.

    Args:
      config: a whole configuration, see configs/default.py.
      devices: of the training; they need not be there.
      num_classes: outputs of the classifier.

    Raises:
      UserError: for whatever in the configuration is unknown or out of range.
    """
    steps_per_epoch = 1 if config.num_epochs is None else 10_000
    examples = config.batch_size * steps_per_epoch
    info = DatasetInfo(config.dataset.name, num_classes, examples, examples, class_names=())
    return create_training(config, data_mesh(devices), info)


def costliest_turn(rule: SwitchRule) -> Turn:
    """The turn with the largest widths among a rule's first ones and its last."""
    steps = [*range(min(_LOOKED_AT, rule.num_steps)), rule.num_steps - 1]
    return max(map(rule.turn, steps), key=lambda turn: sum(turn.widths))


def step_cost(
    training: Training, turn: Turn, batch_size: int, progress: Progress, cache: CostCache | None = None
) -> StepCost:
    """Compiles a turn's programs for a batch size, and says what they cost on each device.

    Args:
      training: whose step it is.
      turn: the widths of the step.
      batch_size: images over all devices; need not be the configuration's.
      progress: told of every program, since each can take minutes.
      cache: of costs that are known from earlier.
    """
    state, sharding = state_shapes(training), NamedSharding(training.mesh, SPLIT)
    batch = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for name, leaf in training.task.batch_shapes(batch_size).items()
    }
    lowered = training.train_step.lower(state, batch, turn)
    alive = map(bytes_on_device, training.train_step.alive_beside(state, batch, turn))
    beside = dict(zip(lowered, alive, strict=True))
    numbers = {name: number for number, name in enumerate(lowered, start=1)}

    def cost_of(name: str) -> ProgramCost:
        program, what = lowered[name], f"batch {batch_size}: program {numbers[name]} of {len(lowered)} ({name})"
        if cache and (known := cache.find(program, name, beside[name])):
            progress.say(f"{what}: known from earlier")
            return known
        with progress.announced(f"{what}: compiling"):
            # XLA counts a loop's body once, which here takes as many parts of the batch as are accumulated.
            repeats = training.config.accumulate_steps if name != "update" else 1
            cost = program_cost(name, program.compile(), beside[name], repeats)
        if cache:
            cache.keep(program, cost)
        return cost

    try:
        costs = compile_all(platform_of(training.mesh), cost_of, lowered)
    except jax.errors.JaxRuntimeError as error:
        needed = refused_bytes(error)
        if needed is None:
            raise
        progress.say(f"batch {batch_size}: the compiler refuses it, for it would take {needed / 1e9:.2f} GB")
        return StepCost(batch_size, (), needed)
    return StepCost(batch_size, tuple(costs.values()))


def find_largest_batch(
    first: StepCost, cost_of: Callable[[int], StepCost], memory_bytes: float, devices: int
) -> LargestBatch:
    """The largest batch whose step fits, with proof: the next larger one is compiled too, and does not.

    Memory is close to affine in the batch: two batches predict the largest, which is compiled, and then its neighbour.
    Where that shows the prediction to be off, it is made anew, and after some attempts halving takes over. The search
    goes in steps of one image a device up to 64 of them, and of 8 beyond.

    Args:
      first: cost at some batch size.
      cost_of: compiles the step for a batch size over all devices.
      memory_bytes: of each device.
      devices: over which a batch is split; their number times that of accumulated parts, where there are some.
    """
    costs = {first.batch_size // devices: first}
    while True:
        low = max((images for images, cost in costs.items() if cost.fits(memory_bytes)), default=0)
        high = min((images for images, cost in costs.items() if not cost.fits(memory_bytes)), default=None)
        above = _round_down(low + _grid_step(low))
        if high is not None and high <= above:
            break
        images = max(above, _round_down(_predicted(costs, memory_bytes, low, high)))
        if high is not None:
            images = min(images, _round_down(high - 1))
        costs[images] = cost_of(images * devices)
    return LargestBatch(
        batch_size=low * devices,
        next_batch_size=high * devices,
        peak_bytes=costs[low].peak_bytes if low else 0,
        next_peak_bytes=costs[high].peak_bytes,
        compiled=tuple(images * devices for images in costs),
    )


def _predicted(costs: Mapping[int, StepCost], memory_bytes: float, low: int, high: int | None) -> int:
    """Images a device at which memory should be full, by the line through the two batches that come nearest to that."""
    halved = low * 2 if high is None else (low + high) // 2
    if not 2 <= len(costs) <= _PREDICTIONS:
        return halved
    (x, a), (z, b) = sorted(costs.items(), key=lambda item: abs(item[1].peak_bytes - memory_bytes))[:2]
    slope = (b.peak_bytes - a.peak_bytes) / (z - x)
    return x + math.floor((memory_bytes - a.peak_bytes) / slope) if slope > 0 else halved


def _grid_step(images: int) -> int:
    return 1 if images < _FINE else 8


def _round_down(images: int) -> int:
    return images // _grid_step(images) * _grid_step(images)
