"""Short runs of the real program, and what they leave behind."""

import json
import time

SMALL = [
    "--config.model.widths=(0.25,1.0)",
    "--config.num_train_steps=80",
    "--config.schedule.warmup_steps=5",
    "--config.log_every_steps=10",
    "--config.eval_every_steps=40",
    "--config.checkpoint_every_steps=20",
]
STEPS_OF_ONE = [
    "--config.num_train_steps=1",
    "--config.schedule.warmup_steps=0",
    "--config.eval_every_steps=1",
    "--config.checkpoint_every_steps=1",
]


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def arrays_of(workdir, step):
    """Every array file of a checkpoint, read with plain orbax, whatever devices wrote it."""
    import jax
    import orbax.checkpoint as ocp

    path = workdir.absolute() / "checkpoints" / str(step) / "state"
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path).item_metadata.tree
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored)
        return jax.tree.leaves_with_path(checkpointer.restore(path, shapes))


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
