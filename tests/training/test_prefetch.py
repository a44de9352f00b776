"""Batches on their way to the devices."""

import numpy as np

from slimjax.training.mesh import data_mesh
from slimjax.training.prefetch import device_batches


def test_batches_come_in_order_one_ahead(rng):
    host = [{"image": rng.normal(size=(8, 2, 2, 3)).astype(np.float32), "label": np.arange(8)} for _ in range(5)]
    asked = []

    def batches():
        for number, batch in enumerate(host):
            asked.append(number)
            yield batch

    mesh = data_mesh()
    for number, batch in enumerate(device_batches(mesh, batches())):
        # The next one's transfer has been started before this one is handed out.
        assert asked[-1] == min(number + 1, len(host) - 1)
        for key, array in batch.items():
            np.testing.assert_array_equal(array, host[number][key])
            assert len(array.sharding.device_set) == mesh.size
    assert number == len(host) - 1


def test_nothing_gives_nothing():
    assert list(device_batches(data_mesh(), [])) == []
