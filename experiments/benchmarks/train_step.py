"""Times the train step of all widths against individual networks doing the same work, and against PyTorch.

    python experiments/benchmarks/train_step.py                      all four families, 224 px, batch 8, all widths
    python experiments/benchmarks/train_step.py --models mobilenet_v2 --rounds 20 --starts 1

Every contestant is a process of its own on two cores. The individual networks are slimjax's own, of one width each,
with the same convolutions. Processes set the C library's allocator as `python -m slimjax.main` does; PyTorch runs with
that and as it comes, or is left out, and said to be, where it is absent. Rounds give each a turn of some steps, in
random order, and ratios are medians over the rounds, so that a machine whose speed drifts favours nobody. All are
started several times, since where a process happens to get its memory makes steps some hundredths faster or slower
until it ends. Beside the seconds stand the floating-point operations and the bytes read and written that XLA counts,
which say how much the widths of a slimmable step share. On a GPU or TPU whose peak is published, it prints what share
of it a step reaches, counting 6 operations for each multiply-add of each width by itself. Writes a record.
"""

import argparse
import importlib.util
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contestants import CONTESTANTS, WIDTHS
from measuring import HERE, RECORDS, Server, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.analysis.chips import peak_flops_per_second
from slimjax.cli import told

STEPS_OF_A_TURN = 3
"""Timed steps one after the other, as in training, after one that is not timed."""


def measure(
    name: str, contestants: list[str], batch_size: int, image_size: int, starts: int, rounds: int, console: Console
) -> dict[str, Any]:
    """The record of one model: seconds of every round, and what each contestant took to build when it came first."""
    seconds: dict[str, list[float]] = {which: [] for which in contestants}
    built: dict[str, dict[str, Any]] = {}
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as cache:
        for start in range(starts):
            servers = {}
            for which in order.sample(contestants, len(contestants)):
                console.print(f"{name}: building {which}")
                arguments = [which, name, str(batch_size), str(image_size)]
                # A cache of its own: what others left in theirs would take no time worth reporting.
                variables = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
                servers[which] = Server([str(HERE / "contestants.py"), *arguments], variables)
                built.setdefault(which, servers[which].about)
            for number, turn in enumerate(timed_rounds(servers, rounds, order)):
                for which, value in turn.items():
                    seconds[which].append(value)
                console.print(f"{name}: round {number + 1} of {rounds}, start {start + 1} of {starts}")
            for server in servers.values():
                server.close()
    return {
        "model": name,
        "widths": WIDTHS[name],
        "model_flops": model_flops(name, batch_size, image_size),
        "seconds": {which: [round(value, 4) for value in values] for which, values in seconds.items()},
        "built": {which: built[which] for which in contestants},
        "ratios": {
            f"{ours} / {other}": ratios_of(seconds[ours], seconds[other], rounds)
            for ours in ("slimmable_per_width", "slimmable_fused")
            for other in ("individuals", "pytorch", "pytorch_tuned_allocator")
            if ours in seconds and other in seconds
        },
    }


def ratios_of(ours: list[float], others: list[float], rounds: int) -> dict[str, Any]:
    """Medians of the rounds' ratios: of all rounds, and of those of each start, which show how far starts differ."""
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    starts = [ratios[first : first + rounds] for first in range(0, len(ratios), rounds)]
    return {
        "median": round(statistics.median(ratios), 3),
        "by_start": [round(statistics.median(start), 3) for start in starts],
    }


def timed_rounds(servers: dict[str, Server], rounds: int, order: random.Random) -> Iterator[dict[str, float]]:
    """Mean seconds of a step, by contestant, for each of some rounds."""
    for _ in range(rounds):
        turn = {}
        for which in order.sample(list(servers), len(servers)):
            # Threads of the one before may still be spinning, and its data be in the caches: training goes on and on.
            time.sleep(0.2)
            servers[which].ask()
            turn[which] = statistics.mean(servers[which].ask() for _ in range(STEPS_OF_A_TURN))
        yield turn


def model_flops(name: str, batch_size: int, image_size: int) -> int:
    """Floating-point operations of each width's forward and backward pass by itself: 6 for a multiply-add."""
    from slimjax import create_model, profile_model

    rows = profile_model(create_model(name, WIDTHS[name], 1000), image_size)
    return 6 * batch_size * sum(row.macs for row in rows)


def shares_of_peak(row: dict[str, Any], machine: dict[str, Any]) -> dict[str, float]:
    """The share of the devices' peak that each contestant's median step reaches; none where no peak is published."""
    peak = peak_flops_per_second(machine["device"])
    if not peak:
        return {}
    return {
        which: round(row["model_flops"] / statistics.median(seconds) / (peak * machine["num_devices"]), 4)
        for which, seconds in row["seconds"].items()
    }


def print_record(record: dict[str, Any], console: Console) -> None:
    """A table of medians and ratios."""
    table = Table("model", "contestant", "median s", "min s", "compile s", "temporary MB", "GFLOP", "accessed GB")
    for row in record["models"]:
        for which, seconds in row["seconds"].items():
            built = row["built"][which]
            cells = [f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f}"]
            # PyTorch builds nothing.
            if built:
                cells.append(f"{_sum(built['compile_s']):.1f}")
                cells.append(f"{_largest(built['temporary_bytes']) / 1e6:.0f}")
                cells.append(f"{_sum(built['flops']) / 1e9:.2f}")
                cells.append(f"{_sum(built['accessed_bytes']) / 1e9:.2f}")
            table.add_row(row["model"], which, *cells)
    console.print(table)
    for row in record["models"]:
        for which, share in row["share_of_peak"].items():
            console.print(f"{row['model']}: {which} reaches {share:.1%} of the devices' peak")
    for row in record["models"]:
        for pair, ratio in row["ratios"].items():
            starts = ", ".join(map(str, ratio["by_start"]))
            console.print(f"{row['model']}: {pair} = {ratio['median']} ({starts} by start)")


def _sum(figures: Any) -> float:
    """Of a contestant's figures, which are a list where it consists of several networks."""
    return sum(figures) if isinstance(figures, list) else figures


def _largest(sizes: Any) -> int:
    return max(map(_largest, sizes)) if isinstance(sizes, list) else sizes


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(WIDTHS), default=sorted(WIDTHS))
    parser.add_argument("--batch_size", type=int, default=8, help="images of a step")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--starts", type=int, default=4, help="how often every contestant's process is started")
    parser.add_argument("--rounds", type=int, default=3, help="of each start")
    parser.add_argument("--output", type=Path, default=RECORDS / "train_step.json")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    arguments = parser.parse_args()
    console = Console(highlight=False)
    contestants = list(arguments.contestants)
    wants_torch = any(which.startswith("pytorch") for which in contestants)
    if wants_torch and not importlib.util.find_spec("torch"):
        console.print("PyTorch is not installed: no comparison with it (make test-torch installs it)")
        contestants = [which for which in contestants if not which.startswith("pytorch")]
    models = [
        measure(
            name,
            contestants,
            arguments.batch_size,
            arguments.image_size,
            arguments.starts,
            arguments.rounds,
            console,
        )
        for name in arguments.models
    ]
    about = {"batch_size": arguments.batch_size, "image_size": arguments.image_size}
    machine = measured_on("torch")
    record = {**machine, **about, "models": [{**row, "share_of_peak": shares_of_peak(row, machine)} for row in models]}
    write_record(arguments.output, record)
    print_record(record, console)
    console.print(f"record: {arguments.output}")


if __name__ == "__main__":
    sys.exit(told(main))
