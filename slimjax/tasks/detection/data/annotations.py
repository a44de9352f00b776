"""Annotation files in COCO's JSON format, checked: what is wrong in them is named, counted and left out."""

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slimjax.errors import UserError

_LEAST_SIDE = 1.0
"""Pixels of a box within its image; what is smaller is nothing that could be learned."""

_LARGEST = 1e9
"""Pixels of a box and its area; far beyond any image, and far below what float32 cannot hold."""

_FARTHEST = 10
"""Sides of its image that a polygon may go away from it: with numbers of 1e8 pycocotools writes beyond its memory."""

_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What Python and pycocotools raise about whatever is in the place of a number, a box or a mask."""

MIDDLE = 0.5
"""COCO's keypoints are numbers of pixels, whose middles are half a pixel further on; its boxes are edges."""


@dataclass(frozen=True)
class Annotation:
    """An annotated object.

    Attributes:
      bbox: x1, y1, width and height, pixels, as the file has them.
      label: index into the categories.
      area: square pixels of the object itself, by which COCO sorts objects into small, medium and large.
      is_crowd: whether it is a region of many objects.
      segmentation: run lengths of the mask of the whole image, as pycocotools compresses them; empty without a mask.
      keypoints: [keypoints, 3]: x and y in pixels, of the middles of the file's pixels, and 0 not annotated, 1 hidden,
        2 visible.
    """

    bbox: tuple[float, float, float, float]
    label: int
    area: float
    is_crowd: bool
    segmentation: bytes
    keypoints: np.ndarray


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its objects.

    Attributes:
      id: in the file.
      file_name: below the folder of images.
      height: pixels.
      width: pixels.
      annotations: of it.
    """

    id: int
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]


@dataclass
class Problems:
    """What was left out of an annotation file.

    Attributes:
      counts: by kind.
      first: an example of each kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Counts a problem, and keeps the first example of its kind."""
        self.counts[kind] += 1
        self.first.setdefault(kind, example)

    def lines(self) -> list[str]:
        """A line for each kind."""
        return [f"{count} left out: {kind} (the first: {self.first[kind]})" for kind, count in self.counts.items()]


@dataclass(frozen=True)
class Annotations:
    """An annotation file.

    Attributes:
      images: in the file's order, those without objects among them.
      category_names: by label.
      category_ids: by label, as the file has them and COCO's results name them.
      keypoint_names: of an object; the same for all categories.
      problems: what was left out.
    """

    images: tuple[AnnotatedImage, ...]
    category_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    keypoint_names: tuple[str, ...]
    problems: Problems


def read_annotations(path: Path) -> Annotations:
    """Reads and checks an annotation file.

    What COCO's own tools leave out is left out here as well, and counted: images that are listed twice, objects of
    images or categories that the file does not list, polygons with fewer than three points. Boxes that have no size
    within their image are counted, and kept for evaluation alone, as COCO's tools do.

    Raises:
      UserError: if the file cannot be read, is not of this format, lists no image or no category, or none of its
        objects is one.
    """
    problems, images = Problems(), dict[int, tuple[str, int, int]]()
    try:
        content = json.loads(path.read_text())
        for image in content["images"]:
            if int(image["id"]) in images:
                problems.add("images whose id another one has", f"image {image['id']}, {image['file_name']}")
            images.setdefault(int(image["id"]), _checked_image(image))
        categories = content["categories"]
        category_ids = tuple(int(category["id"]) for category in categories)
        if len(set(category_ids)) < len(category_ids):
            raise ValueError(f"two of its categories have the same id: {sorted(category_ids)}")
        names = tuple(str(category["name"]) for category in categories)
        keypoint_names = _keypoint_names(categories)
        entries = list(content.get("annotations", ()))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give an annotation file of COCO's format") from None
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise UserError(f"{path} is no annotation file of COCO's format ({reason})") from None
    if not images or not names:
        raise UserError(f"{path} lists {len(images)} images and {len(names)} categories; there is nothing to learn")
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    of_images: dict[int, list[Annotation]] = {image_id: [] for image_id in images}
    for entry in entries:
        annotation = _annotation(entry, images, labels, len(keypoint_names), problems)
        if annotation is not None:
            of_images[int(entry["image_id"])].append(annotation)
    if entries and not any(of_images.values()):
        raise UserError(f"{path}: none of its {len(entries)} annotations is usable; {'; '.join(problems.lines())}")
    found = (AnnotatedImage(id_, *image, tuple(of_images[id_])) for id_, image in images.items())
    return Annotations(tuple(found), names, category_ids, keypoint_names, problems)


def cut_boxes(bboxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut at the edges of their image, and which of them are large enough to learn from.

    Args:
      bboxes: x1, y1, width and height of each, [n, 4] pixels.
      height: of the image, pixels.
      width: likewise.

    Returns:
      x1, y1, x2 and y2 of each, [n, 4] pixels, and [n] booleans.
    """
    corners = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    cut = np.clip(corners, 0, [width, height] * 2)
    return cut, np.all(cut[:, 2:] - cut[:, :2] >= _LEAST_SIDE, axis=-1)


def _checked_image(image: Mapping[str, Any]) -> tuple[str, int, int]:
    height, width = int(image["height"]), int(image["width"])
    if height < 1 or width < 1:
        raise ValueError(f"image {image['id']} has {height} x {width} pixels")
    return str(image["file_name"]), height, width


def _keypoint_names(categories: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """Of the categories that have some; ValueError if they are not the same."""
    found = {tuple(category["keypoints"]) for category in categories if category.get("keypoints")}
    if len(found) > 1:
        raise ValueError("its categories have different keypoints")
    return found.pop() if found else ()


def _annotation(
    entry: Mapping[str, Any],
    images: Mapping[int, tuple[str, int, int]],
    labels: Mapping[int, int],
    num_keypoints: int,
    problems: Problems,
) -> Annotation | None:
    """An entry of the file; None, and a problem, if it is none that could be learned."""
    name = f"annotation {entry.get('id')}" if isinstance(entry, Mapping) else "an annotation"
    try:
        image, label = images.get(int(entry["image_id"])), labels.get(int(entry["category_id"]))
        left, top, width, height = (float(value) for value in entry["bbox"])
        is_crowd, area = bool(int(entry.get("iscrowd", 0))), float(entry.get("area", width * height))
        if not np.all(np.abs([left, top, width, height, area]) <= _LARGEST) or min(width, height, area) < 0:
            raise ValueError("no box")
    except _UNREADABLE:
        problems.add("annotations without a sound image, category, box, area or iscrowd", name)
        return None
    if image is None:
        problems.add("annotations of images that are not listed", f"{name} of image {entry['image_id']}")
        return None
    if label is None:
        problems.add("annotations of categories that are not listed", f"{name} of category {entry['category_id']}")
        return None
    _, rows, columns = image
    bbox = (left, top, width, height)
    if not cut_boxes(np.array([bbox]), rows, columns)[1].all():
        kind = "boxes of less than a pixel within their image, of training alone"
        problems.add(kind, f"{name} with bbox {entry['bbox']}")
    try:
        segmentation, short = compressed_mask(entry.get("segmentation"), rows, columns)
    except _UNREADABLE as error:
        problems.add("objects without a mask that can be read", f"{name}: {' '.join(str(error).split())[:100]}")
        return None
    if short:
        problems.add("polygons with fewer than three points, of objects that have others", name)
    if entry.get("keypoints") and not num_keypoints:
        problems.add("keypoints, for their category names none, of objects that are kept", name)
    try:
        keypoints = _keypoints(entry.get("keypoints"), num_keypoints)
    except _UNREADABLE:
        problems.add(f"keypoints that are not {num_keypoints} with three numbers each, of objects that are kept", name)
        keypoints = _keypoints(None, num_keypoints)
    return Annotation(bbox, label, area, is_crowd, segmentation, keypoints)


def _keypoints(flat: Any, count: int) -> np.ndarray:
    """[keypoints, 3], their places in the middles of pixels; zeros where there are none. ValueError if it is none."""
    if not count or not flat:
        return np.zeros((count, 3), np.float32)
    keypoints = np.array(flat, np.float32).reshape(count, 3)
    if not np.all(np.isfinite(keypoints)):
        raise ValueError("keypoints that are no numbers")
    keypoints[:, :2] += np.where(keypoints[:, 2:] > 0, MIDDLE, 0.0)
    return keypoints


def compressed_mask(segmentation: Any, height: int, width: int) -> tuple[bytes, int]:
    """A mask as pycocotools compresses it.

    Args:
      segmentation: polygons, each x and y by turns, or run lengths, compressed or not; None or empty is no mask.
      height: of the image, pixels.
      width: of the image, pixels.

    Returns:
      The run lengths, empty without a mask; and the number of polygons that were left out for want of three points.

    Raises:
      ValueError: if it is no mask; what else pycocotools and Python raise about it passes on.
    """
    from pycocotools import mask as coco_masks

    if not segmentation:
        return b"", 0
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(f"run lengths of {segmentation.get('size')}, the image has {[height, width]}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != height * width or min(counts) < 0:
                raise ValueError(f"run lengths of {sum(counts)} pixels in an image of {height * width}")
            return bytes(coco_masks.frPyObjects(dict(segmentation), height, width)["counts"]), 0
        compressed = counts.encode() if isinstance(counts, str) else bytes(counts)
        if _pixels_of(compressed) != height * width:
            raise ValueError(f"run lengths of {_pixels_of(compressed)} pixels in an image of {height * width}")
        return compressed, 0
    polygons = list(_polygons(segmentation, _FARTHEST * max(height, width)))
    if not polygons:
        raise ValueError("no polygon has three points")
    merged = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
    return bytes(merged["counts"]), len(segmentation) - len(polygons)


def _pixels_of(run_lengths: bytes) -> int:
    """How many pixels compressed run lengths are of: pycocotools itself reads beyond its memory if they are too few.

    A number is in groups of five bits, the lowest first, with a sixth bit where more follow; from the fourth number on
    it is the difference to the one two places before. ValueError if they are no run lengths.
    """
    runs: list[int] = []
    place = 0
    while place < len(run_lengths):
        value, shift, more = 0, 0, True
        while more:
            if place == len(run_lengths) or not 0 <= (bits := run_lengths[place] - 48) < 64:
                raise ValueError("run lengths that are cut off, or no text of COCO's")
            value |= (bits & 31) << shift
            more, shift, place = bool(bits & 32), shift + 5, place + 1
            if not more and bits & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise ValueError("a negative run length")
    return sum(runs)


def decoded_mask(run_lengths: bytes | str, height: int, width: int) -> np.ndarray:
    """What `compressed_mask` has compressed: [height, width] booleans."""
    from pycocotools import mask as coco_masks

    return np.asarray(coco_masks.decode({"size": [height, width], "counts": run_lengths}), bool)


def _polygons(segmentation: Any, farthest: float) -> Iterator[list[float]]:
    """Those that have three points or more; ValueError if one is none, or goes farther than so many pixels."""
    for polygon in segmentation:
        try:
            points = [float(value) for value in polygon]
        except TypeError:
            raise ValueError("polygons that are no lists of numbers") from None
        if len(points) % 2:
            raise ValueError(f"a polygon of {len(points)} coordinates")
        if not np.all(np.abs(points) <= farthest):
            raise ValueError(f"a polygon with coordinates that are no numbers up to {farthest:g}")
        if len(points) >= 6:
            yield points
