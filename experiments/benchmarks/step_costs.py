"""Counts, off the compiled programs, what a step sends between devices and what memory it takes; nothing is timed.

    python experiments/benchmarks/step_costs.py [--model mobilenet_v2 --topology cpu:8 --batch_size 64]

For 1, 4 and 8 widths, and for the step as one program and as one for each width: the bytes that are summed over the
devices, as a ratio to the bytes of parameters and running statistics; and the largest temporary memory of a program, as
a ratio to that of the widest width trained alone. `--topology=v5e:2x2` does the same for TPUs that are not there, in as
many hours as `cpu:8` takes minutes.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from measuring import RECORDS, measured_on, write_record

from slimjax.cli import told

WIDTHS = {1: (1.0,), 4: (0.25, 0.5, 0.75, 1.0), 8: (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)}


def costs(model: str, widths: tuple[float, ...], programs: str, devices: Any, batch_size: int) -> dict[str, Any]:
    """Figures of one step on each device."""
    import jax
    from slimjax.configs import published

    from slimjax.training.planning import costliest_turn, step_cost, training_without_data
    from slimjax.training.progress import Progress
    from slimjax.training.setup import state_shapes

    config = published.imagenet(model, widths, augmentation="mobile")
    config.update(batch_size=batch_size, num_train_steps=1000, step_programs=programs)
    training = training_without_data(config, devices, 1000)
    state = state_shapes(training)
    with Progress() as progress:
        cost = step_cost(training, costliest_turn(training.rule), batch_size, progress)
    reduced = sum(4 * leaf.size for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    return {
        "widths": widths,
        "step_programs": programs,
        "all_reduced_bytes": cost.all_reduced_bytes,
        "parameters_and_statistics_bytes": reduced,
        "temporary_bytes": max(program.temporary_bytes for program in cost.programs),
        "peak_bytes": cost.peak_bytes,
    }


def main() -> None:
    """Counts, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--topology", default="cpu:8")
    parser.add_argument("--batch_size", type=int, default=64, help="images of a step, over all devices")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    output = arguments.output or RECORDS / f"step_costs_{arguments.model}_{arguments.topology.replace(':', '_')}.json"

    from slimjax.analysis.topologies import find_topology, prepare_process

    prepare_process(arguments.topology)
    devices = find_topology(arguments.topology, None).devices
    rows = [
        costs(arguments.model, widths, programs, devices, arguments.batch_size)
        for widths in WIDTHS.values()
        for programs in ("per_width", "fused")
    ]
    widest = min(row["temporary_bytes"] for row in rows if len(row["widths"]) == 1)
    for row in rows:
        row["all_reduced_over_parameters_and_statistics"] = round(
            row["all_reduced_bytes"] / row["parameters_and_statistics_bytes"], 6
        )
        row["temporary_over_widest_alone"] = round(row["temporary_bytes"] / widest, 3)
        print(
            f"{len(row['widths'])} widths, {row['step_programs']:9}: all-reduced "
            f"{row['all_reduced_over_parameters_and_statistics']:.4f} of parameters and statistics, "
            f"temporary memory {row['temporary_over_widest_alone']:.2f} of the widest alone"
        )
    about = {"model": arguments.model, "topology": arguments.topology, "batch_size": arguments.batch_size}
    write_record(output, {**measured_on(), **about, "rows": rows})
    print(f"record: {output}")


if __name__ == "__main__":
    sys.exit(told(main))
