"""Times a detector's step and inference at every width, and each part: what suppression and RoIAlign take of the whole.

    python experiments/benchmarks/detection.py                                      shapes_mask_rcnn, its own image size
    python experiments/benchmarks/detection.py --config s_mask_rcnn --num_classes 80 --sizes 800x1344 --widths 0.25 1

A step is the gradients of a width's losses. Parts are programs of their own, given what the parts before them have
made of random images, and take turns. They do not quite add up to the whole, in which XLA fuses across them. Of a
step, what is not a network's is timed as well: its proposals, and pooling its sampled regions with the gradient of
that. Weights are random, so proposals overlap otherwise than a trained network's; but for a few rounds more or less,
suppression does the same work whatever they are. Writes a record beside this file.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RECORDS, config_of, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.analysis.tables import print_table
from slimjax.cli import told
from slimjax.configuration import configuration_file

PARTS = (
    "backbone",
    "pyramid",
    "rpn",
    "proposals",
    "box roi_align",
    "box head",
    "detections",
    "mask roi_align",
    "mask head",
    "keypoint roi_align",
    "keypoint head",
)
"""Of inference, in the order in which they run; `proposals` and `detections` are decoding and suppression."""

RECORDED = ("num_classes", "batch_size", "repeats")

STEP_PARTS = ("step proposals", "step box roi_align", "step mask roi_align", "step keypoint roi_align")
"""Of a step, the gradients of pooling included."""


class Parts:
    """Compiled calls of a detector's parts at a width, each given what the parts before it make of some images.

    Attributes:
      calls: without arguments, by the part's name.
    """

    def __init__(self, model: Any, variables: Any) -> None:
        """Has no calls yet."""
        self.model, self._variables = model, variables
        self.calls: dict[str, Callable[[], Any]] = {}

    def add(self, name: str, part: Callable[..., Any], *arguments: Any) -> Any:
        """What a part, a function of the detector and the arguments, makes of these; it is timed on them."""
        return self.add_function(name, partial(self.model.apply, method=part), self._variables, *arguments)

    def add_function(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The same, of a function of the arguments alone."""
        import jax

        compiled = jax.jit(function)
        self.calls[name] = partial(compiled, *arguments)
        return compiled(*arguments)


def parts_of(model: Any, variables: Any, images: Any, width: float) -> dict[str, Callable[[], Any]]:
    """Compiled calls without arguments of every part at a width, of the `whole` and of the `step`."""
    import jax
    import jax.numpy as jnp

    from slimjax.tasks.detection.proposals import detections_of
    from slimjax.tasks.detection.settings import BOX_SIZE, KEYPOINT_SIZE, LEVELS, MASK_SIZE

    settings, count, parts = model.settings, len(images), Parts(model, variables)
    sizes = jnp.tile(jnp.asarray(images.shape[1:3], jnp.float32), (count, 1))
    maps = parts.add("backbone", lambda detector, images: detector.backbone.stage_features(images, width), images)
    pyramid = parts.add("pyramid", lambda detector, maps: detector.pyramid(maps), maps)
    found = parts.add("rpn", lambda detector, pyramid: detector.region_proposals(pyramid), pyramid)
    levels = dict(zip(LEVELS, pyramid, strict=True))

    def propose(limits: Any) -> Callable[..., Any]:
        return lambda detector, levels, found: detector.proposals(levels, *found, sizes, limits)

    def pool(size: int) -> Callable[..., Any]:
        return lambda detector, levels, boxes: detector.pooled(levels, boxes, size)

    proposals = parts.add("proposals", propose(settings.test_proposals), levels, found)
    regions = parts.add("box roi_align", pool(BOX_SIZE), levels, proposals.boxes)
    scored = parts.add("box head", lambda detector, regions: detector.box_head(regions), regions)
    by_image = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), scored)
    detect = jax.vmap(partial(detections_of, settings=settings))
    boxes = parts.add_function("detections", detect, *by_image, proposals, sizes).boxes
    if settings.masks:
        regions = parts.add("mask roi_align", pool(MASK_SIZE), levels, boxes)
        parts.add("mask head", lambda detector, regions: detector.mask_head(regions), regions)
    if settings.num_keypoints:
        regions = parts.add("keypoint roi_align", pool(KEYPOINT_SIZE), levels, boxes)
        parts.add("keypoint head", lambda detector, regions: detector.keypoint_head(regions), regions)
    parts.add("whole", lambda detector, images: detector(images, width), images)
    sampled = parts.add("step proposals", propose(settings.train_proposals), levels, found).boxes
    pooled = {"step box roi_align": (BOX_SIZE, settings.box_samples)}
    if settings.masks:
        pooled["step mask roi_align"] = (MASK_SIZE, settings.box_positives)
    if settings.num_keypoints:
        pooled["step keypoint roi_align"] = (KEYPOINT_SIZE, settings.box_positives)
    for name, (size, kept) in pooled.items():
        parts.add_function(name, pooling_gradient(parts, pool(size), sampled[:, :kept]), levels)
    # Given as they are in a training, not constants that XLA would match with anchors while it compiles.
    parts.add_function("step", gradients_of(model, width), variables, images, some_objects(model, images))
    return parts.calls


def pooling_gradient(parts: Parts, pool: Callable[..., Any], boxes: Any) -> Callable[..., Any]:
    """Of the pooled regions the gradient by the maps by level."""
    import jax
    import jax.numpy as jnp

    return jax.grad(lambda levels: jnp.sum(parts.model.apply({}, levels, boxes, method=pool) ** 2))


def gradients_of(model: Any, width: float) -> Callable[..., Any]:
    """The gradients of a width's losses, on images and the objects in them."""
    import jax
    import jax.numpy as jnp

    def total(params: Any, batch_stats: Any, images: Any, objects: Any) -> Any:
        sizes = jnp.tile(jnp.asarray(images.shape[1:3], jnp.float32), (len(images), 1))
        keys = jax.random.split(jax.random.key(0), len(images))
        variables = {"params": params, "batch_stats": batch_stats}
        arguments = (images, objects, sizes, keys, width)
        losses, _ = model.apply(variables, *arguments, method="losses", mutable=["batch_stats"])
        return sum(jnp.sum(of_part) for of_part in losses.values())

    return lambda variables, *batch: jax.grad(total)(variables["params"], variables["batch_stats"], *batch)


def some_objects(model: Any, images: Any) -> Any:
    """Four objects in each of the images."""
    import jax
    import jax.numpy as jnp

    from slimjax.tasks.detection.matching import Objects
    from slimjax.tasks.detection.settings import MASK_SIZE

    count, height, side, _ = images.shape
    corners = jnp.asarray([[0.1, 0.1], [0.5, 0.2], [0.3, 0.5], [0.2, 0.3]]) * jnp.asarray([side, height])
    boxes = jnp.concatenate([corners, corners + jnp.asarray([0.3 * side, 0.4 * height])], -1)
    points = jnp.broadcast_to(boxes[:, None, :2] + 2.0, (4, model.settings.num_keypoints, 2))
    keypoints = jnp.concatenate([points, 2.0 * jnp.ones_like(points[..., :1])], -1)
    masks = jnp.ones((4, 2 * MASK_SIZE, 2 * MASK_SIZE), jnp.uint8)
    there, crowds = jnp.ones(4, bool), jnp.zeros(4, bool)
    one = Objects(boxes, jnp.arange(4, dtype=jnp.int32), there, crowds, masks, keypoints)
    return jax.tree.map(lambda array: jnp.broadcast_to(array, (count, *array.shape)), one)


def measure(
    config: Any, num_classes: int, size: tuple[int, int], widths: tuple[float, ...], batch_size: int, repeats: int
) -> Any:
    """Rows, one for each width: milliseconds of every part and of the whole."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from slimjax.analysis.timing import time_in_turns
    from slimjax.tasks.creation import create_network

    model = create_network(config, num_classes, jax.default_backend())
    images = jnp.asarray(np.random.default_rng(0).normal(size=(batch_size, *size, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:, :32, :32])
    rows = []
    for width in widths or model.widths:
        latencies = time_in_turns(parts_of(model, variables, images, width), repeats)
        rows.append({"width": width, "ms": {name: round(of.median_ms, 2) for name, of in latencies.items()}})
    return rows


def print_rows(size: tuple[int, int], rows: list[dict[str, Any]]) -> None:
    """A table: what each part takes of the sum of all."""
    names, of_step = ([name for name in parts if name in rows[0]["ms"]] for parts in (PARTS, STEP_PARTS))
    title = f"{size[0]} x {size[1]} pixels: step and its parts in % of it, inference and % of the sum of its parts"
    table = Table("width", "step ms", *of_step, "whole ms", *names, title=title)
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        total = sum(row["ms"][name] for name in names)
        step, whole = row["ms"]["step"], row["ms"]["whole"]
        step_shares = (f"{100 * row['ms'][name] / step:.1f}" for name in of_step)
        shares = (f"{100 * row['ms'][name] / total:.1f}" for name in names)
        table.add_row(f"{row['width']:g}", f"{step:.1f}", *step_shares, f"{whole:.1f}", *shares)
    print_table(table)


def image_size(text: str) -> tuple[int, int]:
    """Height and width of `800x1344`."""
    height, width = (int(side) for side in text.split("x"))
    return height, width


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="shapes_mask_rcnn", help="of a detector, a short name or a file")
    parser.add_argument("--num_classes", type=int, default=3, help="categories; COCO has 80")
    parser.add_argument("--sizes", nargs="+", type=image_size, help="heights and widths of images, such as 800x1344")
    parser.add_argument("--widths", nargs="+", type=float, default=(), help="all of them, if absent")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path, help="record; beside this file, if absent")
    arguments = parser.parse_args()
    from slimjax.tasks.detection.task import example_settings

    config = config_of(str(configuration_file(arguments.config)))
    console, results = Console(highlight=False), []
    for size in arguments.sizes or [example_settings(config).padded_size(wide=True)]:
        options = (tuple(arguments.widths), arguments.batch_size, arguments.repeats)
        rows = measure(config, arguments.num_classes, size, *options)
        results.append({"height": size[0], "width": size[1], "rows": rows})
        print_rows(size, rows)
    output = arguments.output or RECORDS / f"detection_{Path(arguments.config).stem}.json"
    about = {"config": Path(arguments.config).stem, **{name: getattr(arguments, name) for name in RECORDED}}
    write_record(output, {**measured_on(), **about, "sizes": results})
    console.print(f"record: {output}")


if __name__ == "__main__":
    sys.exit(told(main))
