"""A trained detector on image files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from slimjax.errors import UserError
from slimjax.tasks import colours
from slimjax.tasks.detection.data.decoding import IMAGE_ERRORS, decoded
from slimjax.tasks.detection.data.examples import ExampleSettings, laid_out
from slimjax.tasks.detection.detector import Detector
from slimjax.tasks.detection.evaluation import Stored, in_stored_pixels

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

FoundByWidth = dict[float, dict[str, np.ndarray]]
"""By width arrays as `slimjax.tasks.detection.proposals.Detections` for one image, in its pixels."""

_NOTHING: dict[str, Any] = {
    "bbox": [],
    "label": [],
    "area": [],
    "is_crowd": [],
    "segmentation": [],
    "keypoints": [],
}


def image_files(path: Path) -> list[Path]:
    """The image itself, or the images of a folder, in order; UserError if there are none."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if not files:
        raise UserError(f"{path} is no image and no folder with {', '.join(SUFFIXES)}; give one of these")
    return files


def found_in(
    files: Sequence[Path], model: Detector, variables: Any, settings: ExampleSettings, widths: Sequence[float]
) -> Iterator[tuple[Path, tuple[Image.Image, FoundByWidth] | None]]:
    """What every width finds in each of some images.

    Args:
      files: the images.
      model: the detector.
      variables: its `params` and `batch_stats`.
      settings: of the layout that it was trained with.
      widths: of the detector.

    Returns:
      The file, and the image upright with what was found in it; None in their place if the file is no image that can be
      read.
    """
    find = jax.jit(
        lambda variables, images, sizes, width: model.apply(variables, images, width=width, sizes=sizes),
        static_argnames="width",
    )
    for file in files:
        try:
            picture = decoded(file)
        except IMAGE_ERRORS:
            yield file, None
            continue
        example = laid_out(picture, _NOTHING, settings, wide=picture.width >= picture.height, mirrored=False)
        stored = Stored(0, picture.height, picture.width)
        batch = {name: example[name][None] for name in ("image", "size")}
        images = colours.normalised(batch)
        found = {}
        for width in widths:
            arrays = jax.device_get(find(variables, images, batch["size"], width=width))._asdict()
            own = {name: values[0] for name, values in arrays.items() if values is not None}
            found[width] = in_stored_pixels(own, example["size"], stored)
        yield file, (picture, found)
