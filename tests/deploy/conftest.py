"""What two networks' outputs are compared by, and networks to export."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from slimjax.deploy.bundle import InputEntry, file_entry, read_manifest, write_manifest
from slimjax.deploy.source import Trained


@pytest.fixture(scope="session")
def relative_error():
    """The largest difference over the largest value."""
    return lambda actual, expected: float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


@pytest.fixture(scope="session")
def images():
    """Four images [4, 16, 16, 3]."""
    return jax.random.normal(jax.random.key(2), (4, 16, 16, 3))


@pytest.fixture(scope="session")
def digits():
    """Colours [count, 16, 16, 3] uint8 and labels [count] of the first digits below five."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images[labels < 5].reshape(-1, 8, 8).repeat(2, 1).repeat(2, 2), labels[labels < 5]
    return lambda count: (np.rint(images[:count, ..., None] * [15.0, 12.0, 9.0]).astype(np.uint8), labels[:count])


@pytest.fixture(scope="session")
def trained_small(create_small, random_variables, digits):
    """Makes a network of random variables to export, for the digits; `options` are the network's."""

    def make(name, widths, dtype="float32", count=16, **options):
        model = create_small(name, widths).clone(**options)
        mean, stddev = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
        return Trained(
            name=name,
            task="classification",
            model=model,
            variables=random_variables(model),
            class_names=(),
            input=InputEntry.square(16, dtype, mean, stddev, 16),
            image_size=16,
            figures={},
            images=((digits(count)[0] / 255 - mean) / stddev).astype(np.float32),
        )

    return make


@pytest.fixture(scope="session")
def network_logits():
    """What a network to export computes for images, normalised, before anything is folded."""

    def compute(trained, images, width):
        network = jax.jit(lambda variables, images: trained.model.apply(variables, images, width=width))
        return np.asarray(network(trained.variables, images))

    return compute


@pytest.fixture
def forged(tmp_path):
    """Alters a file of a bundle's copy, as somebody does who knows how checksums are made."""

    def forge(bundle, file, change):
        target = tmp_path / "forged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(bundle, target)
        (target / file).write_bytes(change((target / file).read_bytes()))
        manifest = read_manifest(bundle)
        files = {name: file_entry(target / name) for name in manifest.files}
        write_manifest(target, dataclasses.replace(manifest, files=files))
        return target

    return forge
