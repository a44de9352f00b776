"""Images per second and core of the input pipeline, as a ratio to nothing but decoding the same files.

    python experiments/benchmarks/input_pipeline.py
    python experiments/benchmarks/input_pipeline.py --cores 8 --images 1024 --rounds 15

It makes JPEGs first: 500x375 pixels at quality 90, cut at random from the two photographs that scikit-learn carries,
half of them mirrored or turned upright, with film grain, since the photographs are smoother than most: 94 kB in the
mean, where ImageNet's files have 115 (the larger a file, the longer decoding takes). Then, in one process and taking
turns, batches of 224 pixels from: the evaluation (resize 256, crop 224) and the training of configs/s_mobilenet_v2.py
(crop .25-1, flip, jitter .4, PCA .1), through the functions that a run uses, up to what devices are given; and loops of
`tf.io.decode_and_crop_jpeg` alone, over the same files and the same crops, on as many threads. A turn begins with
batches that are not timed, since each works ahead while the others have their turn.

Seconds are of the wall and of the processor, which all threads share; where others use the machine as well, the
second are the ones to read. Ratios are medians over the rounds. Writes a record into records/.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RECORDS, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.cli import told

WIDTH, HEIGHT, QUALITY = 500, 375, 90
GRAIN = 12.0
BATCH_SIZE = 32
PAIRS = {"evaluation": "decoding, evaluation's crops", "training": "decoding, training's crops"}


def write_images(folder: Path, count: int, grain: float) -> float:
    """Writes an image folder with the splits `train` and `validation`, which are the same; returns a file's mean bytes.

    Args:
      folder: to write to.
      count: images.
      grain: standard deviation of the noise added to the brightness, in grey levels.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs, rng = load_sample_images().images, np.random.default_rng(0)
    files = folder / "train" / "photographs"
    files.mkdir(parents=True)
    (folder / "validation").symlink_to(folder / "train")
    for index in range(count):
        photograph = photographs[index % 2]
        top, left = (
            rng.integers(1 + have - want) for have, want in zip(photograph.shape, (HEIGHT, WIDTH), strict=False)
        )
        cut = photograph[top : top + HEIGHT, left : left + WIDTH] + rng.normal(0, grain, (HEIGHT, WIDTH, 1))
        image = Image.fromarray(np.clip(np.rint(cut), 0, 255).astype(np.uint8))
        if index // 2 % 2:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if index // 4 % 4 == 0:
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(files / f"{index:05d}.jpg", quality=QUALITY)
    return statistics.mean(path.stat().st_size for path in files.iterdir())


def contestants(folder: Path) -> dict[str, Iterator[Any]]:
    """Endless batches of each."""
    from slimjax.configs import s_mobilenet_v2

    from slimjax.tasks.classification.data import decoding, stream, train_batches
    from slimjax.tasks.classification.data.config import CROP_AREAS
    from slimjax.tasks.classification.data.damage import Damage
    from slimjax.tasks.classification.data.folder import FolderSource
    from slimjax.tasks.classification.data.splits import parse_split
    from slimjax.tensorflow_import import tf

    config = s_mobilenet_v2.get_config().dataset
    config.update(name="folder", data_dir=str(folder))

    class EndlessSource(FolderSource):
        """Goes round, so that no pass over the few files begins and ends the graph's parallel parts anew."""

        def references(self, ranges: Any, seed: Any) -> tf.data.Dataset:
            return super().references(ranges, seed).repeat()

    source = EndlessSource(config.data_dir)
    ranges = parse_split("eval_split", config.eval_split, source.splits)
    references = source.references(ranges, seed=None).enumerate()

    def evaluation(_: int, marked: bool) -> tf.data.Dataset:
        return stream.eval_stream(source, ranges, config, marked=marked).batch(BATCH_SIZE)

    def bare(window_of: Any) -> Iterator[Any]:
        # AutoGraph would warn that it does not find TensorFlow, which is imported in here.
        @tf.autograph.experimental.do_not_convert
        def decode(counter: tf.Tensor, reference: Any) -> tf.Tensor:
            encoded = source.read(reference)["image"]
            height, width = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
            # One number of the image stands for it: nothing is copied into a batch.
            return tf.io.decode_and_crop_jpeg(encoded, window_of(counter, height, width), channels=3)[0, 0, 0]

        images = references.map(decode, num_parallel_calls=stream.num_threads(), deterministic=True)
        return stream.iterate(lambda number, marked: images.batch(BATCH_SIZE), Damage(config))

    def center(_: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return decoding.center_window(height, width, image_size=config.image_size, eval_resize=config.eval_resize)

    def random(counter: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(0, tf.int64), counter])
        return decoding.random_window(height, width, area_range=CROP_AREAS[config.augmentation], seed=seed)

    return {
        "evaluation": stream.iterate(evaluation, Damage(config)),
        PAIRS["evaluation"]: bare(center),
        "training": train_batches(config, batch_size=BATCH_SIZE, seed=0),
        PAIRS["training"]: bare(random),
    }


def measure(batches: dict[str, Iterator[Any]], num_batches: int, rounds: int, console: Console) -> dict[str, Any]:
    """Seconds of every round, for `num_batches` batches each."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "processor": []} for name in batches}
    for number in range(rounds + 1):
        for name, iterator in batches.items():
            # What it has worked ahead, and what the one before still works on.
            for _ in range(8):
                next(iterator)
            began = time.perf_counter(), time.process_time()
            for _ in range(num_batches):
                next(iterator)
            # The first round finds out how many calls to run at once.
            if number:
                seconds[name]["wall"].append(time.perf_counter() - began[0])
                seconds[name]["processor"].append(time.process_time() - began[1])
        console.print(f"round {number} of {rounds}")
    return seconds


def summary(seconds: dict[str, Any], images: int, cores: int) -> dict[str, Any]:
    """Images per second and core of each, and the ratios, by either clock."""
    rates = {
        name: {
            "wall": round(images / statistics.median(of["wall"]) / cores, 1),
            "processor": round(images / statistics.median(of["processor"]), 1),
        }
        for name, of in seconds.items()
    }
    ratios = {
        ours: {
            clock: round(
                statistics.median(a / b for a, b in zip(seconds[bare][clock], seconds[ours][clock], strict=True)), 3
            )
            for clock in ("wall", "processor")
        }
        for ours, bare in PAIRS.items()
    }
    return {"images_per_second_and_core": rates, "ratio_to_decoding": ratios}


def print_summary(record: dict[str, Any], console: Console) -> None:
    """A table of rates and ratios."""
    table = Table("", "images/s/core, wall", "images/s/core, processor", "ratio, wall", "ratio, processor")
    for name, rates in record["images_per_second_and_core"].items():
        ratios = record["ratio_to_decoding"].get(name, {})
        table.add_row(name, *(str(of[clock]) for of in (rates, ratios) if of for clock in ("wall", "processor")))
    console.print(table)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="files to make")
    parser.add_argument("--grain", type=float, default=GRAIN, help="noise of the images, in grey levels")
    parser.add_argument("--cores", type=int, default=0, help="to use; 0 is all")
    parser.add_argument("--batches", type=int, default=24, help=f"of a turn, {BATCH_SIZE} images each")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RECORDS / "input_pipeline.json")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, available[: arguments.cores or len(available)])
    from slimjax.allocator import keep_freed_memory

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        mean_bytes = write_images(Path(folder), arguments.images, arguments.grain)
        console.print(f"{arguments.images} files of {mean_bytes / 1e3:.0f} kB")
        batches = contestants(Path(folder))
        load = os.getloadavg()[0]
        seconds = measure(batches, arguments.batches, arguments.rounds, console)
        # What still works ahead would miss its files.
        batches.clear()
    record = {
        **measured_on("tensorflow-cpu", "tensorflow-datasets"),
        "load_before": load,
        "files": arguments.images,
        "mean_file_bytes": round(mean_bytes),
        "images_of_a_turn": arguments.batches * BATCH_SIZE,
        "seconds": seconds,
    }
    record |= summary(seconds, arguments.batches * BATCH_SIZE, record["cores"])
    write_record(arguments.output, record)
    print_summary(record, console)
    console.print(f"record: {arguments.output}")


if __name__ == "__main__":
    sys.exit(told(main))
