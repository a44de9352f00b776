"""Several processes as one run: real ones, with real collectives, of which one is killed or told to stop."""

import signal
import socket

import numpy as np
import pytest
from programs import arrays_of, lines_of, wait_for

STEPS = 12
# Gradients add up in another order.
ADDED_UP_IN_ANOTHER_ORDER = {"params": {"rtol": 1e-3, "atol": 1e-5}, "batch_stats": {"rtol": 1e-3, "atol": 1e-3}}
SETTINGS = [
    "--config.model.widths=(0.25,1.0)",
    f"--config.num_train_steps={STEPS}",
    # At higher rates batch norms of eight images make much of a rounding difference within a few steps.
    "--config.learning_rate=0.002",
    "--config.schedule.warmup_steps=2",
    "--config.log_every_steps=2",
    "--config.eval_every_steps=6",
    "--config.checkpoint_every_steps=2",
]


@pytest.fixture
def start_processes(start_program):
    """Starts two processes of four devices each, or what `arguments` say, on a free port."""

    def start(workdir, *arguments):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        where = [f"--coordinator=localhost:{port}", "--num_processes=2"]
        return [
            start_program(f"--workdir={workdir}", *SETTINGS, *arguments, *where, f"--process_id={index}", devices=4)
            for index in range(2)
        ]

    return start


@pytest.fixture(scope="module")
def alone(run_program, tmp_path_factory):
    """The workdir of the same run in one process of eight devices."""
    workdir = tmp_path_factory.mktemp("alone")
    code, _, err = run_program(f"--workdir={workdir}", *SETTINGS, devices=8)
    assert code == 0, err
    return workdir


@pytest.mark.slow
def test_a_lost_process_ends_the_other_and_both_go_on_to_what_one_would_have_learned(alone, start_processes, tmp_path):
    coordinator, other = start_processes(tmp_path)
    wait_for((tmp_path / "checkpoints" / "4").exists, coordinator)
    coordinator.kill()
    coordinator.communicate()
    _, err = other.communicate(timeout=150)
    assert other.returncode not in (0, None)
    assert "another task died" in err or "lost another one" in err

    processes = start_processes(tmp_path)
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    (out, err), (silent_out, silent_err) = results
    assert "resuming" in err
    assert "checkpoints:" in out
    assert "resuming" not in silent_err, "one process prints"
    assert "checkpoints:" not in silent_out
    # The devices' images are the same, in the same order.
    for (path, value), (_, expected) in zip(arrays_of(tmp_path, STEPS), arrays_of(alone, STEPS), strict=True):
        # What the optimiser keeps are gradients, 500 times as large as what the learning rate makes of their noise.
        if tolerance := ADDED_UP_IN_ANOTHER_ORDER.get(path[0].key):
            np.testing.assert_allclose(value, expected, **tolerance, err_msg=str(path))
    losses, expected = ([line for line in lines_of(w) if "train/loss/width_1" in line] for w in (tmp_path, alone))
    assert [line["step"] for line in losses] == [line["step"] for line in expected], "one process writes logs"
    for line, other_line in zip(losses, expected, strict=True):
        assert line["train/loss/width_0.25"] == pytest.approx(other_line["train/loss/width_0.25"], rel=1e-3)


@pytest.mark.slow
def test_a_lost_process_that_is_not_the_first_ends_the_first(start_processes, tmp_path):
    coordinator, other = start_processes(tmp_path, "--config.num_train_steps=1000")
    wait_for((tmp_path / "checkpoints" / "2").exists, coordinator)
    other.kill()
    other.communicate()
    _, err = coordinator.communicate(timeout=150)
    assert coordinator.returncode not in (0, None)
    assert "another task died" in err or "lost another one" in err


@pytest.mark.slow
def test_a_mistake_that_one_process_meets_ends_both(start_processes, tmp_path):
    """Process 0 finds the workdir locked; the other waits for it in a collective."""
    import fcntl

    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes = start_processes(tmp_path)
        results = [process.communicate(timeout=200) for process in processes]
    assert processes[0].returncode == 2
    assert results[0][1].startswith("error: process 0 of 2: another process writes to")
    assert processes[1].returncode not in (0, None), results[1]


@pytest.mark.slow
def test_another_number_of_devices_goes_on_and_says_so(start_program, tmp_path):
    for devices, steps in ((2, 4), (4, 6)):
        arguments = [f"--workdir={tmp_path}", *SETTINGS, f"--config.num_train_steps={steps}"]
        process = start_program(*arguments, devices=devices)
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    assert "devices, which see other images from here on: 2 in the checkpoint, 4 here" in err
    assert (tmp_path / "checkpoints" / "6").exists()


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_to_one_process_saves_and_ends_all(start_processes, tmp_path, told):
    processes = start_processes(tmp_path, "--config.num_train_steps=1000")
    wait_for((tmp_path / "checkpoints" / "2").exists, processes[0])
    processes[told].send_signal(signal.SIGTERM)
    results = [process.communicate(timeout=150) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    stopped = int(results[0][1].split("SIGTERM: saved step ")[1].split(";")[0])
    assert (tmp_path / "checkpoints" / str(stopped) / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_processes=2"], "give --coordinator and --process_id too"),
        (["--coordinator=here", "--num_processes=2", "--process_id=0"], "--coordinator=here is not HOST:PORT"),
        (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "--process_id=2 is not one of 2 processes"),
    ],
)
def test_incomplete_processes_are_one_line(run_program, assert_refused, tmp_path, arguments, message):
    assert_refused(run_program(f"--workdir={tmp_path}", *arguments), message)
