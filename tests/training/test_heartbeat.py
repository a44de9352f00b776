"""What is told, and what is not, of a loop that stands still."""

import time

from slimjax.training.heartbeat import Heartbeat


def wait_for(lines, count):
    deadline = time.monotonic() + 20
    while len(lines) < count:
        assert time.monotonic() < deadline, lines
        time.sleep(0.01)


def test_a_step_that_takes_much_longer_is_told_while_it_does_and_seldom():
    lines = []
    with Heartbeat(lines.append, min_seconds=0.05) as heartbeat:
        heartbeat.steps_took(0.02, 10)
        heartbeat.beat(7, "waiting for images")
        wait_for(lines, 2)
        heartbeat.beat(8, "running")
        wait_for(lines, 3)
    assert lines[0].startswith("step 7: waiting for images for 0 s now; a step usually takes 0.002 s")
    assert lines[1].startswith("step 7: waiting for images")
    assert any(line.startswith("step 8: running") for line in lines)
    # A wait of t seconds is told about log2(t / 0.06) times, not at each look.
    assert len(lines) < 30


def test_nothing_is_told_while_nothing_is_known_or_watched_or_late():
    lines = []
    with Heartbeat(lines.append, min_seconds=0.02) as heartbeat:
        heartbeat.beat(1, "running")
        time.sleep(0.1)
        assert lines == [], "nobody knows yet how long a step takes"
        heartbeat.steps_took(3600.0, 1)
        time.sleep(0.1)
        assert lines == [], "a step of an hour is not late yet"
        heartbeat.pause()
        for _ in range(60):
            heartbeat.steps_took(0.001, 1)
        time.sleep(0.1)
        assert lines == [], "evaluating is not a step"
