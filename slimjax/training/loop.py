"""The training loop."""

import sys
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
from jax.sharding import NamedSharding

from slimjax.tasks.task import Figures
from slimjax.training.checkpoints import changed_settings
from slimjax.training.evaluation import Evaluator
from slimjax.training.heartbeat import Heartbeat
from slimjax.training.log import TrainingLog
from slimjax.training.mesh import REPLICATED
from slimjax.training.metric_writers import TENSORBOARD, create_writer
from slimjax.training.prefetch import device_batches
from slimjax.training.progress import Progress, figures_line
from slimjax.training.run import Run, new_state, restored_state
from slimjax.training.signals import StopSignals
from slimjax.training.state import TrainState
from slimjax.training.step_trace import StepTrace
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


def train(run: Run, traced: range = range(0), quiet: bool = False) -> Outcome:
    """Trains, or goes on from the workdir's newest checkpoint, until the last step or a signal.

    Args:
      run: what is trained.
      traced: the steps of which a trace is written.
      quiet: whether no progress is shown.

    Returns:
      How it ended.

    Raises:
      UserError: if the workdir's checkpoints do not fit, or a loss stops being finite.
    """
    leads = jax.process_index() == 0
    start, end = max(run.checkpoints.steps(), default=0), run.rule.num_steps
    with Progress(enabled=leads and not quiet) as progress:
        evaluate = Evaluator(run.task, run.mesh, progress)
        state = _starting_state(run, start)
        if start >= end:
            progress.say(f"{run.workdir} is trained to step {start} already; evaluating")
            for line in changed_settings(run.checkpoints.description(start), run.config):
                progress.say(f"  changed since, without effect on what is trained: {line}")
            return Outcome(state, start, evaluate(state.weights.params, state.weights.batch_stats), 0)
        # Once it is known that there is something to write: a refused start leaves nothing behind.
        run.checkpoints.claim()
        _say_how_it_starts(run, start, progress)
        if traced and start > traced[0]:
            progress.say(f"--profile_steps: the run is beyond step {traced[0]} already; what is left of them is traced")
        with (
            # Whoever sends a signal is answered, progress or not.
            StopSignals(progress.say if leads and not quiet else _say_plainly) as signals,
            Heartbeat(progress.say) as heartbeat,
            StepTrace(traced if leads else range(0), run.workdir / TENSORBOARD, progress) as trace,
        ):
            writer = create_writer(run.workdir, start, leads)
            log = TrainingLog(run, writer, progress.steps("training", end, start))
            try:
                outcome = _Loop(run, evaluate, progress, log, signals, heartbeat, trace).train_from(state, start)
            finally:
                log.close()
    return outcome


@dataclass(frozen=True)
class _Loop:
    """The loop with everything that it drives."""

    run: Run
    evaluate: Evaluator
    progress: Progress
    log: TrainingLog
    signals: StopSignals
    heartbeat: Heartbeat
    trace: StepTrace

    def train_from(self, state: TrainState, start: int) -> Outcome:
        """Trains from a step on; see `train`."""
        run, cadence = self.run, self.run.cadence
        if start and start % cadence.eval_every_steps == 0 and not run.checkpoints.is_evaluated(start):
            # A signal has cut its evaluation short.
            self._evaluated(state, start)
        # No batch is read that no step takes.
        batches = device_batches(run.mesh, islice(run.task.train_batches(start), run.rule.num_steps - start))
        for step in range(start, run.rule.num_steps):
            self.trace.before(step)
            self.heartbeat.beat(step, "waiting for images")
            batch = next(batches)
            turn = run.rule.turn(step)
            if step in (start, turn.start):
                state = self._begin_phase(state, step, turn)
            if not run.train_step.is_compiled(batch, turn):
                self._compile(state, batch, turn)
            self.heartbeat.beat(step, "running")
            state, metrics = run.train_step(state, batch, turn)
            self.trace.after(step, metrics)
            self.log.add(step, turn, metrics)
            done, last = step + 1, step + 1 == run.rule.num_steps
            # Asked once a step: a signal that comes later in it is for the next one, which then saves.
            stopped_by = self.signals.stopped_by(step)
            evaluates = last or (done % cadence.eval_every_steps == 0 and not stopped_by)
            # What is evaluated is saved, since only a checkpoint with figures can be the best.
            saves = evaluates or stopped_by is not None or done % cadence.checkpoint_every_steps == 0
            if saves or done % cadence.log_every_steps == 0:
                self.log.write(done)
            figures = self._evaluated(state, done) if evaluates else {}
            if saves:
                self.heartbeat.pause()
                run.checkpoints.save(state, run.description(done), figures, run.task.best_figure)
            if evaluates and not figures:
                # The signal that has interrupted the evaluation, whose step is saved. Any other is for the next step.
                stopped_by = self.signals.received_alone
            if stopped_by is not None:
                break
        # Waited for while signals are still caught: a second one must not cost the checkpoint.
        run.checkpoints.wait()
        if stopped_by is not None:
            self.progress.say(f"{stopped_by.name}: saved step {done}; the same command goes on from there")
        finished = last and bool(figures)
        return Outcome(state, done, figures, 0 if finished else self.signals.exit_code)

    def _begin_phase(self, state: TrainState, step: int, turn: Turn) -> TrainState:
        """What comes before the first step of every phase of incremental training; nothing in any other."""
        if turn.phase:
            frozen = f"what width {turn.phase.frozen:g} reads is frozen" if turn.phase.frozen else "nothing is frozen"
            self.progress.say(f"phase {turn.phase.number}: training width {turn.widths[0]:g}, {frozen}")
            if turn.phase.frozen and step == turn.start:
                self.heartbeat.pause()
                state = state.replace(opt_state=_fresh_optimizer(self.run, state.params))
        return state

    def _compile(self, state: TrainState, batch: dict[str, jax.Array], turn: Turn) -> None:
        """Compiles what a turn, or a batch of another shape, needs."""
        self.heartbeat.pause()
        with self.progress.announced("compiling the train step"):
            self.run.train_step.compile(state, batch, turn)
        self.log.restart_clock()

    def _evaluated(self, state: TrainState, done: int) -> dict[float, Figures]:
        """Figures of every width; none if a signal has interrupted the evaluation."""
        self.heartbeat.pause()
        weights, best = state.weights, self.run.task.best_figure
        figures = self.evaluate(weights.params, weights.batch_stats, lambda: self.signals.received_alone is not None)
        if not figures:
            return figures
        self.log.write_evaluation(done, figures)
        self.progress.say(f"step {done}: {figures_line(figures, best, '%')}")
        return figures


def _starting_state(run: Run, start: int) -> TrainState:
    # An imported checkpoint is of step 0: there is something to resume although no step has been done.
    return restored_state(run, start) if run.checkpoints.steps() else new_state(run)


def _say_plainly(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_how_it_starts(run: Run, start: int, progress: Progress) -> None:
    if not run.checkpoints.steps():
        if run.config.init_from:
            anew = "" if run.config.init_classifier else ", the classifier anew"
            progress.say(f"starting from the weights of {run.config.init_from}{anew}")
        return
    stored = run.checkpoints.description(start)
    seen = f"{stored.examples_seen:,} images seen"
    progress.say(f"resuming {run.workdir} from step {start} of {run.rule.num_steps}, {seen}")
    for line in changed_settings(stored, run.config):
        progress.say(f"  changed since: {line}")


def _fresh_optimizer(run: Run, params: Any) -> Any:
    return jax.jit(run.tx.init, out_shardings=NamedSharding(run.mesh, REPLICATED))(params)
