"""Times evaluating all widths in one pass over the images against evaluating one width after the other.

    python experiments/benchmarks/evaluation.py [--model mobilenet_v2 --image_size 224 --images 256 --rounds 5]

On JPEGs of 500x375 pixels, made as the input pipeline's benchmark makes them, resized and cropped to 224; one after
the other, the widths are individual networks. Smaller crops (`--image_size 64`) shrink the networks' share, as faster
processors do. All are compiled before and take turns in one process: starting,
compiling and reading a checkpoint, which a program for each width would do again every time, are not in it. The ratio
is the median over the rounds. Beside it stand the seconds of reading the images alone, of which one pass of four
widths saves three.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from input_pipeline import write_images
from measuring import RECORDS, measured_on, write_record

# Film grain that brings the mean file near ImageNet's 110 kB, see input_pipeline.py.
GRAIN = 12.0


def evaluation_config(name: str, widths: tuple[float, ...], folder: Path, image_size: int, batch_size: int) -> Any:
    """The published evaluation of a network, on a folder of images and with crops of another size."""
    from slimjax.configs import published

    config = published.imagenet(name, widths, augmentation="mobile")
    config.batch_size = batch_size
    config.dataset.update(
        name="folder", data_dir=str(folder), image_size=image_size, eval_resize=image_size * 256 // 224
    )
    return config


def create_evaluation(config: Any) -> Callable[[], Any]:
    """Evaluates a network with random weights; the first call compiles."""
    import jax
    import jax.numpy as jnp

    from slimjax.tasks.classification.data import load_info
    from slimjax.tasks.classification.task import ClassificationTask, create_network
    from slimjax.training.evaluation import Evaluator
    from slimjax.training.mesh import data_mesh
    from slimjax.training.progress import Progress

    model, size = create_network(config, 1000, jax.default_backend()), config.dataset.image_size
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    evaluate = Evaluator(
        ClassificationTask(config, model, load_info(config.dataset)), data_mesh(), Progress(enabled=False)
    )
    return lambda: evaluate(variables["params"], variables["batch_stats"])


def read_images(config: Any) -> None:
    """Reads, decodes and crops what is evaluated, and does nothing with it."""
    from slimjax.tasks.classification.data import eval_batches

    for _ in eval_batches(config.dataset, batch_size=config.batch_size):
        pass


def seconds_of(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def timed_rounds(configs: list[Any], number: int) -> Iterator[dict[str, float]]:
    """Seconds of each round, for the configuration of all widths and those of each by itself."""
    together, *alone = map(create_evaluation, configs)
    for evaluate in (together, *alone):
        evaluate()
    for _ in range(number):
        yield {
            "together_s": seconds_of(together),
            "one_after_another_s": sum(seconds_of(evaluate) for evaluate in alone),
            "images_alone_s": seconds_of(lambda: read_images(configs[0])),
        }


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    from contestants import WIDTHS

    from slimjax import cli
    from slimjax.allocator import keep_freed_memory

    keep_freed_memory()
    cli.use_compilation_cache()
    widths = WIDTHS[arguments.model]
    about = {key: getattr(arguments, key) for key in ("model", "image_size", "images", "batch_size")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, arguments.images, GRAIN)
        configs = [
            evaluation_config(arguments.model, some, folder, arguments.image_size, arguments.batch_size)
            for some in (widths, *((width,) for width in widths))
        ]
        rounds = []
        for row in timed_rounds(configs, arguments.rounds):
            rounds.append(row)
            print(f"round {len(rounds)} of {arguments.rounds}: {row}")
    ratio = statistics.median(row["together_s"] / row["one_after_another_s"] for row in rounds)
    output = arguments.output or RECORDS / f"evaluation_{arguments.model}_{arguments.image_size}px.json"
    write_record(
        output, {**measured_on(), **about, "widths": widths, "rounds": rounds, "together_over_apart": round(ratio, 3)}
    )
    print(f"{arguments.model}: all widths in one pass take {ratio:.2f} of one after the other; record: {output}")


if __name__ == "__main__":
    main()
