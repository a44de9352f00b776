"""What a person sees while something takes long: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from slimjax.tasks.task import Figures


class Progress:
    """Progress of a counted loop, with its current figures. Everything goes to stderr; results go to stdout."""

    def __init__(self, description: str, total: int, start: int = 0, enabled: bool = True) -> None:
        """Starts at `start` of `total` steps; `enabled=False` is for the processes that do not write logs."""
        self._console = Console(stderr=True, quiet=not enabled, highlight=False)
        self._description, self._total, self._start, self._step = description, total, start, start
        self._began = time.monotonic()
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._live.add_task(description, total=total, completed=start, figures="")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def restart_clock(self) -> None:
        """Leaves what has happened so far, such as compiling, out of the time left."""
        self._began, self._start = time.monotonic(), self._step
        self._live.reset(self._task, completed=self._step, figures="")

    def advance(self, step: int) -> None:
        """Moves to a step; cheap enough to call at every one."""
        self._step = step
        self._live.update(self._task, completed=step)

    def report(self, figures: str) -> None:
        """Shows current figures: beside the bar on a terminal, as a line with the time left elsewhere."""
        self._live.update(self._task, figures=figures)
        if not self._console.is_terminal:
            elapsed = time.monotonic() - self._began
            left = elapsed / max(1, self._step - self._start) * (self._total - self._step)
            self.say(f"{self._description} {self._step}/{self._total}, {left:.0f} s left: {figures}")

    def say(self, line: str) -> None:
        """Prints a line that stays, above the bar where there is one."""
        self._console.print(line, soft_wrap=True, markup=False)


@contextmanager
def announced(progress: Progress, what: str) -> Iterator[None]:
    """Says that something longer begins and, when it is done, how long it took."""
    began = time.monotonic()
    progress.say(f"{what} ...")
    yield
    progress.say(f"{what}: {time.monotonic() - began:.1f} s")


def figures_line(figures: Mapping[float, Figures], name: str) -> str:
    """One figure of every width, such as `0.25: 3.1  0.5: 2.2`."""
    return "  ".join(f"{width:g}: {row[name]:.2f}" for width, row in figures.items())
