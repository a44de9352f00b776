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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RECORDS, config_of, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.analysis.tables import print_table
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

STEP_PARTS = ("step proposals", "step box roi_align", "step mask roi_align")
"""Of a step, the gradients of pooling included."""


def parts_of(model: Any, variables: Any, images: Any, width: float) -> dict[str, Callable[[], Any]]:
    """Compiled calls without arguments of every part at a width, of the `whole` and of the `step`."""
    import jax
    import jax.numpy as jnp

    from slimjax.tasks.detection.anchors import anchors_of_level
    from slimjax.tasks.detection.proposals import detections_of, proposals_of
    from slimjax.tasks.detection.roi_align import roi_align
    from slimjax.tasks.detection.settings import BOX_SIZE, KEYPOINT_SIZE, LEVELS, MASK_SIZE

    settings, count = model.settings, len(images)
    sizes = jnp.tile(jnp.asarray(images.shape[1:3], jnp.float32), (count, 1))
    calls: dict[str, Callable[[], Any]] = {}

    def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a part makes of the arguments, which it is also timed on."""
        compiled = jax.jit(function)
        calls[name] = partial(compiled, *arguments)
        return compiled(*arguments)

    def applied(method: Callable[..., Any]) -> Callable[..., Any]:
        return partial(model.apply, method=method)

    backbone = applied(lambda detector, images: detector.backbone.stage_features(images, width))
    maps = timed("backbone", backbone, variables, images)
    pyramid = timed("pyramid", applied(lambda detector, maps: detector.pyramid(maps)), variables, maps)
    logits, shifts = timed("rpn", applied(lambda detector, x: detector.region_proposals(x)), variables, pyramid)
    levels = dict(zip(LEVELS, pyramid, strict=True))
    anchors = [
        jnp.asarray(anchors_of_level(x.shape[1], x.shape[2], 2**level, settings.anchor_scale))
        for level, x in levels.items()
    ]

    def propose(limits: Any, logits: Any, shifts: Any, size: Any) -> Any:
        return proposals_of(logits, shifts, anchors, size, limits, settings.rpn_nms_iou)

    propose_for = {
        limits: jax.vmap(partial(propose, limits)) for limits in (settings.test_proposals, settings.train_proposals)
    }
    proposals = timed("proposals", propose_for[settings.test_proposals], logits, shifts, sizes)
    sampled = timed("step proposals", propose_for[settings.train_proposals], logits, shifts, sizes).boxes
    pooled = {level: x for level, x in levels.items() if level != LEVELS[-1]}

    def pool(boxes: Any, size: int) -> Any:
        return jax.vmap(partial(roi_align, size=size))(pooled, boxes).reshape(-1, size, size, settings.features)

    def pooling_gradient(size: int) -> Callable[..., Any]:
        return jax.grad(lambda maps, boxes: jnp.sum(jax.vmap(partial(roi_align, size=size))(maps, boxes) ** 2))

    timed("step box roi_align", pooling_gradient(BOX_SIZE), pooled, sampled[:, : settings.box_samples])
    regions = timed("box roi_align", partial(pool, size=BOX_SIZE), proposals.boxes)
    classes, boxes = timed("box head", applied(lambda detector, x: detector.box_head(x)), variables, regions)
    by_image = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), (classes, boxes))
    detect = jax.vmap(partial(detections_of, settings=settings))
    found = timed("detections", detect, *by_image, proposals, sizes)
    if settings.masks:
        positives = sampled[:, : settings.box_positives]
        timed("step mask roi_align", pooling_gradient(MASK_SIZE), pooled, positives)
        regions = timed("mask roi_align", partial(pool, size=MASK_SIZE), found.boxes)
        timed("mask head", applied(lambda detector, x: detector.mask_head(x)), variables, regions)
    if settings.num_keypoints:
        regions = timed("keypoint roi_align", partial(pool, size=KEYPOINT_SIZE), found.boxes)
        timed("keypoint head", applied(lambda detector, x: detector.keypoint_head(x)), variables, regions)
    timed("whole", lambda variables, images: model.apply(variables, images, width), variables, images)
    timed("step", gradients_of(model, width), variables, images)
    return calls


def gradients_of(model: Any, width: float) -> Callable[..., Any]:
    """The gradients of a width's losses, on images in each of which there are four objects."""
    import jax
    import jax.numpy as jnp

    from slimjax.tasks.detection.matching import Objects
    from slimjax.tasks.detection.settings import MASK_SIZE

    def total(params: Any, batch_stats: Any, images: Any) -> Any:
        count, height, side, _ = images.shape
        corners = jnp.asarray([[0.1, 0.1], [0.5, 0.2], [0.3, 0.5], [0.2, 0.3]]) * jnp.asarray([side, height])
        boxes = jnp.concatenate([corners, corners + jnp.asarray([0.3 * side, 0.4 * height])], -1)
        points = jnp.broadcast_to(boxes[:, None, :2] + 2.0, (4, model.settings.num_keypoints, 2))
        keypoints = jnp.concatenate([points, 2.0 * jnp.ones_like(points[..., :1])], -1)
        masks = jnp.ones((4, 2 * MASK_SIZE, 2 * MASK_SIZE), jnp.uint8)
        there, crowds = jnp.ones(4, bool), jnp.zeros(4, bool)
        one = Objects(boxes, jnp.arange(4, dtype=jnp.int32), there, crowds, masks, keypoints)
        objects = jax.tree.map(lambda array: jnp.broadcast_to(array, (count, *array.shape)), one)
        sizes = jnp.tile(jnp.asarray([height, side], jnp.float32), (count, 1))
        keys = jax.random.split(jax.random.key(0), count)
        variables = {"params": params, "batch_stats": batch_stats}
        arguments = (images, objects, sizes, keys, width)
        losses, _ = model.apply(variables, *arguments, method="losses", mutable=["batch_stats"])
        return sum(jnp.sum(of_part) for of_part in losses.values())

    return lambda variables, images: jax.grad(total)(variables["params"], variables["batch_stats"], images)


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
    main()
