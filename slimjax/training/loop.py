"""The training loop."""

import math
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import jax
from jax.sharding import NamedSharding

from slimjax.errors import UserError
from slimjax.tasks.task import Figures
from slimjax.training.checkpoints import changed_settings
from slimjax.training.evaluation import Evaluator, figures_of
from slimjax.training.mesh import REPLICATED
from slimjax.training.metric_writers import MetricWriter, create_writer, scalars_of
from slimjax.training.prefetch import device_batches
from slimjax.training.progress import Progress, StepProgress, figures_line
from slimjax.training.run import Run, new_state, restored_state
from slimjax.training.signals import StopSignals
from slimjax.training.state import TrainState
from slimjax.training.step import StepMetrics
from slimjax.training.switches import Turn


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      state: the last one.
      step: updates done.
      figures: of every width at the end; empty if training was interrupted.
      exit_code: for the process: 0, or what a signal asks for.
    """

    state: TrainState
    step: int
    figures: dict[float, Figures]
    exit_code: int


def train(run: Run) -> Outcome:
    """Trains, or goes on from the workdir's newest checkpoint, until the last step or a signal.

    Raises:
      UserError: if the workdir's checkpoints do not fit, or a loss stops being finite.
    """
    leads = jax.process_index() == 0
    start = max(run.checkpoints.steps(), default=0)
    with Progress(enabled=leads) as progress:
        evaluate = Evaluator(run.task, run.mesh, progress)
        state = _starting_state(run, start, progress)
        if start >= run.rule.num_steps:
            progress.say(f"{run.workdir} is trained to step {start} already; evaluating")
            return Outcome(state, start, evaluate(state.params, state.batch_stats), 0)
        log = _Log(run, create_writer(run.workdir, start, leads), progress.steps("training", run.rule.num_steps, start))
        with StopSignals() as signals:
            outcome = _train_from(run, state, start, evaluate, log, progress, signals)
        run.checkpoints.wait()
        log.close()
    return outcome


def _train_from(
    run: Run, state: TrainState, start: int, evaluate: Evaluator, log: "_Log", progress: Progress, signals: StopSignals
) -> Outcome:
    # No batch is read that no step takes.
    batches = device_batches(run.mesh, islice(run.task.train_batches(start), run.rule.num_steps - start))
    for step in range(start, run.rule.num_steps):
        batch = next(batches)
        turn = run.rule.turn(step)
        if step in (start, turn.start):
            state = _begin(run, state, step, batch, turn, log, progress)
        state, metrics = run.train_step(state, batch, turn)
        log.add(step, turn, metrics)
        done, last = step + 1, step + 1 == run.rule.num_steps
        # Asked once a step: a signal that comes later in it is for the next one, which then saves.
        stopped_by = signals.stopped_by(step)
        evaluates = last or (done % run.cadence.eval_every_steps == 0 and not stopped_by)
        # What is evaluated is saved, since only a checkpoint with figures can be the best.
        saves = evaluates or stopped_by is not None or done % run.cadence.checkpoint_every_steps == 0
        if saves or done % run.cadence.log_every_steps == 0:
            log.write(done)
        figures: dict[float, Figures] = {}
        if evaluates:
            figures = evaluate(state.params, state.batch_stats)
            log.write_evaluation(done, figures)
            progress.say(f"step {done}: {run.task.best_figure} % {figures_line(figures, run.task.best_figure)}")
        if saves:
            run.checkpoints.save(state, run.description(done), figures, run.task.best_figure)
        if stopped_by is not None:
            progress.say(f"{stopped_by.name}: saved step {done}; the same command goes on from there")
            break
    return Outcome(state, done, figures, 0 if last else signals.exit_code)


def _starting_state(run: Run, start: int, progress: Progress) -> TrainState:
    # An imported checkpoint is of step 0: there is something to resume although no step has been done.
    if not run.checkpoints.steps():
        state = new_state(run)
        if run.config.init_from:
            progress.say(f"starting from the weights of {run.config.init_from}")
        return state
    state = restored_state(run, start)
    progress.say(f"resuming {run.workdir} from step {start} of {run.rule.num_steps}")
    for line in changed_settings(run.checkpoints.description(start), run.config):
        progress.say(f"  changed since: {line}")
    return state


def _begin(
    run: Run, state: TrainState, step: int, batch: dict[str, jax.Array], turn: Turn, log: "_Log", progress: Progress
) -> TrainState:
    """What comes before the first step, and before that of every stage of incremental training."""
    if turn.stage:
        frozen = f"what width {turn.stage.frozen:g} reads is frozen" if turn.stage.frozen else "nothing is frozen"
        progress.say(f"stage {turn.stage.number}: training width {turn.widths[0]:g}, {frozen}")
        if turn.stage.frozen and step == turn.start:
            state = state.replace(opt_state=_fresh_optimizer(run, state.params))
    with progress.announced("compiling the train step"):
        run.train_step.compile(state, batch, turn)
    log.restart_clock()
    return state


def _fresh_optimizer(run: Run, params: Any) -> Any:
    return jax.jit(run.tx.init, out_shardings=NamedSharding(run.mesh, REPLICATED))(params)


@dataclass
class _Log:
    """Collects the steps' metrics on the device and fetches them when a line is due: the loop never waits otherwise."""

    run: Run
    writer: MetricWriter
    progress: StepProgress
    pending: list[tuple[int, Turn, StepMetrics]] = field(default_factory=list)
    clock: float = field(default_factory=time.monotonic)

    def restart_clock(self) -> None:
        """Leaves what came before, such as compiling, out of the images per second and the time left."""
        self.clock = time.monotonic()
        self.progress.restart_clock()

    def add(self, step: int, turn: Turn, metrics: StepMetrics) -> None:
        """Keeps a step's metrics without waiting for them."""
        self.pending.append((step, turn, metrics))
        self.progress.advance(step + 1)

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
        figures = {width: figures_of(metrics) for width, metrics in sorted(totals.items())}
        seconds = time.monotonic() - self.clock
        step, turn, _ = self.pending[-1]
        scalars = scalars_of("train", figures) | {
            "train/learning_rate": float(self.run.schedule(step - turn.start)),
            "train/gradient_norm": float(fetched[-1].gradient_norm),
            "train/images_per_second": self.run.config.batch_size * len(self.pending) / seconds,
        }
        self.writer.write_scalars(done, scalars)
        self.progress.report(
            f"loss {figures_line(figures, 'loss')} | {scalars['train/images_per_second']:.0f} images/s"
        )
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
        values = {f"the loss of width {w:g}": figures_of(m)["loss"] for w, m in metrics.widths.items()}
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
