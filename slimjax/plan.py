"""Plans the train step for devices that are not here: does it fit, and how fast can it be?

python -m slimjax.plan --config=configs/s_mobilenet_v2_pod.py --topology=v5e:4x4     TPUs v4, v5e, v5p and v6e
python -m slimjax.plan --config=configs/digits.py --topology=cpu:8                   fake devices, for a trial
python -m slimjax.plan --config=... --topology=v5e:4x4 --find_batch_size             the largest batch that fits
python -m slimjax.plan --config=... --topology=v5e:4x4 --host_images_per_second=300 --host_cores=112
python -m slimjax.plan --config=... --topology=... --format=json --output=FILE

Compiles the very programs that training would run there, and prints what XLA says of them, on each device: memory,
operations, bytes, and what devices exchange. From the chip's published figures follow the least time of a step and the
images that the hosts have to deliver. Neither data nor a TPU is needed, but for TPUs their compiler is: pip install
'slimjax[tpu]'. It takes minutes a program. The topology decides the platform, whatever config.platform says.
"""

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from slimjax import cli
from slimjax.errors import UserError
from slimjax.paths import check_writable

# What needs JAX is imported once the flags are known to be good.
if TYPE_CHECKING:
    from slimjax.analysis.plan_report import PlanReport

config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration, a file or a short name: the digits where none is given.",
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Devices: a TPU slice such as v5e:4x4, or a number of fake ones such as cpu:8."
)
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", None, "Outputs of the classifier; those of the data set where it is not given."
)
_MEMORY_GB = flags.DEFINE_float(
    "memory_gb", None, "Memory of each device, 1e9 bytes; the chip's, or its share of this machine's, if absent."
)
_FIND_BATCH_SIZE = flags.DEFINE_boolean(
    "find_batch_size", False, "Whether to look for the largest batch that fits; compiles the step a few times."
)
_HOST_IMAGES_PER_SECOND = flags.DEFINE_float(
    "host_images_per_second", None, "Images that one core of a host prepares in a second, as its benchmark measures."
)
_HOST_CORES = flags.DEFINE_integer("host_cores", None, "Cores of each host.")
_FORMAT, _OUTPUT = cli.define_format("table", "json")
_QUIET = cli.define_quiet()


def main() -> int:
    """Plans and prints what the flags ask for; returns the exit code."""
    if not _TOPOLOGY.value:
        raise UserError("--topology is missing; give the devices to plan for, such as --topology=v5e:4x4 or cpu:8")
    _check_pipeline()
    if _OUTPUT.value:
        check_writable(Path(_OUTPUT.value).expanduser(), "--output", is_file=True)
    config = cli.given_config()
    from slimjax.analysis.topologies import prepare_process

    prepare_process(_TOPOLOGY.value)
    cli.use_compilation_cache()
    _print(_report(config, _TOPOLOGY.value))
    return 0


def _check_pipeline() -> None:
    for flag in (_HOST_IMAGES_PER_SECOND, _HOST_CORES):
        if flag.value is not None and not 0 < flag.value < float("inf"):
            raise UserError(f"--{flag.name}={flag.value} has to be positive")
    if _HOST_CORES.value and _HOST_IMAGES_PER_SECOND.value is None:
        raise UserError(f"--host_cores={_HOST_CORES.value} says nothing alone; give --host_images_per_second too")


def _report(config: ConfigDict, topology_name: str) -> "PlanReport":
    from slimjax.analysis.cost_cache import CostCache
    from slimjax.analysis.plan_report import Pipeline, PlanReport
    from slimjax.analysis.topologies import find_topology
    from slimjax.training.planning import costliest_turn, find_largest_batch, step_cost, training_without_data
    from slimjax.training.progress import Progress
    from slimjax.versions import package_versions

    topology = find_topology(topology_name, _MEMORY_GB.value)
    # Once with any number of classes, since finding theirs may take seconds.
    training_without_data(config, topology.devices, 1)
    training = training_without_data(config, topology.devices, cli.num_classes(config, _NUM_CLASSES.value))
    turn, model, largest = costliest_turn(training.rule), training.task.model, None
    cache = CostCache.in_place_of_jax(topology.name) if topology.chip else None
    with Progress(enabled=not _QUIET.value) as progress:
        cost_of = partial(step_cost, training, turn, progress=progress, cache=cache)
        cost = cost_of(config.batch_size)
        if _FIND_BATCH_SIZE.value:
            parts = len(topology.devices) * config.accumulate_steps
            largest = find_largest_batch(cost, cost_of, topology.memory_bytes, parts)
    return PlanReport(
        model=config.model.name,
        widths=turn.widths,
        num_classes=model.num_classes,
        image_size=training.task.batch_shapes(1)["image"].shape[1:3],
        dtype=np.dtype(model.dtype).name,
        step_programs="fused" if training.train_step.fused else "per_width",
        topology=topology,
        cost=cost,
        largest_batch=largest,
        pipeline=Pipeline(_HOST_IMAGES_PER_SECOND.value, _HOST_CORES.value),
        versions=package_versions("libtpu"),
    )


def _print(report: "PlanReport") -> None:
    from slimjax.analysis.plan_report import as_json
    from slimjax.analysis.tables import print_plan

    with cli.opened(_OUTPUT.value) as file:
        if cli.asked_format(_FORMAT, _OUTPUT.value) == "table":
            print_plan(report, file)
        else:
            file.write(as_json(report))


if __name__ == "__main__":
    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
