"""Times the training loop against the bare step, with images in memory: what metrics, progress and bookkeeping cost.

    python experiments/benchmarks/loop_overhead.py [--config configs/s_mobilenet_v2.py --batch_size 8 --rounds 3]

Both run the very same compiled programs on the same images, in turns, and the ratio is the median over the rounds. The
loop is timed from its 6th step to its last, lines of metrics included; compiling, evaluating and the checkpoint at the
end, which a step does not have, are not in it. What is left of preparing images is one array that is handed out again.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RECORDS, config_of, measured_on, write_record

from slimjax.cli import told

_WARM_UP = 5


class InMemory:
    """A task whose training images are one random batch, over and over; notes when the loop asks for it."""

    def __init__(self, task: Any, batch: dict[str, np.ndarray]) -> None:
        self._task, self._batch = task, batch
        self.asked_at: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def train_batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """See Task."""
        while True:
            self.asked_at.append(time.perf_counter())
            yield self._batch

    def eval_batches(self) -> Iterator[dict[str, np.ndarray]]:
        """See Task: one batch, since the loop ends with an evaluation."""
        yield self._batch | {"mask": np.ones(len(self._batch["label"]), np.float32)}


def create_loop(config_file: str, batch_size: int | None, num_steps: int) -> Any:
    """A run of a configuration of the project, on random images instead of its data set."""
    from slimjax.paths import folder_path
    from slimjax.tasks.dataset_info import DatasetInfo
    from slimjax.training.checkpoints import Checkpoints
    from slimjax.training.mesh import data_mesh
    from slimjax.training.run import Cadence, Run
    from slimjax.training.setup import create_training

    config = config_of(config_file)
    config.batch_size = batch_size or config.batch_size
    config.update(num_train_steps=num_steps, num_epochs=None)
    config.schedule.update(name="constant", warmup_steps=None, warmup_epochs=None)
    num_classes = 10 if config.dataset.name == "digits" else 1000
    info = DatasetInfo("random", num_classes, 10**6, config.batch_size, ())
    training = create_training(config, data_mesh(), info)
    size = config.dataset.image_size
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (config.batch_size, size, size, 3), np.uint8),
        "label": rng.integers(0, num_classes, config.batch_size, np.int32),
    }
    workdir = folder_path("never_written_to", "workdir")
    cadence = Cadence(config.log_every_steps, num_steps, num_steps)
    parts = vars(training) | {"task": InMemory(training.task, batch)}
    return Run(**parts, workdir=workdir, cadence=cadence, checkpoints=Checkpoints(workdir)), batch


def seconds_of_bare_steps(run: Any, batch: dict[str, np.ndarray], count: int) -> float:
    """Seconds a step, called in a row and waited for at the end."""
    import jax

    from slimjax.training.prefetch import device_batches
    from slimjax.training.run import new_state

    turn, state = run.rule.turn(0), new_state(run)
    (arrays,) = device_batches(run.mesh, [batch])
    for _ in range(_WARM_UP):
        state, metrics = run.train_step(state, arrays, turn)
    jax.block_until_ready((state, metrics))
    began = time.perf_counter()
    for _ in range(count):
        state, metrics = run.train_step(state, arrays, turn)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - began) / count


def seconds_of_loop(run: Any) -> float:
    """Seconds a step of the loop, in a workdir of its own."""
    from slimjax.paths import folder_path
    from slimjax.training.checkpoints import Checkpoints
    from slimjax.training.loop import train

    workdir = folder_path(tempfile.mkdtemp(), "workdir")
    run = dataclasses.replace(run, workdir=workdir, checkpoints=Checkpoints(workdir))
    run.task.asked_at.clear()
    train(run)
    run.checkpoints.close()
    workdir.rmtree()
    asked_at = run.task.asked_at
    # The loop asks for a batch when it has handed the one before to the devices.
    return (asked_at[-1] - asked_at[_WARM_UP]) / (len(asked_at) - 1 - _WARM_UP)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.py", help="file of the configuration")
    parser.add_argument("--batch_size", type=int, help="images of a step; the configuration's, if absent")
    parser.add_argument("--steps", type=int, default=205, help="steps of each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    from slimjax import cli
    from slimjax.allocator import keep_freed_memory

    keep_freed_memory()
    cli.use_compilation_cache()
    run, batch = create_loop(arguments.config, arguments.batch_size, arguments.steps)
    rounds = []
    for number in range(arguments.rounds):
        timed = {
            "loop_s": lambda: seconds_of_loop(run),
            "bare_s": lambda: seconds_of_bare_steps(run, batch, arguments.steps - _WARM_UP),
        }
        # By turns first and second, so that a machine that slows down or speeds up favours neither.
        rounds.append({name: timed[name]() for name in sorted(timed, reverse=number % 2 == 0)})
        loop, bare = rounds[-1]["loop_s"], rounds[-1]["bare_s"]
        print(f"round {number + 1} of {arguments.rounds}: loop {loop * 1e3:.2f} ms, bare {bare * 1e3:.2f} ms a step")
    ratio = statistics.median(row["loop_s"] / row["bare_s"] for row in rounds)
    name = Path(arguments.config).stem
    output = arguments.output or RECORDS / f"loop_overhead_{name}.json"
    about = {"config": arguments.config, "batch_size": run.config.batch_size, "log_every": run.config.log_every_steps}
    write_record(output, {**measured_on(), **about, "rounds": rounds, "loop_over_bare": round(ratio, 4)})
    print(f"{name}: the loop's step takes {ratio:.3f} times the bare one's; record: {output}")


if __name__ == "__main__":
    sys.exit(told(main))
