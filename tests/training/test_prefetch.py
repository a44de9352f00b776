"""Batches on their way to the devices."""

import numpy as np
from jax.sharding import NamedSharding

from slimjax.tasks import colours
from slimjax.training import prefetch
from slimjax.training.mesh import SPLIT, data_mesh, put_batch
from slimjax.training.prefetch import device_batches


def test_batches_come_in_order_one_ahead(rng):
    images, noise = rng.integers(0, 256, (5, 8, 2, 2, 3), np.uint8), rng.normal(size=(5, 8, 3)).astype(np.float32)
    host = [{"image": images[n], "noise": noise[n], "label": np.arange(8)} for n in range(5)]
    asked = []

    def batches():
        for number, batch in enumerate(host):
            asked.append(number)
            yield batch

    mesh = data_mesh()
    for number, batch in enumerate(device_batches(mesh, batches())):
        # The next one's transfer has been started before this one is handed out.
        assert asked[-1] == min(number + 1, len(host) - 1)
        assert set(batch) == {"image", "label"}
        np.testing.assert_allclose(batch["image"], colours.normalised(host[number]), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(batch["label"], host[number]["label"])
        assert all(array.sharding == NamedSharding(mesh, SPLIT) for array in batch.values())
    assert number == len(host) - 1


def test_images_travel_as_bytes(monkeypatch, rng):
    host = {"image": rng.integers(0, 256, (8, 4, 5, 3), np.uint8), "label": np.arange(8)}
    sent = []

    def recorded(mesh, batch):
        sent.append(put_batch(mesh, batch))
        return sent[-1]

    monkeypatch.setattr(prefetch, "put_batch", recorded)
    (batch,) = prefetch.device_batches(data_mesh(), [host])
    assert batch["image"].dtype == np.float32
    assert [arrays["image"].dtype for arrays in sent] == [np.uint8]
    assert sent[0]["image"].nbytes == 8 * 4 * 5 * 3


def test_nothing_gives_nothing():
    assert list(device_batches(data_mesh(), [])) == []
