"""What the train-step benchmark runs: each contestant in a process of its own, one step for every line it is sent.

    python contestants.py CONTESTANT MODEL BATCH_SIZE IMAGE_SIZE

It prints a line of JSON once it is ready, and then the seconds of a step for each line that it reads.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slimjax.configs import s_mobilenet_v1, s_mobilenet_v2, s_resnet50, s_shufflenet

from slimjax.allocator import keep_freed_memory

ROWS = (s_mobilenet_v1, s_mobilenet_v2, s_shufflenet, s_resnet50)
WIDTHS: dict[str, tuple[float, ...]] = {row.get_config().model.name: row.get_config().model.widths for row in ROWS}
"""By model: those of its published row."""

CONTESTANTS = ("slimmable_per_width", "slimmable_fused", "individuals", "pytorch", "pytorch_tuned_allocator")
"""PyTorch runs as it comes, and with the C library's allocator set as slimjax sets it for itself."""


WARM_UP_STEPS = 10
"""Before the first that counts: the heap grows for some steps, which take up to twice as long."""


@dataclass(frozen=True)
class CompiledStep:
    """A train step on random images.

    Attributes:
      run: runs a step to its end.
      programs: that a step consists of, in the order in which they run.
      compile_s: what compiling them took, seconds.
    """

    run: Callable[[], None]
    programs: list[Any]
    compile_s: float

    def about(self) -> dict[str, Any]:
        """Compile seconds, temporary bytes of each program, and what all count together; see ProgramCost."""
        from slimjax.analysis.program_costs import program_cost

        costs = [program_cost("step", program, 0) for program in self.programs]
        return {
            "compile_s": self.compile_s,
            "temporary_bytes": [cost.temporary_bytes for cost in costs],
            "flops": sum(cost.flops for cost in costs),
            "accessed_bytes": sum(cost.accessed_bytes for cost in costs),
        }


def compile_step(name: str, widths: tuple[float, ...], fused: bool, batch_size: int, image_size: int) -> CompiledStep:
    """The step of all these widths of a model, as one program or as one for each width and one for the update."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from slimjax.configs import default

    from slimjax import create_model
    from slimjax.tasks.classification.task import ClassificationTask
    from slimjax.tasks.dataset_info import DatasetInfo
    from slimjax.training.mesh import data_mesh, put_batch
    from slimjax.training.optimizers import create_optimizer, decay_mask
    from slimjax.training.state import initial_state
    from slimjax.training.step import TrainStep
    from slimjax.training.switches import Turn

    config, mesh = default.get_config(), data_mesh()
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = create_model(name, widths, 1000, dtype=dtype)
    task = ClassificationTask(config, model, DatasetInfo("random", 1000, batch_size, batch_size, ()))
    tx = create_optimizer(config.optimizer, lambda step: 0.045, decay_mask(model))
    rng, turn = np.random.default_rng(0), Turn(widths[::-1])
    images = rng.standard_normal((batch_size, image_size, image_size, 3), np.float32)
    batch = put_batch(mesh, {"image": images, "label": rng.integers(0, 1000, batch_size, np.int32)})
    state = jax.jit(lambda: initial_state(model, tx, 0, image_size))()
    step = TrainStep(task, tx, mesh, fused)
    began = time.perf_counter()
    programs = step.compile(state, batch, turn)
    compile_s = round(time.perf_counter() - began, 2)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch, turn)
        jax.block_until_ready((state, metrics))

    return CompiledStep(run, programs, compile_s)


def contestant(which: str, name: str, batch_size: int, image_size: int) -> tuple[Callable[[], None], dict[str, Any]]:
    """A contestant's step, over all widths of the model, and what it took to build."""
    widths = WIDTHS[name]
    if which.startswith("pytorch"):
        from torch_networks import make_step

        return make_step(name, widths, batch_size, image_size), {}
    if which != "individuals":
        step = compile_step(name, widths, which == "slimmable_fused", batch_size, image_size)
        return step.run, step.about()
    parts = [compile_step(name, (width,), True, batch_size, image_size) for width in widths]

    def run() -> None:
        for part in parts:
            part.run()

    abouts = [part.about() for part in parts]
    return run, {key: [about[key] for about in abouts] for key in abouts[0]}


def main() -> None:
    """Serves steps until the input ends."""
    which, name, batch_size, image_size = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    if which != "pytorch":
        keep_freed_memory()
    step, about = contestant(which, name, int(batch_size), int(image_size))
    for _ in range(WARM_UP_STEPS):
        step()
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
