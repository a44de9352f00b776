"""Counts and times every width of a slimmable network: parameters, MACs, activations, latency on this machine.

python -m slimjax.profile --config=configs/s_mobilenet_v2.py                    a row for every width
python -m slimjax.profile --config=configs/s_mobilenet_v2.py --nolatency        counts alone, nothing is compiled
python -m slimjax.profile --workdir=DIR --batch_sizes=1,8 --layers              a trained network, layer by layer
python -m slimjax.profile --config=... --plans=plans.json                       widths that are not uniform
python -m slimjax.profile --config=... --format=csv --output=FILE               or json

No data set is needed, and weights are random: time does not depend on values. MACs and activations are of one image.
"Activations" adds up the outputs of all convolutions, batch norms and dense layers; "largest layer" is the input and
output of the one convolution or dense layer where they are largest, which inference needs at least. A file of plans has
the channels of each layer by width, {"0.3": {"stem": 8, "block_1": 16, ...}, ...}, as a bundle's manifest has them.
"""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from slimjax import cli
from slimjax.allocator import keep_freed_memory
from slimjax.errors import UserError
from slimjax.paths import check_writable, folder_path

# What needs JAX is imported once the flags are known to be good.
if TYPE_CHECKING:
    from slimjax.analysis.profile_report import ProfileReport
    from slimjax.models import SlimmableNetwork

config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration, a file or a short name: the digits where none is given.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run, whose configuration is taken.")
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", None, "Outputs of the classifier; those of the run or the data set where it is not given."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Pixels of the images' side; if absent, what the configuration trains on."
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1"], "Images of one timed call; several, as in 1,8, are timed each.")
_REPEATS = flags.DEFINE_integer("repeats", 50, "Timed calls, of which the median and 95th percentile are reported.")
_PLANS = flags.DEFINE_string("plans", None, "JSON file with the channels of each layer by width, in the widths' place.")
_LATENCY = flags.DEFINE_boolean("latency", True, "Whether to compile and time, rather than count alone.")
_LAYERS = flags.DEFINE_boolean("layers", False, "Whether to report every layer too; each is timed by itself.")
_FORMAT, _OUTPUT = cli.define_format("table", "csv", "json")
_QUIET = cli.define_quiet()


def main() -> int:
    """Counts, measures and prints what the flags ask for; returns the exit code."""
    batch_sizes = cli.positive_integers("batch_sizes", _BATCH_SIZES.value)
    if not _LATENCY.value:
        batch_sizes = []
    if _OUTPUT.value:
        check_writable(Path(_OUTPUT.value).expanduser(), "--output", is_file=True)
    if _WORKDIR.value == "":
        raise UserError("--workdir= names nothing; give the folder of a trained run, or leave it out")
    if _WORKDIR.value and cli.config_is_given():
        raise UserError("--config and --workdir exclude each other: a trained run brings its own configuration")
    if _WORKDIR.value and _PLANS.value:
        raise UserError("--plans and --workdir exclude each other: a trained run brings its own widths")
    if _WORKDIR.value and _NUM_CLASSES.value is not None:
        raise UserError("--num_classes and --workdir exclude each other: a trained run brings its own classes")
    config = cli.given_config(folder_path(_WORKDIR.value, "--workdir") if _WORKDIR.value else None)
    keep_freed_memory()
    from slimjax.training.mesh import check_platform

    check_platform(config.platform)
    cli.use_compilation_cache()
    image_size = _usual_size(config) if _IMAGE_SIZE.value is None else _IMAGE_SIZE.value
    _print(_report(config, _model(config, image_size, batch_sizes), image_size, batch_sizes))
    return 0


def _usual_size(config: ConfigDict) -> int:
    """Side of the images that the configuration trains on; a detector's are not square, and it has their area."""
    if config.task != "detection":
        return int(config.dataset.image_size)
    from slimjax.tasks.detection.task import example_settings

    return example_settings(config).square_side


def _model(config: ConfigDict, image_size: int, batch_sizes: list[int]) -> "SlimmableNetwork":
    """The network, once nothing is known to be in the way of counting and timing it."""
    import jax

    from slimjax.analysis.latency import check_measurable, check_weights_fit
    from slimjax.analysis.profile import profile_width
    from slimjax.tasks.creation import create_network

    # With any number of classes, since finding theirs may take seconds.
    platform = jax.default_backend()
    model = _planned(create_network(config, 1, platform))
    profile_width(model, model.widths[-1], image_size)
    for batch_size in batch_sizes:
        check_measurable(model, image_size, batch_size, _REPEATS.value)
    model = _planned(create_network(config, _num_classes(config), platform))
    if batch_sizes:
        check_weights_fit(model)
    return model


def _planned(model: "SlimmableNetwork") -> "SlimmableNetwork":
    """The network with the plans of the flag, if there are some."""
    if not _PLANS.value:
        return model
    from slimjax.nn.plans import read_plans

    plans = read_plans(Path(_PLANS.value).expanduser())
    planned = model.clone(widths=tuple(plan.width for plan in plans), plans=plans)
    planned.check_options()
    return planned


def _num_classes(config: ConfigDict) -> int:
    """Of the trained run, the flag or the data set; UserError if the configuration is not of the run's network."""
    if _WORKDIR.value:
        # Imported late, since orbax takes seconds.
        from slimjax.training.checkpoints import Checkpoints, check_same_network

        checkpoints = Checkpoints(folder_path(_WORKDIR.value, "--workdir"))
        step = checkpoints.find("latest")
        description = checkpoints.description(step)
        check_same_network(description, config, None, checkpoints.directory / str(step))
        return description.num_classes
    return cli.num_classes(config, _NUM_CLASSES.value)


def _report(config: ConfigDict, model: "SlimmableNetwork", image_size: int, batch_sizes: list[int]) -> "ProfileReport":
    """Counts, and measures for every batch size, with progress on stderr."""
    from slimjax.analysis.latency import measure_latency, measure_layer_latency, random_variables
    from slimjax.analysis.machine import describe_machine
    from slimjax.analysis.profile import profile_model, total_params
    from slimjax.analysis.profile_report import ProfileReport
    from slimjax.training.progress import Progress

    latencies, layer_latencies = {}, {}
    repeats = _REPEATS.value
    with Progress(enabled=not _QUIET.value) as progress:
        for size in batch_sizes:
            with progress.announced(f"compiling and timing {len(model.widths)} widths, batch {size}"):
                latencies[size] = measure_latency(
                    model, random_variables(model), image_size, size, repeats, progress.track
                )
            if _LAYERS.value:
                with progress.announced(f"compiling and timing every layer by itself, batch {size}"):
                    layer_latencies[size] = measure_layer_latency(model, image_size, size, repeats, progress.track)
    return ProfileReport(
        model=config.model.name,
        num_classes=model.num_classes,
        image_size=image_size,
        dtype=np.dtype(model.dtype).name,
        machine=describe_machine(),
        repeats=repeats,
        total_params=total_params(model),
        widths=profile_model(model, image_size),
        latencies=latencies,
        layer_latencies=layer_latencies,
        with_layers=_LAYERS.value,
    )


def _print(report: "ProfileReport") -> None:
    from slimjax.analysis.profile_report import as_csv, as_json
    from slimjax.analysis.tables import print_profile

    with cli.opened(_OUTPUT.value) as file:
        if cli.asked_format(_FORMAT, _OUTPUT.value) == "table":
            print_profile(report, file)
        else:
            file.write({"csv": as_csv, "json": as_json}[cli.asked_format(_FORMAT, _OUTPUT.value)](report))


if __name__ == "__main__":
    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
