"""What a person sees while something takes long: live bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from slimjax.tasks.task import Figures
from slimjax.terminal import is_terminal

Item = TypeVar("Item")


class _Bars(RichProgress):
    """Bars with their figures below them, since a terminal of 80 columns has no room for both in a line."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, then the figures of each that has some."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["figures"]:
                yield Text(task.fields["figures"], no_wrap=True, overflow="ellipsis")


class Progress:
    """Lines and bars of one command. Everything goes to stderr; results go to stdout."""

    def __init__(self, enabled: bool = True) -> None:
        """Shows nothing yet; `enabled=False` is for --quiet and for the processes that do not write logs."""
        # rich would take a notebook's output for a terminal, or FORCE_COLOR for the wish to have one.
        self._console = Console(stderr=True, quiet=not enabled, highlight=False, force_terminal=is_terminal(sys.stderr))
        self._live = _Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Prints a line that stays, above the bars where there are any."""
        self._console.print(line, soft_wrap=True, markup=False)

    @contextmanager
    def announced(self, what: str) -> Iterator[None]:
        """Says that something longer begins and, when it is done, how long it took."""
        began = time.monotonic()
        self.say(f"{what} ...")
        yield
        self.say(f"{what}: {time.monotonic() - began:.1f} s")

    def track(self, items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
        """The items, counted by a bar that goes when they are through; without a terminal nothing is shown."""
        task = self._live.add_task(what, total=total, figures="")
        try:
            for item in items:
                yield item
                self._live.advance(task)
        finally:
            self._live.remove_task(task)

    def steps(self, what: str, total: int, start: int) -> "StepProgress":
        """A bar of steps with their current figures, beginning at `start` of `total`."""
        task = self._live.add_task(what, total=total, completed=start, figures="")
        return StepProgress(self, self._live, task, start)


QUIET_SECONDS = 30
"""Between two lines about steps where there is no terminal: a log that nobody watches is kept short."""


class StepProgress:
    """The bar of a loop over steps."""

    def __init__(self, progress: Progress, live: RichProgress, task: TaskID, start: int) -> None:
        """Made by `Progress.steps`."""
        self._progress, self._live, self._task = progress, live, task
        self._began, self._start, self._step = time.monotonic(), start, start
        self._told = float("-inf")

    def restart_clock(self) -> None:
        """Leaves what has happened so far, such as compiling, out of the time left."""
        self._began, self._start = time.monotonic(), self._step
        self._live.reset(self._task, completed=self._step, figures="")

    def advance(self, step: int) -> None:
        """Moves to a step; cheap enough to call at every one."""
        self._step = step
        self._live.update(self._task, completed=step)

    def report(self, figures: str) -> None:
        """Shows current figures: below the bar on a terminal, now and then as a line elsewhere."""
        self._live.update(self._task, figures=figures)
        if self._live.console.is_terminal:
            return
        task, now = self._live.tasks[self._live.task_ids.index(self._task)], time.monotonic()
        total = int(task.total or 0)
        if now - self._told < QUIET_SECONDS and self._step < total:
            return
        self._told, elapsed = now, now - self._began
        left = elapsed / max(1, self._step - self._start) * (total - self._step)
        times = f"{_clock(elapsed)} elapsed, {_clock(left)} left"
        self._progress.say(f"{task.description} {self._step}/{total}, {times}: {figures}")


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03."""
    return str(timedelta(seconds=round(seconds)))


def figures_line(figures: Mapping[float, Figures], name: str) -> str:
    """One figure of every width, such as `0.25: 3.1  0.5: 2.2`."""
    return "  ".join(f"{width:g}: {row[name]:.2f}" for width, row in figures.items())
