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
        for step in range(7):
            heartbeat.beat(step, "running")
        heartbeat.beat(7, "waiting for images")
        wait_for(lines, 2)
        heartbeat.beat(7, "running")
        wait_for(lines, 3)
    assert lines[0].startswith("step 7: waiting for images for 0 s now; a step usually takes ")
    assert lines[1].startswith("step 7: waiting for images")
    assert any(line.startswith("step 7: running") for line in lines)
    # A wait of t seconds is told about log2(t / .05) times, not at each look.
    assert len(lines) < 30


def test_nothing_is_told_while_nothing_is_known_or_watched():
    lines = []
    with Heartbeat(lines.append, min_seconds=0.02) as heartbeat:
        heartbeat.beat(0, "running")
        time.sleep(0.1)
        assert lines == [], "nobody knows yet how long a step takes"
        heartbeat.beat(1, "running")
        heartbeat.pause()
        time.sleep(0.2)
        assert lines == [], "evaluating is not a step"


def test_ten_usual_steps_are_not_late():
    lines = []
    with Heartbeat(lines.append, min_seconds=0.02) as heartbeat:
        heartbeat.beat(0, "running")
        time.sleep(0.3)
        heartbeat.beat(1, "running")
        time.sleep(0.5)
        heartbeat.pause()
    assert lines == []
