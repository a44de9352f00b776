"""What is shown while something takes long: what moves on a terminal, and little where there is none."""

import contextlib
import re
import sys
import time

import pytest
from terminals import Terminal

from slimjax.training import progress
from slimjax.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def wide_terminal(monkeypatch):
    """A terminal of 80 columns, for a test to have stderr be it: pytest sets that anew after its fixtures."""
    for name in ("FORCE_COLOR", "NO_COLOR", "JPY_PARENT_PID", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def wait_until_shown(pattern, terminal):
    deadline = time.perf_counter() + 20
    while not re.search(pattern, terminal.text()):
        assert time.perf_counter() < deadline, terminal.text()
        time.sleep(0.01)


def test_on_a_terminal_the_time_passes_until_the_seconds_are_known(clock, wide_terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", wide_terminal)
    long = f"compiling {'x' * 80}"
    with Progress() as shown:
        with shown.announced(long):
            for now, told in ((1005.0, "0:00:05"), (4665.0, "1:01:05")):
                clock[0] = now
                wait_until_shown(f"compiling x+… .* {told}", wide_terminal)
        with contextlib.suppress(KeyError), shown.announced("reading"):
            wait_until_shown("reading .* 0:00:00", wide_terminal)
            raise KeyError
        shown.say("the end")
    *frames, last = re.split("[\r\n]+", wide_terminal.text().strip())
    assert last == "the end", "what has failed is not shown any more"
    assert frames.count(f"{long}: 3665.0 s") == 1
    assert max(len(frame) for frame in frames if frame != f"{long}: 3665.0 s") <= 80
    assert not [frame for frame in frames if frame.endswith("...") or "?" in frame]


def test_without_a_terminal_a_line_comes_at_both_ends(clock, capsys):
    with Progress() as shown, shown.announced("compiling"):
        clock[0] += 12
    assert capsys.readouterr().err == "compiling ...\ncompiling: 12.0 s\n"


def test_without_a_terminal_a_line_comes_now_and_then_and_at_the_end(clock, capsys):
    with Progress() as shown:
        steps = shown.steps("training", 200, start=100)
        for step in range(101, 201):
            clock[0] += 10
            steps.advance(step)
            steps.report(f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    # 10 s a step: the first, every third from there, and the last.
    assert len(lines) == 34
    assert lines[:2] == [
        "training 101/200, 0:00:10 elapsed, 0:16:30 left: loss 101",
        "training 104/200, 0:00:40 elapsed, 0:16:00 left: loss 104",
    ]
    assert lines[-1] == "training 200/200, 0:16:40 elapsed, 0:00:00 left: loss 200"


def test_what_runs_before_the_clock_is_no_part_of_what_is_left(clock, capsys):
    with Progress() as shown:
        steps = shown.steps("training", 10, start=0)
        clock[0] += 500
        steps.restart_clock()
        clock[0] += 1
        steps.advance(1)
        steps.report("")
    assert capsys.readouterr().err.startswith("training 1/10, 0:00:01 elapsed, 0:00:09 left")


def test_what_is_counted_tells_how_far_it_is_when_it_takes_long(clock, capsys):
    done = []
    with Progress() as shown:
        for item in shown.track(range(10), "counting", 10, lambda: f"so far {sum(done)}"):
            clock[0] += 12
            done.append(item)
        assert list(shown.track(range(3), "counting", 3)) == [0, 1, 2]
    # 12 s an item: after each third, by the clock from the first on; nothing of what is through, or took no time.
    assert capsys.readouterr().err.splitlines() == [
        "counting 3/10, 0:00:24 elapsed, 0:01:24 left: so far 3",
        "counting 6/10, 0:01:00 elapsed, 0:00:48 left: so far 15",
        "counting 9/10, 0:01:36 elapsed, 0:00:12 left: so far 36",
    ]


def test_quiet_shows_nothing_and_passes_everything_on(capsys):
    with Progress(enabled=False) as shown, shown.announced("something"):
        assert list(shown.track(range(3), "counting", 3, lambda: pytest.fail("nobody sees it"))) == [0, 1, 2]
        steps = shown.steps("training", 2, start=0)
        steps.advance(2)
        steps.report("loss 1")
        shown.say("a line")
    assert capsys.readouterr() == ("", "")
