"""From a stored record to what a network sees: the image resized, mirrored and padded, and its objects likewise."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from slimjax.errors import UserError
from slimjax.tasks.detection.data.annotations import cut_boxes, decoded_mask
from slimjax.tasks.detection.data.decoding import IMAGE_ERRORS, decoded

Example = dict[str, Any]
"""Arrays and scalars of NumPy, by name."""

GRID = 32
"""Pixels of the coarsest step of a backbone: sides of what the network sees are multiples."""


@dataclass(frozen=True)
class ExampleSettings:
    """How images and objects are laid out.

    Attributes:
      short_side: pixels to which the shorter side of an image is scaled,
      long_side: unless the longer one would come to more than this.
      most_objects: of an image that are kept, the largest; padded to so many.
      mask_size: side of an object's mask within its box, pixels; 0 leaves masks out.
      num_keypoints: of an object; 0 leaves keypoints out.
      mirrored_keypoints: for each of them, by index, the one that it becomes in a mirror.
      flip: whether half of the training images are mirrored.
    """

    short_side: int
    long_side: int
    most_objects: int
    mask_size: int
    num_keypoints: int
    mirrored_keypoints: tuple[int, ...] = ()
    flip: bool = True

    def padded_size(self, wide: bool) -> tuple[int, int]:
        """Height and width that every image of an orientation is padded to."""
        short, long = (-(-side // GRID) * GRID for side in (self.short_side, self.long_side))
        return (short, long) if wide else (long, short)

    @property
    def square_side(self) -> int:
        """The side of about as large a square, for what counts operations."""
        height, width = self.padded_size(wide=True)
        return round((height * width) ** 0.5 / GRID) * GRID

    def scale(self, height: int, width: int) -> float:
        """By which an image is resized."""
        return min(self.short_side / min(height, width), self.long_side / max(height, width))


def example_of(record: Mapping[str, Any], settings: ExampleSettings, wide: bool, mirrored: bool) -> Example:
    """One example of a batch.

    Args:
      record: as stored, see `slimjax.tasks.detection.data.coco.Coco`; its image is still encoded.
      settings: of the layout.
      wide: whether it is padded as wide images are.
      mirrored: whether left and right change places.

    Returns:
      `image` [height, width, 3] uint8, zero where padded; `size` [2] float32, its height and width without padding;
      `boxes`, `labels`, `there`, `crowds` and, where wanted, `masks` and `keypoints` as in
      `slimjax.tasks.detection.matching.Objects`.

    Raises:
      UserError: if the image cannot be decoded.
    """
    try:
        picture = decoded(io.BytesIO(record["image"]), tuple(record["image/size"].tolist()))
    except IMAGE_ERRORS:
        raise UserError(
            f"image {record['image/id']} of the data set cannot be decoded; mend it and prepare anew"
        ) from None
    return laid_out(picture, record["objects"], settings, wide, mirrored)


def laid_out(
    picture: Image.Image, objects: Mapping[str, Any], settings: ExampleSettings, wide: bool, mirrored: bool
) -> Example:
    """As `example_of`, of a decoded image."""
    scale = settings.scale(picture.height, picture.width)
    height, width = (max(round(side * scale), 1) for side in (picture.height, picture.width))
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized)
    image = np.zeros((*settings.padded_size(wide), 3), np.uint8)
    image[:height, :width] = pixels[:, ::-1] if mirrored else pixels
    # Rounding makes the sides' scales differ by a hair: objects follow their own.
    scales = np.array([width / picture.width, height / picture.height], np.float32)
    return {
        "image": image,
        "size": np.array([height, width], np.float32),
        **_objects(objects, (picture.height, picture.width), scales, settings, mirrored),
    }


def _objects(
    objects: Mapping[str, Any],
    stored_size: tuple[int, int],
    scales: np.ndarray,
    settings: ExampleSettings,
    mirrored: bool,
) -> Example:
    """The objects' arrays, padded; `stored_size` is the stored image's height and width."""
    exact, are_learnable = cut_boxes(np.asarray(objects["bbox"], np.float64).reshape(-1, 4), *stored_size)
    boxes = exact.astype(np.float32)
    # Crowds last: they only keep others from being background.
    crowds = np.asarray(objects["is_crowd"], bool)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.lexsort((-sizes, crowds))
    kept = order[are_learnable[order]][: settings.most_objects]
    width = stored_size[1]
    scaled = boxes[kept] * np.tile(scales, 2)
    if mirrored:
        scaled[:, [0, 2]] = width * scales[0] - scaled[:, [2, 0]]
    found = {
        "boxes": scaled,
        "labels": np.asarray(objects["label"])[kept].astype(np.int32),
        "there": np.ones(len(kept), bool),
        "crowds": crowds[kept],
    }
    if settings.mask_size:
        # Padding does for the crowds, which are last: nothing is to be found there, so nobody asks for their masks.
        masks = [
            mask_in_box(objects["segmentation"][index], boxes[index], stored_size, settings.mask_size)
            for index in kept[~crowds[kept]]
        ]
        stacked = np.array(masks, np.uint8).reshape(-1, settings.mask_size, settings.mask_size)
        found["masks"] = stacked[:, :, ::-1] if mirrored else stacked
    if settings.num_keypoints:
        keypoints = np.array([objects["keypoints"][index] for index in kept], np.float32)
        keypoints = keypoints.reshape(-1, settings.num_keypoints, 3)
        keypoints[..., :2] *= scales
        if mirrored:
            keypoints[..., 0] = width * scales[0] - keypoints[..., 0]
            keypoints = keypoints[:, settings.mirrored_keypoints]
        found["keypoints"] = keypoints
    return {name: _padded(values, settings.most_objects) for name, values in found.items()}


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    return np.pad(values, ((0, count - len(values)), *[(0, 0)] * (values.ndim - 1)))


def mask_in_box(segmentation: bytes | str, box: np.ndarray, image_size: tuple[int, int], size: int) -> np.ndarray:
    """The part of a mask in a box, stretched to a square.

    Args:
      segmentation: run lengths as pycocotools compresses them; empty is a mask that fills the box.
      box: x1, y1, x2, y2, pixels.
      image_size: height and width of the image, pixels.
      size: side of the square, pixels.

    Returns:
      [size, size] uint8, 1 where more than half of what is around a pixel's middle is the object's.
    """
    if not segmentation:
        return np.ones((size, size), np.uint8)
    picture = Image.fromarray(decoded_mask(segmentation, *image_size) * np.uint8(255))
    left, top, right, bottom = box.tolist()
    stretched = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return (np.asarray(stretched) >= 128).astype(np.uint8)
