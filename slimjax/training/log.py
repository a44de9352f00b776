"""The training metrics of a run: collected on the device, fetched when a line is due, checked and written."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import jax

from slimjax.errors import UserError
from slimjax.tasks.task import Figures, plain_figures
from slimjax.training.algorithm import StepMetrics
from slimjax.training.metric_writers import MetricWriter, scalars_of
from slimjax.training.progress import StepProgress, figures_line
from slimjax.training.run import Run
from slimjax.training.switches import Turn

STEPS_AHEAD = 2
"""Steps that the host may have handed to the devices without any of them being done."""


@dataclass
class TrainingLog:
    """Collects the steps' metrics on the device; nothing is fetched from there until a line is due."""

    run: Run
    writer: MetricWriter
    bar: StepProgress
    pending: list[tuple[int, Turn, StepMetrics]] = field(default_factory=list)
    clock: float = field(default_factory=time.monotonic)

    def restart_clock(self) -> None:
        """Leaves what came before, such as compiling, out of the images per second and the time left."""
        self.clock = time.monotonic()
        self.bar.restart_clock()

    def add(self, step: int, turn: Turn, metrics: StepMetrics) -> None:
        """Keeps a step's metrics, and waits for those of the one before the last.

        So a device always has a step to go on with, and the host is never so far ahead that the batches of many steps
        lie in the device's memory.
        """
        self.pending.append((step, turn, metrics))
        if len(self.pending) > STEPS_AHEAD:
            jax.block_until_ready(self.pending[-1 - STEPS_AHEAD][2].gradient_norm)
        self.bar.advance(step + 1)

    def write(self, done: int) -> None:
        """Writes the means since the last line.

        Raises:
          UserError: naming step and width, if a loss or the gradients stopped being finite.
        """
        if not self.pending:
            return
        fetched = jax.device_get([metrics for _, _, metrics in self.pending])
        totals: dict[float, Any] = {}
        for (step, _, _), metrics in zip(self.pending, fetched, strict=True):
            self._check_finite(step, metrics)
            for width, of_width in metrics.widths.items():
                totals[width] = totals[width].merge(of_width) if width in totals else of_width
        figures = {width: plain_figures(metrics) for width, metrics in sorted(totals.items())}
        seconds = time.monotonic() - self.clock
        step, turn, _ = self.pending[-1]
        scalars = scalars_of("train", figures) | {
            "train/learning_rate": float(self.run.schedule(step - turn.start)),
            "train/gradient_norm": float(fetched[-1].gradient_norm),
            "train/parameter_norm": float(fetched[-1].parameter_norm),
            "train/images_per_second": self.run.config.batch_size * len(self.pending) / seconds,
        }
        self.writer.write_scalars(done, scalars)
        self.bar.report(f"{figures_line(figures, 'loss')} | {scalars['train/images_per_second']:.0f} images/s")
        self.pending.clear()
        self.clock = time.monotonic()

    def write_evaluation(self, done: int, figures: dict[float, Figures]) -> None:
        """Writes the figures of an evaluation."""
        self.writer.write_scalars(done, scalars_of("eval", figures))
        self.clock = time.monotonic()

    def close(self) -> None:
        """Flushes and closes the writers."""
        self.writer.flush()
        self.writer.close()

    def _check_finite(self, step: int, metrics: StepMetrics) -> None:
        values = {f"the loss of width {w:g}": plain_figures(m)["loss"] for w, m in metrics.widths.items()}
        values["the norm of the summed gradients"] = float(metrics.gradient_norm)
        values["the norm of the parameters"] = float(metrics.parameter_norm)
        for what, value in values.items():
            if not math.isfinite(value):
                self.run.checkpoints.wait()
                good = self.run.checkpoints.steps()
                kept = f"the last good checkpoint is of step {good[-1]}" if good else "no checkpoint was saved before"
                raise UserError(
                    f"{what} is {value} at step {step}; {kept}. Lower learning_rate={self.run.config.learning_rate}, "
                    "lengthen the warm-up, or set optimizer.clip_norm"
                )
