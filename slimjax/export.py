"""Exports a trained network for devices: one bundle with every width, to be switched while it runs.

python -m slimjax.export --workdir=runs/digits --output=bundle                       every width, newest checkpoint
python -m slimjax.export --workdir=DIR --checkpoint=best --output=B --widths=.25,.5  some widths of the best one
python -m slimjax.export --workdir=DIR --output=B --input=uint8                      normalisation baked in
python -m slimjax.export --workdir=DIR --output=B --formats=stablehlo,onnx,litert    and savedmodel, orbax

The widths' figures are measured on the evaluation split, and each program is compared with the network on images of it.
Run what comes out with slimjax.SlimmableRuntime. A PyTorch checkpoint becomes a workdir by `python -m
slimjax.import_torch`.
"""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from slimjax import cli
from slimjax.deploy.formats import FORMATS, check_formats
from slimjax.errors import UserError
from slimjax.paths import check_writable, folder_path, local_folder

# What needs JAX is imported once the flags are known to be good.
if TYPE_CHECKING:
    import numpy as np

    from slimjax.deploy.bundle import InputEntry, Manifest
    from slimjax.deploy.source import Trained
    from slimjax.tasks.task import Task
    from slimjax.training.progress import Progress

INPUTS = ("float32", "uint8")

_CHECK_IMAGES = {"classification": 64, "detection": 8}
"""By task: a detector finds many objects in an image, and takes long."""

config_flags.DEFINE_config_file("config", None, "--config.KEY=VALUE Sets a key of the trained configuration otherwise.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Of the run: latest, best, or a step.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the bundle; it must not be there yet.")
_WIDTHS = flags.DEFINE_list("widths", [], "Of the network's widths, such as .25,.5; all where none is given.")
_FORMATS = flags.DEFINE_list("formats", ["stablehlo"], f"Of the programs: {', '.join(FORMATS)}.")
_INPUT = flags.DEFINE_enum("input", "float32", INPUTS, "Images: normalised float32, or uint8 of 0 to 255.")
_QUIET = cli.define_quiet()


def main() -> int:
    """Exports what the flags ask for; returns the exit code."""
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; give the folder of a trained run, such as --workdir=runs/digits")
    if not _OUTPUT.value:
        raise UserError("--output is missing; give a folder for the bundle, such as --output=bundle")
    if cli.config_is_given():
        raise UserError("--config is not for exporting: a trained run brings its own configuration; leave it out")
    check_formats(_FORMATS.value)
    asked_for = _asked_for()
    output = local_folder(_OUTPUT.value, "--output")
    if os.path.lexists(output):
        raise UserError(f"--output={output} is there already; give a new folder, or remove it")
    check_writable(output, "--output")
    workdir = folder_path(_WORKDIR.value, "--workdir")
    config = cli.given_config(workdir, _CHECKPOINT.value)
    if odd := [width for width in asked_for if width not in tuple(config.model.widths)]:
        raise UserError(f"--widths={odd[0]:g} is not one of this network's widths {tuple(config.model.widths)}")
    check_formats(_FORMATS.value, config.task)
    cli.use_compilation_cache()
    from slimjax.deploy.exporting import export_bundle
    from slimjax.training.progress import Progress

    # What is half written goes, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with Progress(enabled=not _QUIET.value) as progress:
        trained = _trained(config, workdir, progress)
        manifest = export_bundle(trained, output, asked_for or trained.model.widths, progress, _FORMATS.value)
    _print(manifest, output)
    return 0


def _asked_for() -> tuple[float, ...]:
    """The widths of the flag; none for all."""
    try:
        return tuple(float(width) for width in _WIDTHS.value)
    except ValueError:
        raise UserError(f"--widths={','.join(_WIDTHS.value)} has to be numbers, such as .25,.5") from None


def _trained(config: ConfigDict, workdir: epath.Path, progress: "Progress") -> "Trained":
    """The checkpoint that the flags name, evaluated, with images to check programs on."""
    import numpy as np

    from slimjax.deploy.source import Trained
    from slimjax.training.evaluation import Evaluator
    from slimjax.training.run import create_run, trained_weights

    run = create_run(config, workdir)
    step, weights = trained_weights(run, _CHECKPOINT.value)
    with progress.announced(f"evaluating step {step} of {workdir}"):
        figures = Evaluator(run.task, run.mesh, progress)(weights.params, weights.batch_stats)
    images = _check_images(run.task, _CHECK_IMAGES[config.task])
    return Trained(
        name=config.model.name,
        task=config.task,
        model=run.task.model.clone(dtype=np.float32),
        variables={"params": weights.params, "batch_stats": weights.batch_stats},
        class_names=run.task.info.class_names,
        input=_input(config, images),
        image_size=run.task.image_size,
        figures=figures,
        images=images,
    )


def _check_images(task: "Task", count: int) -> "np.ndarray":
    """Images of the evaluation split to compare programs on, all of one shape: detectors have wide and tall ones."""
    import numpy as np

    from slimjax.tasks import colours

    found: list[np.ndarray] = []
    for batch in task.eval_batches():
        if found and batch["image"].shape[1:] != found[0].shape[1:]:
            break
        found.append(colours.normalised(batch)[batch["mask"] > 0])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def _input(config: ConfigDict, images: "np.ndarray") -> "InputEntry":
    from slimjax.deploy.bundle import InputEntry
    from slimjax.tasks import colours

    _, height, width, _ = images.shape
    normalised = (_INPUT.value, colours.MEAN, colours.STDDEV)
    if config.task == "detection":
        return InputEntry(height, width, *normalised, "pad", config.detection.short_side, config.detection.long_side)
    return InputEntry.square(height, *normalised, config.dataset.eval_resize)


def _print(manifest: "Manifest", output: Path) -> None:
    from slimjax.analysis.tables import bundle_tables, print_table
    from slimjax.deploy.backends import BACKENDS
    from slimjax.deploy.bundle import manifest_checksum

    for table in bundle_tables(manifest):
        print_table(table)
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"bundle: {output} ({size / 1e6:.1f} MB, {len(manifest.files) + 1} files)")
    print(f"sha256: {manifest_checksum(manifest)}")
    programs = ((name, program) for name, backend in BACKENDS.items() for program in backend.programs)
    runs = next((name for name, program in programs if program in manifest.programs), None)
    if runs:
        backend = "" if runs == next(iter(BACKENDS)) else f', backend="{runs}"'
        load = f'slimjax.SlimmableRuntime.load("{output}"{backend})'
        print(f"run it: {load}.predict(images, width={manifest.widths[0].width:g})")


if __name__ == "__main__":
    from importlib.resources import files

    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
