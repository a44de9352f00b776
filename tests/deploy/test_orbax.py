"""The orbax checkpoint of a bundle, read with plain orbax."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict

from slimjax import extract_subnet
from slimjax.deploy.bundle import read_manifest
from slimjax.deploy.exporting import export_bundle
from slimjax.training.progress import Progress

WIDTHS = (0.35, 0.5, 1.0)


@pytest.fixture(scope="module")
def trained(trained_small):
    return trained_small("mobilenet_v2", WIDTHS)


@pytest.fixture
def restored(trained, tmp_path):
    """Arrays by path of the checkpoint of a bundle of some widths, which were compared with the network."""

    def restore(widths):
        manifest = export_bundle(trained, tmp_path / "bundle", widths, Progress(enabled=False), ("orbax",))
        assert all(check.check.largest_difference < 1e-5 for check in manifest.programs["orbax"].values())
        assert read_manifest(tmp_path / "bundle") == manifest
        written = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
        assert not [path for path in written if str(tmp_path).encode() in path.read_bytes()], "the exporter's own path"
        with ocp.StandardCheckpointer() as checkpointer:
            return flatten_dict(jax.tree.map(np.asarray, checkpointer.restore(tmp_path / "bundle" / "orbax")))

    return restore


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path], err_msg="/".join(path))


def test_all_widths_are_the_variables_as_they_were_trained(restored, trained):
    assert_same(restored(WIDTHS), flatten_dict(trained.variables))


def test_one_width_is_a_network_of_its_own(restored, trained):
    assert_same(restored((0.5,)), flatten_dict(extract_subnet(trained.model, trained.variables, 0.5).variables))


def test_some_widths_leave_out_the_others_batch_norms(restored, trained):
    kept = {path: array for path, array in flatten_dict(trained.variables).items() if "switch_1" not in path}
    assert_same(restored((0.35, 1.0)), kept)
