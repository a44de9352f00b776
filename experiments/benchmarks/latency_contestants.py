"""What the latency benchmark runs: one back end's programs of a model, timed as it is asked.

    python latency_contestants.py BACKEND MODEL IMAGE_SIZE

It prints a line of JSON once it is ready. For each line `KIND WIDTH BATCH_SIZE` that it reads, it calls that program
for a while and prints the milliseconds of every call, as a list. KIND is `shared`, a width through the weights of all
widths, or `alone`, the network of that width extracted and exported by itself. `pytorch` has networks of one width.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from contestants import WIDTHS

FORMATS = {"jax": "stablehlo", "onnxruntime": "onnx", "litert": "litert"}
BACKENDS = (*FORMATS, "pytorch")

THREADS = 2
CALLS, SECONDS = 3, 0.25
"""At least so many calls of a turn, and more until so much time has passed; one call before them is not timed."""

Run = Callable[[], Any]


def slimjax_runs(backend: str, name: str, image_size: int) -> Callable[[str, float, int], Run]:
    """Calls of programs by kind, width and batch size; random weights, since time does not depend on values."""
    from slimjax import create_model, extract_subnet
    from slimjax.analysis.latency import random_variables
    from slimjax.deploy.bundle import InputEntry
    from slimjax.deploy.formats import write_format
    from slimjax.deploy.source import Source, Trained

    rng = np.random.default_rng(0)
    model = create_model(name, WIDTHS[name], 1000)
    variables = random_variables(model)
    # Two, which is as few as int8 is calibrated on and compared on.
    images = rng.standard_normal((2, image_size, image_size, 3), np.float32)

    @cache
    def programs(kind: str, width: float | None) -> Callable[[float, np.ndarray], Any]:
        whole = (model, variables) if width is None else extract_subnet(model, variables, width)
        entry = InputEntry.square(image_size, "float32", (0.5,) * 3, (0.25,) * 3, image_size)
        trained = Trained(name, "classification", *whole, (), entry, image_size, {}, images)
        folder = Path(tempfile.mkdtemp())
        return next(write_format(FORMATS[backend], Source(trained, trained.model.widths), folder)).run

    def run(kind: str, width: float, batch_size: int) -> Run:
        program = programs(kind, None if kind == "shared" else width)
        batch = rng.standard_normal((batch_size, image_size, image_size, 3), np.float32)
        return lambda: program(width, batch)

    return run


def torch_runs(name: str, image_size: int) -> Callable[[str, float, int], Run]:
    """PyTorch's networks of one width."""
    from torch_networks import make_forward

    return lambda kind, width, batch_size: make_forward(name, width, batch_size, image_size)


def timed(run: Run) -> list[float]:
    """Milliseconds of the calls of a turn."""
    run()
    times_ms: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(times_ms) < CALLS or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        times_ms.append((time.perf_counter() - began) * 1e3)
    return times_ms


def main() -> None:
    """Serves turns until the input ends."""
    backend, name, image_size = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    # Answers have stdout to themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    if backend == "pytorch":
        runs = torch_runs(name, int(image_size))
    else:
        from slimjax.allocator import keep_freed_memory

        keep_freed_memory()
        runs = slimjax_runs(backend, name, int(image_size))
    prepared: dict[str, Run] = {}
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        if line not in prepared:
            kind, width, batch_size = line.split()
            prepared[line] = runs(kind, float(width), int(batch_size))
        print(json.dumps(timed(prepared[line])), file=answers, flush=True)


if __name__ == "__main__":
    main()
