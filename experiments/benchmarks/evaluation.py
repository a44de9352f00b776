"""Times evaluating all widths in one pass over the images against evaluating one width after the other.

    python experiments/benchmarks/evaluation.py [--model mobilenet_v2 --image_size 224 --images 256 --rounds 5]

On JPEGs of 500x375 pixels, made as the input pipeline's benchmark makes them, resized and cropped to 224; one after the
other, the widths are individual networks. Smaller crops (`--image_size 64`) shrink the networks' share, as faster
processors do. It is timed in two ways, which take turns; each ratio is the median over the rounds:

- as commands: `python -m slimjax.main --workdir=RUN --mode=eval` on a run of all widths, and on runs of each width one
  after another, starting and reading checkpoints included;
- in one process, where all are compiled before, which leaves the pass over the images alone. Beside it stand the
  seconds of reading the images, of which one pass of four widths saves three.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from input_pipeline import GRAIN, write_images
from measuring import RECORDS, measured_on, write_record

from slimjax.cli import told


def evaluation_config(name: str, widths: tuple[float, ...], folder: Path, image_size: int, batch_size: int) -> Any:
    """The published evaluation of a network, on a folder of images and with crops of another size."""
    from slimjax.configs import published

    config = published.imagenet(name, widths, augmentation="mobile")
    config.update(batch_size=batch_size, num_train_steps=1)
    config.dataset.update(
        name="folder", data_dir=str(folder), image_size=image_size, eval_resize=image_size * 256 // 224
    )
    return config


def write_run(config: Any, workdir: Path) -> Path:
    """A workdir with a network of random weights, as a run has it before its first step."""
    from slimjax.paths import folder_path
    from slimjax.training.run import create_run, new_state

    run = create_run(config, folder_path(str(workdir), "workdir"))
    run.checkpoints.save(new_state(run), run.description(0), figures={}, best_figure="")
    run.checkpoints.close()
    return workdir


def evaluate_by_command(workdir: Path) -> None:
    """Evaluates a run as its user would."""
    command = [sys.executable, "-m", "slimjax.main", f"--workdir={workdir}", "--mode=eval", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


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


def timed_rounds(configs: list[Any], workdirs: list[Path], number: int) -> Iterator[dict[str, float]]:
    """Seconds of each round, for the configuration of all widths, which comes first, and those of each by itself."""
    together, *alone = map(create_evaluation, configs)
    run_together, *runs_alone = workdirs
    for evaluate in (together, *alone):
        evaluate()
    for workdir in workdirs:
        evaluate_by_command(workdir)
    for _ in range(number):
        yield {
            "together_s": seconds_of(together),
            "one_after_another_s": sum(seconds_of(evaluate) for evaluate in alone),
            "images_alone_s": seconds_of(lambda: read_images(configs[0])),
            "command_together_s": seconds_of(lambda: evaluate_by_command(run_together)),
            "commands_one_after_another_s": sum(
                seconds_of(partial(evaluate_by_command, workdir)) for workdir in runs_alone
            ),
        }


def median_ratio(rounds: list[dict[str, float]], ours: str, others: str) -> float:
    """The median over the rounds."""
    return round(statistics.median(row[ours] / row[others] for row in rounds), 3)


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
        write_images(folder / "images", arguments.images, GRAIN)
        configs = [
            evaluation_config(arguments.model, some, folder / "images", arguments.image_size, arguments.batch_size)
            for some in (widths, *((width,) for width in widths))
        ]
        workdirs = [write_run(config, folder / f"run{number}") for number, config in enumerate(configs)]
        rounds = []
        for row in timed_rounds(configs, workdirs, arguments.rounds):
            rounds.append(row)
            print(f"round {len(rounds)} of {arguments.rounds}: {row}")
    ratios = {
        "together_over_apart": median_ratio(rounds, "together_s", "one_after_another_s"),
        "commands_together_over_apart": median_ratio(rounds, "command_together_s", "commands_one_after_another_s"),
    }
    output = arguments.output or RECORDS / f"evaluation_{arguments.model}_{arguments.image_size}px.json"
    write_record(output, {**measured_on(), **about, "widths": widths, "rounds": rounds, **ratios})
    in_process, as_commands = ratios.values()
    print(
        f"{arguments.model}: all widths in one pass take {as_commands:.2f} of one command after the other, "
        f"{in_process:.2f} without starting; record: {output}"
    )


if __name__ == "__main__":
    sys.exit(told(main))
