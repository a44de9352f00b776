"""Requests at a steady rate while another process takes the CPU: what a fixed width misses and the controller keeps.

    python -m slimjax.main --workdir=runs/digits && python -m slimjax.export --workdir=runs/digits --output=bundle
    python experiments/benchmarks/load.py bundle

Every policy serves the same requests, each of which carries images of the evaluation split: the widest width fixed, the
narrowest fixed, and whatever the controller takes for the deadline. For the middle third of the time other processes
spin on the cores. A request's response time runs from when it was due, so a server that falls behind pays for it.
Writes a record beside this file and, beside that, a plot and a table of all requests.
"""

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring import RECORDS, config_of, measured_on, write_record
from rich.console import Console
from rich.table import Table

from slimjax.cli import told

if TYPE_CHECKING:
    from slimjax import SlimmableRuntime

PHASES = ("before", "loaded", "after")
POLICIES = ("widest", "narrowest", "controller")

_SPIN = "while True: pass"


@dataclass(frozen=True)
class Request:
    """A request that was served.

    Attributes:
      due_s: when it was due, after the first one.
      response_ms: from then until its answer.
      width: that ran.
      error: share of its images that were classified wrongly.
    """

    due_s: float
    response_ms: float
    width: float
    error: float


@dataclass(frozen=True)
class Workload:
    """What every policy has to serve.

    Attributes:
      images: of the evaluation split, as the bundle takes them.
      labels: of them.
      batch_size: images of a request.
      period_s: from one request to the next.
      deadline_ms: of a request.
      phase_s: how long each of PHASES lasts.
      competitors: processes that spin while it is loaded.
    """

    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    period_s: float
    deadline_ms: float
    phase_s: float
    competitors: int

    def phase(self, due_s: float) -> str:
        """The phase in which a request is due."""
        return PHASES[min(int(due_s / self.phase_s), len(PHASES) - 1)]

    def batches(self) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        """When each request is due, its images and their labels: the same ones every time."""
        rng = np.random.default_rng(0)
        for number in range(int(len(PHASES) * self.phase_s / self.period_s)):
            chosen = rng.integers(0, len(self.images), self.batch_size)
            yield number * self.period_s, self.images[chosen], self.labels[chosen]


@contextmanager
def competing(count: int) -> Iterator[None]:
    """Processes that take as much CPU as they get."""
    processes = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def serve(runtime: "SlimmableRuntime", policy: str, workload: Workload) -> list[Request]:
    """Serves all requests by one policy, in their order, by the runtime's own thread."""
    fixed = {"widest": runtime.widths[-1], "narrowest": runtime.widths[0]}
    answers: list[Future[Any]] = []
    answered_at: dict[int, float] = {}
    widths: dict[int, float] = {}
    due_at: list[float] = []
    labels: list[np.ndarray] = []
    batches = list(workload.batches())
    began = time.perf_counter() + workload.period_s

    def submit(number: int, images: np.ndarray) -> None:
        left_ms = workload.deadline_ms - (time.perf_counter() - due_at[number]) * 1e3
        criteria = {"width": fixed[policy]} if policy in fixed else {"budget_ms": max(left_ms, 0.0)}
        answers.append(runtime.predict_async(images, **criteria))
        answers[-1].add_done_callback(lambda _: note(number))

    def note(number: int) -> None:
        # The runtime's thread calls it as soon as a request is answered, before it takes the next one.
        answered_at[number] = time.perf_counter()
        widths[number] = fixed.get(policy) or runtime.report()[workload.batch_size].recent[-1].width

    def run(phase: str) -> None:
        for number, (due_s, images, of_batch) in enumerate(batches):
            if workload.phase(due_s) == phase:
                due_at.append(began + due_s)
                labels.append(of_batch)
                time.sleep(max(0.0, due_at[-1] - time.perf_counter()))
                submit(number, images)

    for phase in PHASES:
        with competing(workload.competitors if phase == "loaded" else 0):
            run(phase)
    logits = [answer.result() for answer in answers]
    return [
        Request(
            round(batches[number][0], 4),
            round((answered_at[number] - due_at[number]) * 1e3, 3),
            widths[number],
            round(float(np.mean(logits[number].argmax(-1) != labels[number])), 4),
        )
        for number in range(len(batches))
    ]


def summaries(requests: list[Request], workload: Workload) -> dict[str, dict[str, float]]:
    """By phase: share of deadlines that were missed, median and 95th percentile of the response, and error."""
    found = {}
    for phase in PHASES:
        of_phase = [request for request in requests if workload.phase(request.due_s) == phase]
        responses = np.array([request.response_ms for request in of_phase])
        found[phase] = {
            "missed": round(float(np.mean(responses > workload.deadline_ms)), 4),
            "median_ms": round(float(np.median(responses)), 2),
            "p95_ms": round(float(np.percentile(responses, 95)), 2),
            "error": round(float(np.mean([request.error for request in of_phase])), 4),
            "mean_width": round(float(np.mean([request.width for request in of_phase])), 3),
        }
    return found


def evaluation_images(config_file: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a configuration's evaluation split, as a bundle of that input takes them."""
    from slimjax.tasks import colours
    from slimjax.tasks.classification.data import eval_batches

    config = config_of(config_file)
    batches = list(eval_batches(config.dataset, batch_size=config.batch_size, process_index=0, process_count=1))
    there = np.concatenate([batch["mask"] for batch in batches]) > 0
    images, labels = (np.concatenate([batch[key] for batch in batches])[there] for key in ("image", "label"))
    return images if dtype == "uint8" else colours.normalised({"image": images}), labels


def workload_for(runtime: "SlimmableRuntime", arguments: argparse.Namespace) -> Workload:
    """A deadline and a rate that the widest width keeps on this machine as long as nothing else runs."""
    measured = runtime.calibrate((arguments.batch_size,))[arguments.batch_size][runtime.widths[-1]]
    deadline_ms = arguments.deadline_ms or 1.5 * measured.p95_ms
    period_s = 1 / arguments.rate if arguments.rate else 1.25 * deadline_ms / 1e3
    return Workload(
        *evaluation_images(arguments.config, runtime.manifest.input.dtype),
        batch_size=arguments.batch_size,
        period_s=period_s,
        deadline_ms=deadline_ms,
        phase_s=arguments.seconds / len(PHASES),
        competitors=arguments.competitors,
    )


def plot(served: dict[str, list[Request]], workload: Workload, path: Path) -> None:
    """Response times over time, and below them the widths that answered and how wrong they were."""
    from matplotlib.figure import Figure

    from slimjax.analysis.plot_style import series_style

    figure = Figure(figsize=(6.6, 6.5), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    drawn = (("controller", "controller", "-"), ("widest", "widest, fixed", "--"))
    for number, (policy, label, line) in enumerate(drawn):
        due = [request.due_s for request in served[policy]]
        style = series_style(number)
        responses = [request.response_ms for request in served[policy]]
        above.plot(due, responses, linestyle="none", markersize=3, label=label, **style)
        line_style = {"color": style["color"], "linestyle": line, "linewidth": 1.2}
        middle.plot(due, [request.width for request in served[policy]], drawstyle="steps-mid", **line_style)
        errors = np.array([request.error for request in served[policy]])
        smooth = [100 * errors[max(0, place - 9) : place + 10].mean() for place in range(len(errors))]
        below.plot(due, smooth, **line_style)
    above.axhline(workload.deadline_ms, color="black", linestyle="--", linewidth=1, label="deadline")
    above.set_yscale("log")
    above.set_ylabel("response, ms")
    middle.set_ylabel("width")
    below.set_ylabel("top-1 error, %")
    below.set_xlabel("seconds")
    below.set_ylim(bottom=0)
    for axes in (above, middle, below):
        axes.axvspan(workload.phase_s, 2 * workload.phase_s, color="0.9", label="other processes on the cores")
        axes.grid(visible=True, alpha=0.2)
    above.legend(fontsize="small", loc="upper left")
    figure.savefig(path, dpi=110)


def print_summary(found: dict[str, dict[str, dict[str, float]]], console: Console) -> None:
    """A row for every policy and phase."""
    table = Table("policy", "phase", "missed", "median ms", "p95 ms", "error", "mean width")
    for column in table.columns[2:]:
        column.justify = "right"
    for policy, phases in found.items():
        for phase, row in phases.items():
            times = (f"{row[key]:.1f}" for key in ("median_ms", "p95_ms"))
            table.add_row(
                policy,
                phase,
                f"{row['missed']:.1%}",
                *times,
                f"{row['error']:.2%}",
                f"{row['mean_width']:.2f}",
                end_section=phase == PHASES[-1],
            )
    console.print(table)


def main() -> None:
    """Measures, prints, draws and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--config", default="configs/digits.py", help="of the data set")
    parser.add_argument("--batch_size", type=int, default=256, help="images of a request")
    parser.add_argument("--deadline_ms", type=float, help="1.5 times the widest's 95th percentile, if absent")
    parser.add_argument("--rate", type=float, help="requests a second; one each 1.25 deadlines, if absent")
    parser.add_argument("--seconds", type=float, default=30, help="of each policy")
    parser.add_argument("--competitors", type=int, default=2, help="processes that spin")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--output", type=Path, default=RECORDS / "load_digits.json")
    arguments = parser.parse_args()

    from slimjax import SlimmableRuntime
    from slimjax.allocator import keep_freed_memory

    keep_freed_memory()
    console = Console()
    workload = workload_for(SlimmableRuntime.load(arguments.bundle, backend=arguments.backend), arguments)
    rate, deadline_ms = 1 / workload.period_s, workload.deadline_ms
    console.print(f"{rate:.1f} requests/s of {workload.batch_size} images, deadline {deadline_ms:.1f} ms")
    served = {}
    for policy in POLICIES:
        # Of its own, so that each controller begins anew.
        runtime = SlimmableRuntime.load(arguments.bundle, backend=arguments.backend)
        runtime.warm_up((workload.batch_size,))
        console.print(f"{policy}: {arguments.seconds:g} s")
        served[policy] = serve(runtime, policy, workload)
    found = {policy: summaries(requests, workload) for policy, requests in served.items()}
    print_summary(found, console)
    picture = arguments.output.with_suffix(".png")
    plot(served, workload, picture)
    about = {key: getattr(workload, key) for key in ("batch_size", "period_s", "deadline_ms", "phase_s", "competitors")}
    write_record(arguments.output, {**measured_on(), "backend": arguments.backend, **about, "summary": found})
    with arguments.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["policy", *Request.__annotations__], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"policy": policy, **asdict(request)} for policy, of in served.items() for request in of)
    console.print(f"record: {arguments.output}, with .csv and .png beside it")


if __name__ == "__main__":
    sys.exit(told(main))
