"""Measures detectors: what every width finds in the evaluation split, and some images of it to look at."""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
from jax.sharding import Mesh

from slimjax.reporting.runs import FoundObjects, MeasuredDetector, ReportedRun
from slimjax.tasks.detection.metrics import Found
from slimjax.tasks.detection.task import DetectionTask
from slimjax.training.evaluation import Evaluator
from slimjax.training.progress import Progress

EXAMPLES = 6
"""Images that are shown."""

LEAST_SCORE = 0.5
"""Of detections that are shown."""

_OF_OBJECTS = ("boxes", "labels", "masks", "keypoints")


def measure_detector(run: ReportedRun, task: DetectionTask, mesh: Mesh, progress: Progress) -> MeasuredDetector:
    """Average precisions of every width of a run, and the images in which the widths find most different numbers.

    Args:
      run: the run.
      task: that it was trained on.
      mesh: of all devices.
      progress: shows how far it is.

    Raises:
      UserError: if the evaluation split is empty.
    """
    metrics = Evaluator(task, mesh, progress).metrics(run.variables["params"], run.variables["batch_stats"])
    found = {width: dict(enumerate(_of_images(of_width))) for width, of_width in metrics.items()}
    counts = np.array([[_count(detections) for detections in of_width.values()] for of_width in found.values()])
    chosen = sorted(np.argsort(-np.ptp(counts, axis=0), kind="stable")[:EXAMPLES].tolist())
    images = _images(run, chosen, task.data.eval_file_name)
    return MeasuredDetector(
        run,
        {},
        precisions={width: task.figures(of_width) for width, of_width in metrics.items()},
        num_evaluated=counts.shape[1],
        examples=[
            FoundObjects(*images[number], {width: of_width[number] for width, of_width in found.items()})
            for number in chosen
        ],
    )


def _of_images(found: Found) -> Iterator[dict[str, np.ndarray]]:
    """The detections of every image, in the order of the evaluation split."""
    for batch in found.on_host().batches:
        for place in np.flatnonzero(batch["mask"]).tolist():
            yield {name: values[place] for name, values in batch.items()}


def _count(detections: Mapping[str, np.ndarray]) -> int:
    return int(np.sum(detections["there"] & (detections["scores"] >= LEAST_SCORE)))


def _images(
    run: ReportedRun, numbers: Collection[int], file_name: Callable[[int], str]
) -> dict[int, tuple[str, np.ndarray, dict[str, Any]]]:
    """Images of the evaluation split by their numbers: their names, themselves without padding, their objects."""
    images, number = {}, count()
    for batch in run.eval_batches():
        for place in np.flatnonzero(batch["mask"]).tolist():
            if (this := next(number)) not in numbers:
                continue
            height, width = batch["size"][place].astype(int).tolist()
            truth = {name: batch[name][place] for name in _OF_OBJECTS if name in batch}
            there = batch["there"][place] & ~batch["crowds"][place]
            truth |= {"there": there, "scores": there.astype(np.float32)}
            if "keypoints" in truth:
                is_annotated = truth["keypoints"][..., 2:] > 0
                truth["keypoints"] = np.where(is_annotated, truth["keypoints"], np.nan)
            image = batch["image"][place][:height, :width].copy()
            images[this] = file_name(int(batch["index"][place])), image, truth
    return images
