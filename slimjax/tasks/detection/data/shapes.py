"""A generated data set in COCO's true format, on which detectors learn in minutes: discs, boxes and triangles.

Files on disk as COCO's are: JPEG images of several sizes, polygons, run lengths where an object is partly hidden,
crowds, keypoints, images without objects.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slimjax.tasks.detection.data.annotations import MIDDLE, compressed_mask, decoded_mask

CATEGORIES = ("disc", "box", "triangle")
KEYPOINTS = ("top", "right", "bottom", "left")
_SIDES = (96, 160)
_MOST_OBJECTS = 4
_RADII = (12, 34)
_EMPTY_SHARE, _CROWD_SHARE = 0.05, 0.1
_LEAST_VISIBLE = 0.4
"""Of an object; what is hidden more than that is covered by a background and not annotated."""

_CROWD = {"category_id": 1, "iscrowd": 1, "keypoints": [0] * 3 * len(KEYPOINTS), "num_keypoints": 0}


def write_shapes(folder: Path, splits: dict[str, int], seed: int = 0) -> None:
    """Writes a data set: `annotations/instances_SPLIT.json`, and images in `SPLIT/`.

    Args:
      folder: made if it is absent.
      splits: number of images by name.
      seed: decides everything.
    """
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate(splits.items()):
        rng = np.random.default_rng((seed, number))
        (folder / split).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            picture, objects = _scene(rng)
            name = f"{index:06d}.jpg"
            picture.save(folder / split / name, quality=90)
            width, height = picture.size
            images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
            for entry in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **entry})
        categories = [
            {"id": number, "name": name, "keypoints": KEYPOINTS} for number, name in enumerate(CATEGORIES, start=1)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@dataclass(frozen=True)
class _Shape:
    """An object before it is drawn."""

    category: int
    outline: np.ndarray
    colour: tuple[int, ...]

    def drawn(self, height: int, width: int) -> np.ndarray:
        """Its mask, [height, width] booleans."""
        # As those see it who read its polygon.
        run_lengths, _ = compressed_mask([self.outline.reshape(-1).tolist()], height, width)
        return decoded_mask(run_lengths, height, width)


def _scene(rng: np.random.Generator) -> tuple[Image.Image, list[dict[str, Any]]]:
    """An image and its annotations without numbers."""
    width, height = (int(side) for side in rng.integers(*_SIDES, 2))
    background = rng.integers(60, 200, 3)
    pixels = np.clip(background + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    if rng.random() < _EMPTY_SHARE:
        return Image.fromarray(pixels), []
    shapes = [_shape(rng, height, width) for _ in range(rng.integers(1, _MOST_OBJECTS + 1))]
    visible = _visible_masks([shape.drawn(height, width) for shape in shapes])
    annotations = []
    for shape, (whole, mask) in zip(shapes, visible, strict=True):
        if mask.sum() < max(_LEAST_VISIBLE * whole.sum(), 20):
            # Nobody could say what it is.
            continue
        texture = np.clip(np.array(shape.colour) + rng.normal(0, 8, (height, width, 3)), 0, 255)
        pixels = np.where(mask[..., None], texture, pixels).astype(np.uint8)
        annotations.append(_object(shape, whole, mask))
    if rng.random() < _CROWD_SHARE:
        crowd = _crowd(rng, height, width, np.any([mask for _, mask in visible], axis=0))
        pixels = np.where(crowd[..., None], np.array(_colour(rng)), pixels).astype(np.uint8)
        if crowd.sum() >= 20:
            annotations.append({**_region(crowd), **_CROWD, "segmentation": _run_lengths(crowd)})
    return Image.fromarray(pixels), annotations


def _shape(rng: np.random.Generator, height: int, width: int) -> _Shape:
    category = int(rng.integers(len(CATEGORIES)))
    radius, turn = rng.uniform(*_RADII), rng.uniform(0, 2 * math.pi)
    centre = rng.uniform((radius * 0.6, radius * 0.6), (width - radius * 0.6, height - radius * 0.6))
    corners = {0: 32, 1: 4, 2: 3}[category]
    angles = turn + 2 * math.pi * np.arange(corners) / corners
    outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], -1)
    # Cut at the image's edges, as COCO's polygons are.
    return _Shape(category, np.round(np.clip(outline, 0, (width, height)), 2), _colour(rng))


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    """One that is clearly lighter or darker than any background."""
    colour = rng.integers(0, 256, 3)
    colour[rng.integers(3)] = rng.choice([0, 255])
    return tuple(colour.tolist())


def _visible_masks(masks: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each shape its whole mask, and what later ones leave of it."""
    hidden = np.zeros_like(masks[0])
    found = []
    for mask in reversed(masks):
        found.append((mask, mask & ~hidden))
        hidden |= mask
    return found[::-1]


def _object(shape: _Shape, whole: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    hidden = mask.sum() < whole.sum()
    segmentation = _run_lengths(mask) if hidden else [shape.outline.reshape(-1).tolist()]
    outline = shape.outline
    extremes = outline[[outline[:, 1].argmin(), outline[:, 0].argmax(), outline[:, 1].argmax(), outline[:, 0].argmin()]]
    keypoints = []
    for x, y in extremes.tolist():
        near = mask[max(int(y) - 1, 0) : int(y) + 3, max(int(x) - 1, 0) : int(x) + 3]
        keypoints += [round(x - MIDDLE, 2), round(y - MIDDLE, 2), 2 if near.any() else 1]
    return {
        **_region(mask),
        "category_id": shape.category + 1,
        "iscrowd": 0,
        "segmentation": segmentation,
        "keypoints": keypoints,
        "num_keypoints": len(extremes),
    }


def _region(mask: np.ndarray) -> dict[str, Any]:
    """The box, [x, y, width, height], and the area of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {"bbox": box, "area": int(mask.sum())}


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """As COCO's crowds have them: lengths of the runs of zeros and ones by turns, down the columns."""
    flat = mask.T.reshape(-1).astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def _crowd(rng: np.random.Generator, height: int, width: int, taken: np.ndarray) -> np.ndarray:
    """Many small discs close to each other, where nothing else is."""
    y, x = np.mgrid[:height, :width]
    middle = rng.uniform((15, 15), (height - 15, width - 15))
    crowd = np.zeros((height, width), bool)
    for centre in middle + rng.normal(0, 9, (12, 2)):
        crowd |= (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 9
    return crowd & ~taken
