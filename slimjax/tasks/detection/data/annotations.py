"""Annotation files in COCO's JSON format, checked: what is wrong in them is named, counted and left out."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slimjax.errors import UserError

_LEAST_SIDE = 1.0
"""Pixels of a box within its image; what is smaller is nothing that could be found."""


@dataclass(frozen=True)
class Annotation:
    """An annotated object.

    Attributes:
      id: in the file.
      box: x1, y1, x2, y2, pixels, inside of the image.
      label: index into the categories.
      area: square pixels of the object itself, by which COCO sorts objects into small, medium and large.
      is_crowd: whether it is a region of many objects.
      segmentation: run lengths of the mask of the whole image, as pycocotools compresses them; empty without a mask.
      keypoints: [keypoints, 3]: x and y in pixels, and 0 not annotated, 1 hidden, 2 visible.
    """

    id: int
    box: tuple[float, float, float, float]
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

    What COCO's own tools leave out is left out here as well, and counted: objects of images or categories that the file
    does not list, boxes that have no size within their image, polygons with fewer than three points. Boxes that reach
    beyond their image are cut.

    Raises:
      UserError: if the file cannot be read, is not of this format, or lists no image or no category.
    """
    try:
        content = json.loads(path.read_text())
        images = {int(image["id"]): _checked_image(image) for image in content["images"]}
        categories = content["categories"]
        category_ids = tuple(int(category["id"]) for category in categories)
        names = tuple(str(category["name"]) for category in categories)
        keypoint_names = _keypoint_names(categories)
        entries = content.get("annotations", [])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give an annotation file of COCO's format") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise UserError(f"{path} is no annotation file of COCO's format ({reason})") from None
    if not images or not names:
        raise UserError(f"{path} lists {len(images)} images and {len(names)} categories; there is nothing to learn")
    problems = Problems()
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    of_images: dict[int, list[Annotation]] = {image_id: [] for image_id in images}
    for entry in entries:
        annotation = _annotation(entry, images, labels, len(keypoint_names), problems)
        if annotation is not None:
            of_images[int(entry["image_id"])].append(annotation)
    found = (AnnotatedImage(id_, *image, tuple(of_images[id_])) for id_, image in images.items())
    return Annotations(tuple(found), names, category_ids, keypoint_names, problems)


def mirrored_keypoints(names: tuple[str, ...]) -> list[int]:
    """For each keypoint, by index, the one that it becomes in a mirror: `left_eye` and `right_eye` change places."""

    def mirrored(name: str) -> str:
        for side, other in (("left", "right"), ("right", "left")):
            if side in name:
                return name.replace(side, other)
        return name

    return [names.index(mirrored(name)) if mirrored(name) in names else index for index, name in enumerate(names)]


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
        is_crowd, id_ = bool(entry.get("iscrowd", 0)), int(entry["id"])
        keypoints = np.asarray(entry.get("keypoints") or [0] * 3 * num_keypoints, np.float32).reshape(num_keypoints, 3)
    except (ValueError, KeyError, TypeError, AttributeError):
        problems.add("annotations without image, category, box or the right number of keypoints", name)
        return None
    if image is None:
        problems.add("annotations of images that are not listed", f"{name} of image {entry['image_id']}")
        return None
    if label is None:
        problems.add("annotations of categories that are not listed", f"{name} of category {entry['category_id']}")
        return None
    _, rows, columns = image
    box = max(left, 0.0), max(top, 0.0), min(left + width, float(columns)), min(top + height, float(rows))
    if not (box[2] - box[0] >= _LEAST_SIDE and box[3] - box[1] >= _LEAST_SIDE):
        problems.add("boxes of less than a pixel within their image", f"{name} with bbox {entry['bbox']}")
        return None
    try:
        segmentation = compressed_mask(entry.get("segmentation"), rows, columns)
    except ValueError as error:
        problems.add("masks that are none", f"{name}: {error}")
        return None
    area = float(entry.get("area", width * height))
    return Annotation(id_, box, label, area, is_crowd, segmentation, keypoints)


def compressed_mask(segmentation: Any, height: int, width: int) -> bytes:
    """A mask as pycocotools compresses it.

    Args:
      segmentation: polygons, each x and y by turns, or run lengths, compressed or not; None or empty is no mask.
      height: of the image, pixels.
      width: of the image, pixels.

    Returns:
      The run lengths, empty without a mask.

    Raises:
      ValueError: if it is no mask.
    """
    from pycocotools import mask as coco_masks

    if not segmentation:
        return b""
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(f"run lengths of {segmentation.get('size')}, the image has {[height, width]}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != height * width or min(counts) < 0:
                raise ValueError(f"run lengths of {sum(counts)} pixels in an image of {height * width}")
            return bytes(coco_masks.frPyObjects(dict(segmentation), height, width)["counts"])
        return counts.encode() if isinstance(counts, str) else bytes(counts)
    polygons = list(_polygons(segmentation))
    if not polygons:
        raise ValueError("no polygon has three points")
    return bytes(coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))["counts"])


def decoded_mask(run_lengths: bytes | str, height: int, width: int) -> np.ndarray:
    """What `compressed_mask` has compressed: [height, width] booleans."""
    from pycocotools import mask as coco_masks

    return np.asarray(coco_masks.decode({"size": [height, width], "counts": run_lengths}), bool)


def _polygons(segmentation: Any) -> Iterator[list[float]]:
    """Those that have three points or more."""
    for polygon in segmentation:
        try:
            points = [float(value) for value in polygon]
        except TypeError:
            raise ValueError("polygons that are no lists of numbers") from None
        if len(points) % 2:
            raise ValueError(f"a polygon of {len(points)} coordinates")
        if not np.all(np.isfinite(points)):
            raise ValueError("a polygon with coordinates that are no numbers")
        if len(points) >= 6:
            yield points
