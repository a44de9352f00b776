"""ONNX files of all widths against the networks they were made from, and files that were tampered with."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from slimjax import SlimmableRuntime, UserError
from slimjax.deploy.bundle import TensorEntry, read_manifest, write_manifest
from slimjax.deploy.exporting import export_bundle
from slimjax.deploy.formats.onnx import onnx_model
from slimjax.deploy.source import Source
from slimjax.training.progress import Progress

WIDTHS = (0.35, 0.5, 1.0)
FILE = "onnx/model.onnx"
QUIET = Progress(enabled=False)


@pytest.fixture(scope="module")
def trained(trained_small):
    return trained_small("mobilenet_v2", WIDTHS)


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "bundle"
    export_bundle(trained, path, WIDTHS, QUIET, ("onnx",))
    return path


@pytest.fixture(scope="module")
def runtime(bundle):
    return SlimmableRuntime.load(bundle, backend="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def model(bundle):
    return onnx.load(bundle / FILE)


def logits_of(session, images, width):
    """As somebody does who has the file and nothing of slimjax."""
    (logits,) = session.run(["logits"], {"images": images, "width": np.array(width, np.float32)})
    return logits


def operators(graph):
    """Of a graph and all graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from operators(attribute.g)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1", {"batch_norm": "shared"}),
        ("mobilenet_v2", {"batch_norm": "shared_affine"}),
        ("resnet50", {"stem": "imagenet"}),
        ("shufflenet", {"stem": "imagenet"}),
    ],
)
def test_every_family_computes_what_the_network_does(
    trained_small, network_logits, relative_error, digits, name, options, dtype
):
    trained = trained_small(name, (0.5, 1.0), dtype, **options)
    session = onnxruntime.InferenceSession(onnx_model(Source(trained, (0.5, 1.0))).SerializeToString())
    for count in (1, 5):
        colours, _ = digits(count)
        normalised = ((colours / 255 - trained.input.mean) / trained.input.stddev).astype(np.float32)
        given = colours if dtype == "uint8" else normalised
        for width in (0.5, 1.0):
            expected = network_logits(trained, normalised, width)
            assert relative_error(logits_of(session, given, width), expected) < 1e-5


def test_the_runtime_switches_widths_in_one_session(runtime, trained, network_logits, relative_error):
    for width in (*WIDTHS, *WIDTHS):
        logits = runtime.predict(trained.images[:3], width=width)
        assert relative_error(logits, network_logits(trained, trained.images[:3], width)) < 1e-5
    # One session, whose name tells device and threads; the widths are no sessions of their own.
    sessions = [value for value in vars(runtime._programs).values() if isinstance(value, onnxruntime.InferenceSession)]
    assert len(sessions) == 1
    assert runtime._programs.device().startswith("onnxruntime:")


def test_kernels_are_in_the_file_once(model, trained):
    """Each at its widest, whatever else is there is small: biases, scales and constants."""
    source = Source(trained, WIDTHS)
    kernels = {name: tensor for name, tensor in source.tensors(1.0).items() if tensor.ndim > 1}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert sum(len(tensor.shape) > 1 and tensor.size > 100 for tensor in stored.values()) == len(kernels)
    for name, kernel in kernels.items():
        as_stored = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
        np.testing.assert_array_equal(stored[name], as_stored)
    assert not [node for node in operators(model.graph) if node.op_type == "Constant"]


def test_images_are_transposed_once_for_all_widths(model):
    assert [node.op_type for node in operators(model.graph)].count("Transpose") == 1
    assert [node.op_type for node in operators(model.graph)].count("Conv") == len(WIDTHS) * 10
    # Normalisation is in kernels and biases.
    assert {"Add", "Sub"} & {node.op_type for node in operators(model.graph)} <= {"Add"}


def test_another_width_stops_in_a_node_that_says_so(bundle, runtime, trained):
    session = onnxruntime.InferenceSession(bundle / FILE)
    with pytest.raises(Exception, match="width_is_none_of_this_network"):
        logits_of(session, trained.images[:1], 0.7)
    with pytest.raises(UserError, match=r"width=0.7 is not one of this bundle's widths"):
        runtime.predict(trained.images[:1], width=0.7)


def external(model, outside):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(outside))


def other_widths(model, _):
    next(entry for entry in model.metadata_props if entry.key == "widths").value = "0.35,0.5"


def fixed_batch(model, _):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (external, "model.onnx refers to data outside of itself"),
        (other_widths, "model.onnx has the widths 0.35,0.5, the manifest says 0.35,0.5,1"),
        (fixed_batch, "model.onnx (takes other inputs than the manifest says|cannot be loaded)"),
    ],
)
def test_what_does_not_fit_the_manifest_is_refused(bundle, forged, tmp_path, alter, message):
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(4096))

    def change(content):
        model = onnx.load_from_string(content)
        alter(model, outside)
        return model.SerializeToString()

    with pytest.raises(UserError, match=message):
        SlimmableRuntime.load(forged(bundle, FILE, change), backend="onnxruntime")


def test_a_file_that_was_made_for_other_images_or_classes_is_refused(bundle, forged):
    target = forged(bundle, FILE, lambda content: content)
    manifest = read_manifest(target)
    larger = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, height=32, width=32))
    for other, message in [
        (larger, "takes other inputs than the manifest says"),
        (
            dataclasses.replace(manifest, num_classes=4, outputs={"logits": TensorEntry((4,), "float32")}),
            "puts out something else than 4 logits",
        ),
    ]:
        write_manifest(target, other)
        with pytest.raises(UserError, match=rf"model.onnx {message}"):
            SlimmableRuntime.load(target, backend="onnxruntime")


def test_damage_under_true_checksums_is_refused_or_computes(bundle, forged, trained, capfd):
    """Whatever bytes change, no exception but a UserError."""
    rng, refused = np.random.default_rng(0), 0

    def damage(content):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = int(rng.integers(256))
        return bytes(damaged[: int(rng.integers(len(damaged) // 2, 2 * len(damaged)))])

    for _ in range(60):
        try:
            runtime = SlimmableRuntime.load(forged(bundle, FILE, damage), backend="onnxruntime")
            assert runtime.predict(trained.images[:1], width=0.5).shape == (1, 5)
        except UserError:
            refused += 1
    assert refused > 20
    assert capfd.readouterr() == ("", "")
