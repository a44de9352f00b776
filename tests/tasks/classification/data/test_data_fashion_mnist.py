"""Debian's files of Fashion-MNIST, in miniature: the bytes of the format come out as images and labels."""

import gzip
import pathlib
import struct

import numpy as np
import pytest
from tensorflow_datasets.image_classification import mnist

from slimjax.tasks import builders
from slimjax.tasks.classification.data import fashion_mnist

COUNTS = {"train": 5, "t10k": 3}


def write_idx(path: pathlib.Path, array: np.ndarray) -> None:
    """The format of MNIST's files: a magic number with the number of axes, their lengths, bytes."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels by split, in files where the package would have them."""
    rng, folder = np.random.default_rng(0), tmp_path / "debian"
    folder.mkdir()
    arrays = {}
    for name, count in COUNTS.items():
        arrays[name] = rng.integers(0, 255, (count, 28, 28), np.uint8), rng.integers(0, 10, count).astype(np.uint8)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", arrays[name][0])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", arrays[name][1])
    monkeypatch.setattr(fashion_mnist, "DEBIAN_DIR", folder)
    # tfds reads as many as there are in the true files.
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", COUNTS["train"])
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", COUNTS["t10k"])
    return arrays


def test_the_packages_files_become_the_data_set(
    written: dict[str, tuple[np.ndarray, np.ndarray]], tmp_path: pathlib.Path
) -> None:
    builder = fashion_mnist.DebianFashionMnist(data_dir=str(tmp_path / "data"), file_format="array_record")
    builder.download_and_prepare()
    for split, (images, labels) in {"train": written["train"], "test": written["t10k"]}.items():
        source = builder.as_data_source(split)
        # tfds shuffles what it writes.
        expected = sorted(zip(images.tolist(), labels.tolist(), strict=True))
        assert sorted((record["image"][..., 0].tolist(), int(record["label"])) for record in source) == expected


def test_preparing_needs_no_network_either(
    written: dict[str, tuple[np.ndarray, np.ndarray]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(builders._OWN_BUILDERS, "fashion_mnist", fashion_mnist.DebianFashionMnist)
    for is_new in (True, False):
        builder, was_written = builders.prepare("fashion_mnist", str(tmp_path), "", "tfrecord", shows_progress=False)
        assert was_written == is_new
        assert builder.info.splits["train"].num_examples == len(written["train"][1])
