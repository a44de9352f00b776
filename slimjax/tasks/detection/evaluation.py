"""Average precision as COCO computes it, of what a network has found in the images of a split."""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from slimjax.errors import UserError
from slimjax.tasks.detection.data.source import Split
from slimjax.tasks.task import Figures

PARTS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
"""COCO's names of what is evaluated, and how the figures are named here."""

_KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
_COMMON = ("image_id", "category_id", "score")

_STATS = {"": 0, "50": 1, "75": 2}
"""Where COCO's list has the mean over IoU .5 to .95, and those at .5 and .75."""

_OTHER_SIGMA = 0.05
"""Of keypoints that are not COCO's 17 of people, which have sigmas of their own (cocodataset.org/#keypoints-eval)."""

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


class GroundTruth:
    """The annotations of a split as pycocotools takes them, made from the stored records."""

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
        self._api = _index(_content(split, categories))
        self.sizes: dict[int, tuple[int, int]] = {
            image["id"]: (image["height"], image["width"]) for image in self._api.dataset["images"]
        }

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
            if part == "keypoints" and (count := len(self._categories.keypoints)) != 17:
                evaluation.params.kpt_oks_sigmas = np.full(count, _OTHER_SIGMA)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats: Sequence[float] = evaluation.stats
        return stats


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
    images, annotations = [], []
    for index in range(len(split)):
        record = split.record(index)
        height, width = split.image_size(record)
        image_id, objects = int(record["image/id"]), record["objects"]
        images.append({"id": image_id, "height": height, "width": width})
        for place in range(len(objects["id"])):
            annotations.append(_annotation(image_id, (height, width), objects, place, categories))
    named = [{"id": id_, "name": name} for id_, name in zip(categories.ids, categories.names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": named}


def _annotation(
    image_id: int, size: tuple[int, int], objects: Mapping[str, Any], place: int, categories: Categories
) -> dict[str, Any]:
    left, top, right, bottom = (float(value) for value in objects["box"][place])
    keypoints = [float(value) for value in objects["keypoints"][place]] if categories.keypoints else []
    counts = objects["segmentation"][place]
    # Of an object without a mask it is its box, as in training.
    filled = [[left, top, left, bottom, right, bottom, right, top]]
    return {
        # COCO takes the id 0 for no match.
        "id": int(objects["id"][place]) + 1,
        "image_id": image_id,
        "category_id": categories.ids[int(objects["label"][place])],
        "bbox": [left, top, right - left, bottom - top],
        "area": float(objects["area"][place]),
        "iscrowd": int(objects["is_crowd"][place]),
        "segmentation": {"size": list(size), "counts": counts} if counts else filled,
        "keypoints": keypoints,
        "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3]),
    }


def results_of(
    detections: Mapping[str, np.ndarray],
    image_id: int,
    scale: float,
    stored_size: tuple[int, int],
    category_ids: Sequence[int],
) -> list[Result]:
    """What was found in one image, in COCO's format and the stored image's pixels.

    Args:
      detections: arrays of one image by name, as `slimjax.tasks.detection.proposals.Detections`.
      image_id: of the stored image.
      scale: pixels that the network saw over those stored.
      stored_size: height and width of the stored image, pixels.
      category_ids: by label.
    """
    height, width = stored_size
    boxes = detections["boxes"] / scale
    boxes = np.clip(boxes, 0, [width, height, width, height])
    results = []
    for place in np.flatnonzero(detections["there"]).tolist():
        left, top, right, bottom = boxes[place].tolist()
        result = {
            "image_id": image_id,
            "category_id": category_ids[int(detections["labels"][place])],
            "score": float(detections["scores"][place]),
            "bbox": [left, top, right - left, bottom - top],
        }
        if detections.get("masks") is not None:
            result["segmentation"] = pasted_mask(detections["masks"][place], boxes[place], stored_size)
        if detections.get("keypoints") is not None:
            points = detections["keypoints"][place]
            flat = np.stack([points[:, 0] / scale, points[:, 1] / scale, np.ones(len(points))], -1)
            result["keypoints"] = [float(value) for value in flat.reshape(-1)]
        results.append(result)
    return results


def pasted_mask(mask: np.ndarray, box: np.ndarray, image_size: tuple[int, int]) -> dict[str, Any]:
    """A mask in its box as run lengths of the whole image.

    Args:
      mask: [size, size] probabilities.
      box: x1, y1, x2, y2, pixels.
      image_size: height and width of the image, pixels.

    Returns:
      `size` and `counts`, as COCO has them: a pixel is the object's where the bilinear value at its middle is .5 or
      more.
    """
    from pycocotools import mask as coco_masks

    left, top, right, bottom = box.tolist()
    height, width = image_size
    rows = np.arange(int(top), min(int(np.ceil(bottom)), height))
    columns = np.arange(int(left), min(int(np.ceil(right)), width))
    whole = np.zeros(image_size, np.uint8, order="F")
    if len(rows) and len(columns):
        by_rows = _interpolation(rows + 0.5, top, bottom, len(mask))
        by_columns = _interpolation(columns + 0.5, left, right, len(mask))
        whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = by_rows @ mask @ by_columns.T >= 0.5
    run_lengths = coco_masks.encode(whole)
    return {"size": list(image_size), "counts": run_lengths["counts"].decode()}


def _interpolation(middles: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """The weights [len(middles), size] that take values at the middles of `size` bins to other places."""
    places = np.clip((middles - low) / max(high - low, 1e-6) * size - 0.5, 0, size - 1)
    first = np.minimum(places.astype(int), size - 2)
    weights = np.zeros((len(middles), size))
    each = np.arange(len(middles))
    weights[each, first], weights[each, first + 1] = 1 - (places - first), places - first
    return weights


def all_results(
    batches: Iterable[Mapping[str, np.ndarray]],
    sizes: Mapping[int, tuple[int, int]],
    category_ids: Sequence[int],
    tell: Callable[[int], None] = lambda done: None,
) -> list[Result]:
    """The results of batches of detections, each with `id`, `scale` and `mask` of its images.

    Args:
      batches: arrays [batch, ...] by name.
      sizes: heights and widths of the stored images, by id.
      category_ids: by label.
      tell: told of the number of images that are done.
    """
    results: list[Result] = []
    for done, batch in enumerate(batches, start=1):
        for place in np.flatnonzero(batch["mask"]).tolist():
            own = {name: values[place] for name, values in batch.items()}
            image_id = int(own["id"])
            results += results_of(own, image_id, float(own["scale"]), sizes[image_id], category_ids)
        tell(done)
    return results
