"""A trace of some training steps, for XProf and TensorBoard's profiler."""

import re
from types import TracebackType
from typing import Any, Self

import jax
from etils import epath

from slimjax.errors import UserError
from slimjax.training.progress import Progress


def parse_steps(text: str) -> range:
    """Reads `10-20`, both ends included; UserError if it is not that."""
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if not match or int(match[1]) > int(match[2]):
        raise UserError(f"--profile_steps={text} has to be the first and the last step to trace, such as 10-20")
    return range(int(match[1]), int(match[2]) + 1)


class StepTrace:
    """Starts and ends the trace as the steps come by; what happens on the host between them is in it too."""

    def __init__(self, steps: range, directory: epath.Path, progress: Progress) -> None:
        """Traces nothing yet.

        Args:
          steps: those to trace; an empty range traces nothing.
          directory: of TensorBoard's logs.
          progress: where it is told.
        """
        self._steps, self._directory, self._progress = steps, directory, progress
        self._is_tracing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def before(self, step: int) -> None:
        """To be called before every step; a run that resumes in the middle of the steps traces the rest."""
        if step in self._steps and not self._is_tracing:
            jax.profiler.start_trace(str(self._directory))
            self._is_tracing = True

    def after(self, step: int, results: Any) -> None:
        """To be called after every step with what it returned, which is waited for after the last one."""
        if self._is_tracing and step + 1 == self._steps.stop:
            jax.block_until_ready(results)
            self._end()

    def _end(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
            self._progress.say(f"trace: {self._directory / 'plugins' / 'profile'} (tensorboard or xprof shows it)")
