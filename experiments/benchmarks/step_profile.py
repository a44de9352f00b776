"""Says where the time of a train step goes, by kind of layer and operation, from JAX's and PyTorch's profilers.

    python experiments/benchmarks/step_profile.py --models resnet50
    python experiments/benchmarks/step_profile.py --models shufflenet --least 0.5 --steps 10

The step is that of train_step.py, one program a width. XLA fuses operations: a row is called after the last of those
that were fused, and counts the time from its start to its end. Operations that run side by side both count, so shares
are of their sum. Where PyTorch is installed, its step is profiled too, by its own operations. Writes a record beside
this file.
"""

import argparse
import importlib.util
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from contestants import WIDTHS, CompiledStep, compile_step
from measuring import RECORDS, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.allocator import keep_freed_memory
from slimjax.cli import told

INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?(\S+) = .*metadata=\{[^}]*op_name="([^"]*)"', re.MULTILINE)
MODULE = re.compile(r"HloModule (\w+)")


def layer_kinds(name: str, image_size: int) -> dict[str, str]:
    """By path of a layer, such as `block_3/expand/conv`: what it is, such as `1x1 grouped convolution`."""
    from slimjax import create_model
    from slimjax.nn import SlimmableConv
    from slimjax.nn.tracing import trace_layers

    def kind(layer: Any) -> str:
        if not isinstance(layer, SlimmableConv):
            return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(layer).__name__.removeprefix("Slimmable")).lower()
        grouped = "grouped " if layer.groups > 1 else ""
        return f"{layer.kernel_size}x{layer.kernel_size} {grouped}convolution"

    widest = max(WIDTHS[name])
    traces = trace_layers(create_model(name, WIDTHS[name], 1000), widest, image_size)
    kinds = {"/".join(trace.path): kind(trace.layer) for trace in traces}
    return {path: "stem" if path.startswith("stem") and "conv" in path else kind for path, kind in kinds.items()}


def place_of(op_name: str, kinds: dict[str, str]) -> str:
    """Layer, direction and operation of what JAX calls `jit(step)/transpose(jvp(ResNet))/block_1/conv/dot_general`."""
    layer = next((kind for path, kind in kinds.items() if f"/{path}/" in op_name), "between layers")
    if "/SlimmableConv/" in op_name:
        layer = "stem"
    direction = "backward" if "transpose(" in op_name else "forward"
    return f"{layer}, {direction}, {op_name.rpartition('/')[2]}"


def seconds_by_place(step: CompiledStep, kinds: dict[str, str], steps: int) -> dict[str, float]:
    """Seconds of a step on CPU, by place, the mean of some steps."""
    import jax

    texts = [program.as_text() for program in step.programs]
    names = [dict(INSTRUCTION.findall(text)) for text in texts]
    modules = {MODULE.match(text)[1] for text in texts}  # type: ignore[index]
    seconds: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                step.run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        operations = [each for each in operations_of(file) if each[1] in modules]
    order = list(dict.fromkeys(program for _, _, program, _, _ in sorted(operations)))
    assert len(order) == len(texts), "the trace has other programs than the step"
    for _, _, program, operation, duration in operations:
        number = order.index(program)
        op_name = names[number].get(operation, operation.partition(".")[0])
        is_update = number == len(order) - 1
        seconds["update" if is_update else place_of(op_name, kinds)] += duration / steps
    return seconds


def operations_of(file: Path) -> Iterator[tuple[float, str, int, str, float]]:
    """Of each operation in a trace: when it began, its module, program and name, and its seconds."""
    import jax

    begun: dict[int, tuple[float, str, int, str]] = {}
    ended: dict[int, float] = {}
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for event in (event for line in plane.lines for event in line.events):
            stats = dict(event.stats)
            if "hlo_op" in stats:
                begun[stats["_p"]] = (event.start_ns, stats["hlo_module"], stats["program_id"], stats["hlo_op"])
            elif event.name.startswith("end: "):
                ended[stats["_c"]] = event.start_ns + event.duration_ns
    for number, operation in begun.items():
        yield *operation, (ended[number] - operation[0]) / 1e9


def torch_seconds(name: str, batch_size: int, image_size: int, steps: int) -> dict[str, float]:
    """Seconds of a step of PyTorch's, by its operations, the mean of some steps."""
    from torch.profiler import ProfilerActivity, profile
    from torch_networks import make_step

    step = make_step(name, WIDTHS[name], batch_size, image_size)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        for _ in range(steps):
            step()
    return {each.key: each.self_cpu_time_total / 1e6 / steps for each in trace.key_averages()}


def largest_first(seconds: dict[str, float]) -> dict[str, float]:
    """In order, to a microsecond."""
    return {place: round(value, 6) for place, value in sorted(seconds.items(), key=itemgetter(1), reverse=True)}


def print_shares(title: str, seconds: dict[str, float], least: float, console: Console) -> None:
    """The largest first, those below `least` % together."""
    total = sum(seconds.values())
    table = Table("%", "s", "where", title=f"{title}: {total:.3f} s", title_justify="left")
    shown = [(place, value) for place, value in largest_first(seconds).items() if value >= least / 100 * total]
    rest = total - sum(value for _, value in shown)
    for place, value in [*shown, (f"{len(seconds) - len(shown)} others", rest)]:
        table.add_row(f"{100 * value / total:.1f}", f"{value:.4f}", place)
    console.print(table)


def main() -> None:
    """Profiles, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(WIDTHS), default=sorted(WIDTHS))
    parser.add_argument("--batch_size", type=int, default=8, help="images of a step")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--steps", type=int, default=5, help="profiled, after one that is not")
    parser.add_argument("--least", type=float, default=1.0, help="%% of the step that a row of its own has at least")
    parser.add_argument("--output", type=Path, default=RECORDS / "step_profile.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    console = Console(highlight=False)
    sizes = (arguments.batch_size, arguments.image_size)
    rows = []
    for name in arguments.models:
        step = compile_step(name, WIDTHS[name], False, *sizes)
        step.run()
        profiles = {"slimjax": seconds_by_place(step, layer_kinds(name, arguments.image_size), arguments.steps)}
        if importlib.util.find_spec("torch"):
            profiles["pytorch"] = torch_seconds(name, *sizes, arguments.steps)
        for which, seconds in profiles.items():
            print_shares(f"{name}, {which}", seconds, arguments.least, console)
        rows.append({"model": name, "seconds": {which: largest_first(seconds) for which, seconds in profiles.items()}})
    about = {"batch_size": arguments.batch_size, "image_size": arguments.image_size}
    write_record(arguments.output, {**measured_on("torch"), **about, "models": rows})
    console.print(f"record: {arguments.output}")


if __name__ == "__main__":
    sys.exit(told(main))
