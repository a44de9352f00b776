"""A trained detector on image files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from slimjax.errors import UserError
from slimjax.tasks.detection.data.examples import ExampleSettings, example_of
from slimjax.tasks.detection.detector import Detector

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

_NOTHING: dict[str, Any] = {
    "id": [],
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
) -> Iterator[tuple[Path, dict[float, dict[str, np.ndarray]]]]:
    """What every width finds in each of some images.

    Args:
      files: the images.
      model: the detector.
      variables: its `params` and `batch_stats`.
      settings: of the layout that it was trained with.
      widths: of the detector.

    Returns:
      The file, and by width arrays as `slimjax.tasks.detection.proposals.Detections` for one image, in its pixels.

    Raises:
      UserError: from the iterator, if a file is no image.
    """
    find = jax.jit(
        lambda variables, images, sizes, width: model.apply(variables, images, width=width, sizes=sizes),
        static_argnames="width",
    )
    for file in files:
        example = _example(file, settings)
        image, size = example["image"][None], example["size"][None]
        found = {}
        for width in widths:
            arrays = jax.device_get(find(variables, image, size, width=width))._asdict()
            own = {name: values[0] for name, values in arrays.items() if values is not None}
            found[width] = _in_pixels_of_the_file(own, float(example["scale"]))
        yield file, found


def _example(file: Path, settings: ExampleSettings) -> dict[str, Any]:
    content = file.read_bytes()
    record = {"image": content, "image/id": 0, "objects": _NOTHING}
    try:
        with Image.open(file) as picture:
            wide = picture.width >= picture.height
        return example_of(record, settings, wide, mirrored=False)
    except (OSError, UserError):
        raise UserError(f"{file} is no image that can be read; remove it, or give another") from None


def _in_pixels_of_the_file(found: dict[str, np.ndarray], scale: float) -> dict[str, np.ndarray]:
    scaled = {**found, "boxes": found["boxes"] / scale}
    if "keypoints" in found:
        points = found["keypoints"]
        scaled["keypoints"] = np.concatenate([points[..., :2] / scale, points[..., 2:]], -1)
    return scaled
