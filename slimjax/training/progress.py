"""What a person sees while something takes long: live bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from slimjax.tasks.task import Figures
from slimjax.terminal import is_terminal

Item = TypeVar("Item")


class _What(ProgressColumn):
    """What takes long, cut off where it would take the other columns' room."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _Count(MofNCompleteColumn):
    """How many of how many, of what is counted."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


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
            _What(),
            BarColumn(bar_width=24),
            _Count(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
            get_time=time.monotonic,
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
        """Says that something longer begins and, when it is done, how long it took.

        On a terminal the first is a bar that moves, with the time that has passed, until the second takes its place.
        """
        began = time.monotonic()
        if not self._console.is_terminal:
            self.say(f"{what} ...")
        task = self._live.add_task(what, total=None, figures="")
        try:
            yield
        finally:
            self._live.remove_task(task)
            self._live.refresh()
        self.say(f"{what}: {time.monotonic() - began:.1f} s")

    def track(self, items: Iterable[Item], what: str, total: int, figures: Callable[[], str] = str) -> Iterator[Item]:
        """The items, counted by a bar that goes when they are through.

        Without a terminal, what takes longer than `QUIET_SECONDS` says so in a line now and then.

        Args:
          items: passed on one by one.
          what: they are, such as `evaluating`.
          total: number of items.
          figures: asked, now and then, for what the items have come to so far.
        """
        bar = StepProgress(self, self._live, what, total, told=time.monotonic())
        try:
            for done, item in enumerate(items, 1):
                yield item
                bar.advance(done)
                if done == 1:
                    # As with steps: what the first one has to wait for, such as compiling, tells nothing of the rest.
                    bar.restart_clock()
                elif done < total and bar.is_due():
                    bar.report(figures())
        finally:
            bar.remove()

    def steps(self, what: str, total: int, start: int) -> "StepProgress":
        """A bar of steps with their current figures, beginning at `start` of `total`."""
        return StepProgress(self, self._live, what, total, start)


QUIET_SECONDS = 30
"""Between two lines about steps where there is no terminal: a log that nobody watches is kept short."""
FIGURES_SECONDS = 1
"""Between two looks at the figures of what is tracked on a terminal: the device has to stop for them."""


class StepProgress:
    """The bar of a loop over steps."""

    def __init__(
        self,
        progress: Progress,
        live: RichProgress,
        what: str,
        total: int,
        start: int = 0,
        told: float = float("-inf"),
    ) -> None:
        """Made by `Progress`; `told` is when the last line came, by `time.monotonic`."""
        self._progress, self._live, self._what, self._total = progress, live, what, total
        self._task = live.add_task(what, total=total, completed=start, figures="")
        self._began, self._start, self._step = time.monotonic(), start, start
        self._told = told

    def restart_clock(self) -> None:
        """Leaves what has happened so far, such as compiling, out of the time left."""
        self._began, self._start = time.monotonic(), self._step
        self._live.reset(self._task, completed=self._step, figures="")

    def advance(self, step: int) -> None:
        """Moves to a step; cheap enough to call at every one."""
        self._step = step
        self._live.update(self._task, completed=step)

    def is_due(self) -> bool:
        """Whether the last report is so long ago that another would be shown."""
        console = self._live.console
        between = FIGURES_SECONDS if console.is_terminal else QUIET_SECONDS
        return not console.quiet and time.monotonic() - self._told >= between

    def report(self, figures: str) -> None:
        """Shows current figures: below the bar on a terminal, now and then as a line elsewhere."""
        self._live.update(self._task, figures=figures)
        if self._step < self._total and not self.is_due():
            return
        self._told = time.monotonic()
        if not self._live.console.is_terminal:
            elapsed = self._told - self._began
            left = elapsed / max(1, self._step - self._start) * (self._total - self._step)
            times = f"{_clock(elapsed)} elapsed, {_clock(left)} left"
            self._progress.say(f"{self._what} {self._step}/{self._total}, {times}{figures and f': {figures}'}")

    def remove(self) -> None:
        """Takes the bar away."""
        self._live.remove_task(self._task)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03."""
    return str(timedelta(seconds=round(seconds)))


def figures_line(figures: Mapping[float, Figures], name: str, unit: str = "") -> str:
    """One figure of every width, such as `top1_error % 0.25: 3.10  0.5: 2.20`."""
    of_widths = (f"{width:g}: {row[name]:.2f}" for width, row in figures.items())
    return f"{name} {unit and f'{unit} '}{'  '.join(of_widths)}"
