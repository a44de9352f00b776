"""What only a process of its own can show: silence, late imports, and preparation that is killed or done twice."""

import pathlib
import subprocess
import sys

from slimjax.tasks import builders
from slimjax.tensorflow_import import tfds

SCRIPT = """
import sys
import ml_collections
from slimjax.tasks.classification import data

config = ml_collections.ConfigDict(dict(
    name="digits", data_dir=sys.argv[1], train_split="train", eval_split="test", image_size=8, eval_resize=8,
    augmentation="basic", flip=True, color_jitter=0.4, pca_noise=0.1, shuffle_buffer=100,
    skip_damaged=False,
))
data.check_dataset_config(config)
assert "tensorflow" not in sys.modules and "tensorflow_datasets" not in sys.modules
if sys.argv[2] == "die":
    import os
    from slimjax.tasks.classification.data.digits import Digits
    write = Digits._generate_examples

    def die_in_the_middle(self, *args):
        for position, example in enumerate(write(self, *args)):
            if position == 100:
                os._exit(9)
            yield example

    Digits._generate_examples = die_in_the_middle
data.load_info(config)
next(data.train_batches(config, batch_size=64, seed=0))
print(int(sum(batch["mask"].sum() for batch in data.eval_batches(config, batch_size=64))))
# With more, what resizes hands rows to other threads and waits for them.
assert sys.modules["tensorflow"].config.threading.get_intra_op_parallelism_threads() == 1
"""


def start(data_dir: pathlib.Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(data_dir), mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_preparing_survives_a_kill_and_a_race_in_silence(tmp_path: pathlib.Path) -> None:
    # By itself, since one that comes after another has prepared the data set has nothing to die of.
    killed = start(tmp_path, "die")
    killed.communicate(timeout=120)
    assert killed.returncode == 9
    racers = [start(tmp_path, "live") for _ in range(2)]
    for racer in racers:
        stdout, stderr = racer.communicate(timeout=120)
        assert (racer.returncode, stdout, stderr) == (0, "355\n", "")
    # What the killed one left shows that it died while it wrote.
    assert any(path.name.startswith("incomplete") for path in (tmp_path / "digits").iterdir())


def test_what_another_process_finishes_meanwhile_has_its_splits(tmp_path: pathlib.Path) -> None:
    def finished_meanwhile(name: str, builder: tfds.core.DatasetBuilder) -> None:
        builders.open_builder(name, str(tmp_path), lambda *_: None)
        assert not builder.info.splits, "it was made before there were any"

    builder = builders.open_builder("digits", str(tmp_path), finished_meanwhile)
    assert set(builder.info.splits) == {"train", "test"}
