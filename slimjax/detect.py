"""Draws what a trained detector finds in images, its widths side by side.

python -m slimjax.detect --workdir=runs/shapes_masks --images=FOLDER --output=pictures
python -m slimjax.detect --workdir=DIR --images=photo.jpg --output=pictures --widths=.25,1 --min_score=.7

Each image comes out as a PNG of its name (with its ending, if several are called the same), and all that was found as
`detections.json`: COCO's list of results, with the file's name in the place of an image's number, and the width.
"""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from slimjax import cli
from slimjax.allocator import keep_freed_memory
from slimjax.errors import UserError
from slimjax.paths import check_writable, folder_path

config_flags.DEFINE_config_file("config", None, "--config.KEY=VALUE Sets one key of the trained configuration.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained detector.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Of the run: latest, best, or a step.")
_IMAGES = flags.DEFINE_string("images", None, "An image, or a folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the pictures; files of the same names are replaced.")
_WIDTHS = flags.DEFINE_list("widths", [], "Only these of the detector's widths.")
_MIN_SCORE = flags.DEFINE_float("min_score", 0.5, "Of what is drawn, 0 to 1.", lower_bound=0.0, upper_bound=1.0)
_QUIET = cli.define_quiet()


def main() -> int:
    """Draws what the flags ask for; returns the exit code."""
    workdir = folder_path(_required(_WORKDIR, "runs/shapes_masks"), "--workdir")
    source, output = (
        Path(_required(flag, example)).expanduser() for flag, example in ((_IMAGES, "FOLDER"), (_OUTPUT, "pictures"))
    )
    if cli.config_is_given():
        raise UserError("--config is not for detecting: a trained run brings its own configuration; leave it out")
    check_writable(output, "--output")
    config = cli.given_config(workdir, _CHECKPOINT.value)
    if config.task != "detection":
        raise UserError(f"{workdir} holds a classifier; give the workdir of a detector to --workdir")
    from slimjax.tasks.detection.finding import image_files

    images = image_files(source)
    if images[0].parent.resolve() == output.resolve():
        raise UserError(f"--output={output} is where the images are, which drawings would replace; give another folder")
    keep_freed_memory()
    cli.use_compilation_cache()
    _draw(workdir, config, images, output)
    return 0


def _required(flag: "flags.FlagHolder[str | None]", example: str) -> str:
    if not flag.value:
        raise UserError(f"--{flag.name} is missing; give it, such as --{flag.name}={example}")
    return flag.value


def _draw(workdir: epath.Path, config: ConfigDict, images: list[Path], output: Path) -> None:
    from slimjax.tasks.detection.detector import Detector
    from slimjax.tasks.detection.evaluation import Stored, results_of
    from slimjax.tasks.detection.finding import found_in
    from slimjax.tasks.detection.pictures import side_by_side
    from slimjax.tasks.detection.task import example_settings
    from slimjax.training.loading import load_checkpoint
    from slimjax.training.progress import Progress

    model, variables = load_checkpoint(workdir, _CHECKPOINT.value)
    assert isinstance(model, Detector)
    (names, ids), results = _categories(workdir), []
    damaged: list[Path] = []
    stems = Counter(file.stem for file in images)
    with Progress(enabled=not _QUIET.value) as progress:
        found = found_in(images, model, variables, example_settings(config), _widths(model.widths))
        for file, of_file in progress.track(found, "detecting", len(images)):
            if of_file is None:
                damaged.append(file)
                continue
            picture, of_widths = of_file
            output.mkdir(parents=True, exist_ok=True)
            name = file.stem if stems[file.stem] == 1 else file.name
            side_by_side(picture, of_widths, names, _MIN_SCORE.value).save(output / f"{name}.png")
            for width, detections in of_widths.items():
                own = results_of(detections, Stored(0, picture.height, picture.width), ids)
                results += [{**result, "image_id": file.name, "width": width} for result in own]
    if len(damaged) == len(images):
        others = ", nor is any other there" if len(damaged) > 1 else ""
        raise UserError(f"{damaged[0]} is no image that can be read{others}; give images to --images")
    (output / "detections.json").write_text(json.dumps(results))
    if damaged:
        print(f"{len(damaged)} left out, as they are no images that can be read (the first: {damaged[0]})")
    print(f"{len(images) - len(damaged)} pictures and detections.json: {output}")


def _widths(of_model: tuple[float, ...]) -> tuple[float, ...]:
    try:
        widths = tuple(float(width) for width in _WIDTHS.value) or of_model
    except ValueError:
        raise UserError(f"--widths={','.join(_WIDTHS.value)} has to be numbers, such as .25,.5") from None
    if odd := [width for width in widths if width not in of_model]:
        raise UserError(f"--widths={odd[0]:g} is not one of this network's widths {of_model}")
    return widths


def _categories(workdir: epath.Path) -> tuple[list[str], list[int]]:
    """Names and ids, as the data set has them that the checkpoint was trained on."""
    from slimjax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(workdir)
    description = checkpoints.description(checkpoints.find(_CHECKPOINT.value))
    checkpoints.close()
    if description.class_ids:
        return list(description.class_names), list(description.class_ids)
    raise UserError(
        f"the checkpoints of {workdir} are of an older version, which did not keep their categories; train anew"
    )


if __name__ == "__main__":
    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
