"""Times widths through shared weights against the same widths exported alone, on every back end, and PyTorch beside.

    python experiments/benchmarks/latency.py                               all four families, 224 px, batches 1 and 32
    python experiments/benchmarks/latency.py --models mobilenet_v2 --rounds 10 --output FILE

Every back end is a process of its own, on two threads. Rounds give each program a turn of some calls, and the median
over all calls counts. PyTorch (channels_last) runs a network of one width; it is left out, and said to be, where it is
absent. Writes a record for each model beside this file.
"""

import argparse
import importlib.util
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from contestants import WIDTHS
from latency_contestants import BACKENDS, FORMATS
from measuring import HERE, RECORDS, Server, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.analysis.tables import print_table
from slimjax.cli import told

RATIOS = ("shared_over_alone", "shared_over_pytorch")
TITLES = {"shared_ms": "ms", "alone_ms": "ms", "shared_over_alone": "/ alone", "shared_over_pytorch": "/ PyTorch"}


def measure(
    name: str, backends: list[str], batch_sizes: list[int], image_size: int, rounds: int, console: Console
) -> list[dict[str, Any]]:
    """Rows of one model: medians in ms by batch size, width and back end."""
    servers = {}
    for backend in backends:
        console.print(f"{name}: starting {backend}")
        servers[backend] = Server([str(HERE / "latency_contestants.py"), backend, name, str(image_size)])
    turns = [
        (backend, kind, width, batch_size)
        for batch_size in batch_sizes
        for width in WIDTHS[name]
        for backend in backends
        for kind in (("shared", "alone") if backend in FORMATS else ("alone",))
    ]
    order, times_ms = random.Random(0), {turn: list[float]() for turn in turns}
    for number in range(rounds + 1):
        for turn in order.sample(turns, len(turns)):
            backend, kind, width, batch_size = turn
            # Threads of the one before may still be spinning.
            time.sleep(0.05)
            answer = servers[backend].ask(f"{kind} {width} {batch_size}")
            # The first round writes and compiles.
            times_ms[turn] += answer if number else []
        console.print(f"{name}: round {number} of {rounds}")
    for server in servers.values():
        server.close()
    return [_row(times_ms, backends, width, batch_size) for batch_size in batch_sizes for width in WIDTHS[name]]


def _row(times_ms: dict[Any, list[float]], backends: list[str], width: float, batch_size: int) -> dict[str, Any]:
    row: dict[str, Any] = {"batch_size": batch_size, "width": width}
    for backend in backends:
        kinds = ("shared", "alone") if backend in FORMATS else ("alone",)
        medians = {kind: statistics.median(times_ms[backend, kind, width, batch_size]) for kind in kinds}
        row[backend] = {f"{kind}_ms": round(ms, 4) for kind, ms in medians.items()}
        if "shared" in medians:
            row[backend]["shared_over_alone"] = round(medians["shared"] / medians["alone"], 3)
        if "pytorch" in backends and "shared" in medians:
            torch_ms = statistics.median(times_ms["pytorch", "alone", width, batch_size])
            row[backend]["shared_over_pytorch"] = round(medians["shared"] / torch_ms, 3)
    return row


def print_rows(name: str, rows: list[dict[str, Any]], backends: list[str]) -> None:
    """A table of one model: what each back end takes, over the width alone, and over PyTorch."""
    columns = [(backend, key) for backend in backends for key in ("shared_ms", *RATIOS) if key in rows[0][backend]]
    columns += [(backend, "alone_ms") for backend in backends if backend not in FORMATS]
    table = Table("batch", "width", *(f"{backend}\n{TITLES[key]}" for backend, key in columns), title=name)
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(
            str(row["batch_size"]), f"{row['width']:g}", *(f"{row[backend][key]:.2f}" for backend, key in columns)
        )
    print_table(table)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(WIDTHS), default=sorted(WIDTHS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="record of the only model; beside this file, if absent")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    backends = list(arguments.backends)
    if "pytorch" in backends and not importlib.util.find_spec("torch"):
        console.print("PyTorch is not installed: no comparison with it (make test-torch installs it)")
        backends.remove("pytorch")
    for name in arguments.models:
        rows = measure(name, backends, arguments.batch_sizes, arguments.image_size, arguments.rounds, console)
        about = {"model": name, "image_size": arguments.image_size, "rounds": arguments.rounds}
        output = arguments.output or RECORDS / f"latency_{name}.json"
        packages = ("torch", "onnxruntime", "ai-edge-litert")
        write_record(output, {**measured_on(*packages), **about, "rows": rows})
        print_rows(name, rows, backends)
        console.print(f"record: {output}")


if __name__ == "__main__":
    sys.exit(told(main))
