"""Average precision as COCO computes it, of what a network has found in the images of a split."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from slimjax.errors import UserError
from slimjax.tasks.detection.data.annotations import MIDDLE
from slimjax.tasks.detection.data.mirroring import words_of
from slimjax.tasks.detection.data.source import Split
from slimjax.tasks.task import Figures

PARTS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
"""COCO's names of what is evaluated, and how the figures are named here."""

_KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
_COMMON = ("image_id", "category_id", "score")

_STATS = {"": 0, "50": 1, "75": 2}
"""Where COCO's list has the mean over IoU .5 to .95, and those at .5 and .75."""

_PAIRS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_PEOPLE = ("nose", *(f"{side} {part}" for part in _PAIRS for side in ("left", "right")))
"""The words of COCO's 17 keypoints of people, which have sigmas of their own (cocodataset.org/#keypoints-eval)."""

_OTHER_SIGMA = 0.05
"""Of all other keypoints."""

Result = dict[str, Any]
"""One detection in COCO's format of results."""


class Categories(NamedTuple):
    """What the objects of a data set are.

    Attributes:
      names: by label.
      ids: by label, as annotation files and results have them.
      keypoints: names of an object's; empty if it has none.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    keypoints: tuple[str, ...]


class Stored(NamedTuple):
    """An image as it is stored: its id, and pixels."""

    id: int
    height: int
    width: int


class GroundTruth:
    """The annotations of a split as pycocotools takes them, made from the stored records.

    Attributes:
      images: in the order of the split.
    """

    def __init__(self, split: Split, categories: Categories, parts: Sequence[str]) -> None:
        """Reads the annotations of all images.

        Args:
          split: that is evaluated.
          categories: of the data set.
          parts: of PARTS.

        Raises:
          UserError: if pycocotools is missing.
        """
        self._categories, self._parts = categories, tuple(parts)
        content = _content(split, categories)
        self._api = _index(content)
        self.images = [Stored(image["id"], image["height"], image["width"]) for image in content["images"]]

    def figures(self, results: Sequence[Result]) -> Figures:
        """Average precisions in percent.

        Args:
          results: of all images, in COCO's format, with all parts in each.

        Returns:
          `box_ap`, `box_ap50`, `box_ap75` and likewise of the other parts: 0 where nothing was found, and where there
          is nothing to find.
        """
        figures = {}
        for part in self._parts:
            stats = self._stats(part, results)
            for suffix, index in _STATS.items():
                figures[f"{PARTS[part]}_ap{suffix}"] = 100.0 * max(float(stats[index]), 0.0)
        return figures

    def _stats(self, part: str, results: Sequence[Result]) -> Sequence[float]:
        from pycocotools.cocoeval import COCOeval

        if not results:
            return [0.0] * 3
        # It prints what it does, and there is no other way to say no.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._api, self._api.loadRes(_of_part(results, part)), part)
            if part == "keypoints":
                names, of_people = self._categories.keypoints, evaluation.params.kpt_oks_sigmas
                evaluation.params.kpt_oks_sigmas = _sigmas(names, of_people)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats: Sequence[float] = evaluation.stats
        return stats


def _sigmas(names: Sequence[str], of_people: np.ndarray) -> np.ndarray:
    """How exactly people agree on each keypoint [keypoints]; `of_people` [17] are those in COCO's order of names."""
    words = [words_of(name) for name in names]
    if sorted(words) != sorted(_PEOPLE):
        return np.full(len(names), _OTHER_SIGMA)
    return of_people[[_PEOPLE.index(own) for own in words]]


def write_results(results: Sequence[Result], parts: Sequence[str], path: epath.Path) -> None:
    """Writes what COCO's tools and servers take: a file for each part, such as `width_1_segm.json`.

    Args:
      results: of all images, with all parts in each.
      parts: of PARTS.
      path: the files' names are this and what they hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in parts:
        (path.parent / f"{path.name}_{part}.json").write_text(json.dumps(_of_part(results, part)))


def _of_part(results: Sequence[Result], part: str) -> list[Result]:
    """Without the other parts: pycocotools takes the first that it knows for what results are of."""
    return [{key: result[key] for key in (*_COMMON, _KEYS[part])} for result in results]


def _index(content: dict[str, Any]) -> Any:
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise UserError(
            "evaluating detectors needs pycocotools, which is not installed; run pip install 'slimjax[detection]'"
        ) from None
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = content
        api.createIndex()
    return api


def _content(split: Split, categories: Categories) -> dict[str, Any]:
    """An annotation file's content."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(split)):
        record = split.record(index)
        height, width = split.image_size(record)
        image_id, objects = int(record["image/id"]), record["objects"]
        images.append({"id": image_id, "height": height, "width": width})
        for place in range(len(objects["label"])):
            # Numbered anew, from 1: pycocotools takes the id 0 for no match, and files may use one twice.
            own = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append({**own, **_annotation((height, width), objects, place, categories)})
    named = [{"id": id_, "name": name} for id_, name in zip(categories.ids, categories.names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": named}


def _annotation(
    size: tuple[int, int], objects: Mapping[str, Any], place: int, categories: Categories
) -> dict[str, Any]:
    left, top, width, height = bbox = [float(value) for value in objects["bbox"][place]]
    right, bottom = left + width, top + height
    keypoints = _in_whole_pixels(np.asarray(objects["keypoints"][place])) if categories.keypoints else []
    counts = objects["segmentation"][place]
    # Of an object without a mask it is its box, as in training.
    filled = [[left, top, left, bottom, right, bottom, right, top]]
    return {
        "category_id": categories.ids[int(objects["label"][place])],
        "bbox": bbox,
        "area": float(objects["area"][place]),
        "iscrowd": int(objects["is_crowd"][place]),
        "segmentation": {"size": list(size), "counts": counts} if counts else filled,
        "keypoints": keypoints,
        "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3]),
    }


def _in_whole_pixels(keypoints: np.ndarray) -> list[float]:
    """Keypoints [..., 3] as COCO's files have them, flat: a pixel's number stands for its middle."""
    flat = np.array(keypoints, np.float64).reshape(-1, 3)
    flat[:, :2] -= np.where(flat[:, 2:] > 0, MIDDLE, 0.0)
    return [float(value) for value in flat.reshape(-1)]


def in_stored_pixels(detections: Mapping[str, np.ndarray], seen: np.ndarray, stored: Stored) -> dict[str, np.ndarray]:
    """What was found in one image as it was shown to the network, in the pixels of the stored one.

    Args:
      detections: arrays of one image by name, as `slimjax.tasks.detection.proposals.Detections`.
      seen: height and width that the network saw, without padding.
      stored: the image.
    """
    # Height and width were rounded after scaling, each by itself.
    scales = np.array([stored.width, stored.height], np.float32) / np.asarray(seen, np.float32)[::-1]
    found = {**detections}
    limits = [stored.width, stored.height] * 2
    found["boxes"] = np.clip(detections["boxes"] * np.tile(scales, 2), 0, limits)
    if detections.get("keypoints") is not None:
        points = detections["keypoints"]
        found["keypoints"] = np.concatenate([points[..., :2] * scales, points[..., 2:]], -1)
    return found


def results_of(detections: Mapping[str, np.ndarray], stored: Stored, category_ids: Sequence[int]) -> list[Result]:
    """What was found in one image, in COCO's format.

    Args:
      detections: arrays of one image by name, in its stored pixels.
      stored: the image.
      category_ids: by label.
    """
    boxes, results = detections["boxes"], []
    for place in np.flatnonzero(detections["there"]).tolist():
        left, top, right, bottom = boxes[place].tolist()
        result = {
            "image_id": stored.id,
            "category_id": category_ids[int(detections["labels"][place])],
            "score": float(detections["scores"][place]),
            "bbox": [left, top, right - left, bottom - top],
        }
        if detections.get("masks") is not None:
            size = stored.height, stored.width
            result["segmentation"] = pasted_mask(detections["masks"][place], boxes[place], size)
        if detections.get("keypoints") is not None:
            points = detections["keypoints"][place][:, :2]
            result["keypoints"] = _in_whole_pixels(np.concatenate([points, np.ones((len(points), 1))], -1))
        results.append(result)
    return results


def pasted_mask(mask: np.ndarray, box: np.ndarray, image_size: tuple[int, int]) -> dict[str, Any]:
    """A mask in its box as run lengths of the whole image.

    Args:
      mask: [size, size] probabilities.
      box: x1, y1, x2, y2, pixels.
      image_size: height and width of the image, pixels.

    Returns:
      `size` and `counts`, as COCO has them: a pixel is the object's where its middle is in the box and the bilinear
      value there is .5 or more. Between the outermost bins' middles and the box's edge values go on as they are.
    """
    from pycocotools import mask as coco_masks

    left, top, right, bottom = box.tolist()
    height, width = image_size
    rows, columns = _middles_within(top, bottom, height), _middles_within(left, right, width)
    whole = np.zeros(image_size, np.uint8, order="F")
    if len(rows) and len(columns):
        by_rows = _interpolation(rows + MIDDLE, top, bottom, len(mask))
        by_columns = _interpolation(columns + MIDDLE, left, right, len(mask))
        whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = by_rows @ mask @ by_columns.T >= 0.5
    run_lengths = coco_masks.encode(whole)
    return {"size": list(image_size), "counts": run_lengths["counts"].decode()}


def _middles_within(low: float, high: float, size: int) -> np.ndarray:
    """The pixels of one axis whose middles are in a range, of an image of so many."""
    return np.arange(max(int(np.ceil(low - MIDDLE)), 0), min(int(np.ceil(high - MIDDLE)), size))


def _interpolation(middles: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """The weights [len(middles), size] that take values at the middles of `size` bins to other places."""
    places = np.clip((middles - low) / max(high - low, 1e-6) * size - 0.5, 0, size - 1)
    first = np.minimum(places.astype(int), size - 2)
    weights = np.zeros((len(middles), size))
    each = np.arange(len(middles))
    weights[each, first], weights[each, first + 1] = 1 - (places - first), places - first
    return weights


def all_results(
    batches: Iterable[Mapping[str, np.ndarray]], images: Sequence[Stored], category_ids: Sequence[int]
) -> list[Result]:
    """The results of batches of detections.

    Args:
      batches: arrays [batch, ...] by name, with `index`, `size` and `mask` of the images.
      images: of the split.
      category_ids: by label.
    """
    results: list[Result] = []
    for batch in batches:
        for place in np.flatnonzero(batch["mask"]).tolist():
            own = {name: values[place] for name, values in batch.items()}
            stored = images[int(own["index"])]
            results += results_of(in_stored_pixels(own, own["size"], stored), stored, category_ids)
    return results
