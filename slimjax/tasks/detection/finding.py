"""A trained detector on image files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from slimjax.errors import UserError
from slimjax.tasks.detection.data.examples import IMAGE_ERRORS, ExampleSettings, example_of
from slimjax.tasks.detection.detector import Detector
from slimjax.tasks.detection.evaluation import Stored, in_stored_pixels

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

_NOTHING: dict[str, Any] = {
    "box": np.zeros((0, 4), np.float32),
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
) -> Iterator[tuple[Path, dict[float, dict[str, np.ndarray]] | None]]:
    """What every width finds in each of some images.

    Args:
      files: the images.
      model: the detector.
      variables: its `params` and `batch_stats`.
      settings: of the layout that it was trained with.
      widths: of the detector.

    Returns:
      The file, and by width arrays as `slimjax.tasks.detection.proposals.Detections` for one image, in its pixels; None
      in their place if the file is no image that can be read.
    """
    find = jax.jit(
        lambda variables, images, sizes, width: model.apply(variables, images, width=width, sizes=sizes),
        static_argnames="width",
    )
    for file in files:
        try:
            example, stored = _example(file, settings)
        except (*IMAGE_ERRORS, UserError):
            yield file, None
            continue
        image, size = example["image"][None], example["size"][None]
        found = {}
        for width in widths:
            arrays = jax.device_get(find(variables, image, size, width=width))._asdict()
            own = {name: values[0] for name, values in arrays.items() if values is not None}
            found[width] = in_stored_pixels(own, example["size"], stored)
        yield file, found


def _example(file: Path, settings: ExampleSettings) -> tuple[dict[str, Any], Stored]:
    """What the network sees of a file, and the file's own size."""
    record = {"image": file.read_bytes(), "image/id": 0, "objects": _NOTHING}
    with Image.open(file) as picture:
        stored = Stored(0, picture.height, picture.width)
    return example_of(record, settings, stored.width >= stored.height, mirrored=False), stored
