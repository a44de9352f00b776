"""The SavedModel of a bundle, as TensorFlow reads it, against the network as it was trained."""

from slimjax.tensorflow_import import tf  # isort: skip

from pathlib import Path

import pytest

import slimjax
from slimjax.deploy.bundle import read_manifest, read_weights
from slimjax.deploy.exporting import export_bundle
from slimjax.deploy.formats import write_format
from slimjax.deploy.source import Source
from slimjax.training.progress import Progress

WIDTHS = (0.35, 0.5, 1.0)


@pytest.fixture(scope="module")
def trained(trained_small):
    return trained_small("mobilenet_v2", WIDTHS)


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("savedmodel") / "bundle"
    export_bundle(trained, path, WIDTHS, Progress(enabled=False), ("savedmodel",))
    return path


@pytest.fixture(scope="module")
def loaded(bundle):
    return tf.saved_model.load(str(bundle / "savedmodel"))


@pytest.fixture(scope="module")
def logits(trained, network_logits):
    return {width: network_logits(trained, trained.images, width) for width in WIDTHS}


@pytest.mark.parametrize("width", WIDTHS)
def test_signatures_are_the_networks_widths(loaded, trained, logits, relative_error, width):
    signature = loaded.signatures[f"width_{width:g}"]
    for count in (16, 1):
        (output,) = signature(images=tf.constant(trained.images[:count])).items()
        assert output[0] == "logits"
        assert relative_error(output[1].numpy(), logits[width][:count]) < 1e-5


def test_the_default_is_the_widest(loaded, trained, logits, relative_error):
    assert set(loaded.signatures) == {"width_0.35", "width_0.5", "width_1", "serving_default"}
    found = loaded.signatures["serving_default"](images=tf.constant(trained.images))["logits"]
    assert relative_error(found.numpy(), logits[1.0]) < 1e-5


def test_widths_share_variables_that_are_stored_once(bundle):
    manifest = read_manifest(bundle)
    weights = read_weights(bundle, manifest)
    checkpoint = tf.train.load_checkpoint(str(bundle / "savedmodel" / "variables" / "variables"))
    stored = [checkpoint.get_tensor(name) for name in checkpoint.get_variable_to_shape_map() if "tf_var_leaves" in name]
    assert sorted(array.tobytes() for array in stored) == sorted(array.tobytes() for array in weights.values())
    # Nothing of them is in the graph: it is of the networks' size, not of their weights'.
    graph = (bundle / "savedmodel" / "saved_model.pb").read_bytes()
    assert weights["tail/conv/kernel"].tobytes() not in graph
    # Nor of the machine that exported it.
    assert str(Path(slimjax.__file__).parent).encode() not in graph
    assert {entry.file for entry in manifest.programs["savedmodel"].values()} == {"savedmodel/saved_model.pb"}
    assert set(manifest.files) == {
        "weights.safetensors",
        "savedmodel/saved_model.pb",
        "savedmodel/fingerprint.pb",
        "savedmodel/variables/variables.index",
        "savedmodel/variables/variables.data-00000-of-00001",
    }


@pytest.mark.parametrize("name", ["mobilenet_v1", "resnet50", "shufflenet"])
def test_other_families_and_colours(trained_small, digits, tmp_path, network_logits, relative_error, capfd, name):
    trained = trained_small(name, (0.5, 1.0), "uint8", stem="imagenet")
    (written,) = write_format("savedmodel", Source(trained, (0.5, 1.0)), tmp_path)
    for width in (0.5, 1.0):
        expected = network_logits(trained, trained.images, width)
        assert relative_error(written.run(width, digits(16)[0]), expected) < 1e-5
    assert capfd.readouterr() == ("", "")
