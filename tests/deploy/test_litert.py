"""LiteRT files and the back end that runs them, against the networks as they were trained."""

import dataclasses
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import flatbuffers
import jax
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax import SlimmableRuntime, UserError
from slimjax.deploy.bundle import TensorEntry, read_manifest, write_manifest
from slimjax.deploy.exporting import export_bundle
from slimjax.deploy.formats import write_format
from slimjax.deploy.source import Source
from slimjax.nn.layers import SlimmableDense
from slimjax.training.progress import Progress

WIDTHS = (0.35, 0.5, 1.0)
PROGRAMS = {"litert": 1e-5, "litert_float16": 2e-3, "litert_int8": 0.3}
BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
OF_ALL_FAMILIES = {"CONV_2D", "FULLY_CONNECTED", "SUM"}
ALLOWED = OF_ALL_FAMILIES | {
    "DEPTHWISE_CONV_2D",
    "PAD",
    "PADV2",
    "ADD",
    "RELU",
    "CONCATENATION",
    "RESHAPE",
    "TRANSPOSE",
}
POOLING = {"MAX_POOL_2D", "AVERAGE_POOL_2D"}
CONVERSION = {"DEQUANTIZE", "QUANTIZE"}


@pytest.fixture(scope="module")
def trained(trained_small):
    return trained_small("mobilenet_v2", WIDTHS)


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "bundle"
    export_bundle(trained, path, WIDTHS, Progress(enabled=False), ("litert",))
    return path


@pytest.fixture(scope="module")
def logits(trained, network_logits):
    """What the network computes at every width for its images."""
    return {width: network_logits(trained, trained.images, width) for width in WIDTHS}


def operators(content):
    """The names of a file's operators, signature by signature; custom ones by their own names."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    codes = [
        code.customCode or BUILTIN[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes
    ]
    return [[codes[operator.opcodeIndex] for operator in graph.operators] for graph in model.subgraphs]


@pytest.mark.parametrize("program", PROGRAMS)
def test_predictions_are_the_networks(bundle, trained, logits, relative_error, program):
    runtime = SlimmableRuntime.load(bundle, backend="litert", program=program, threads=1)
    for width in WIDTHS:
        batch = runtime.predict(trained.images, width=width)
        assert relative_error(batch, logits[width]) < PROGRAMS[program]
        np.testing.assert_array_equal(runtime.predict(trained.images[3:4], width=width), batch[3:4])


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet50", "shufflenet"])
def test_all_families_are_made_of_built_in_operators(
    trained_small, tmp_path, network_logits, relative_error, capfd, name
):
    trained = trained_small(name, (0.5, 1.0), stem="imagenet")
    source = Source(trained, (0.5, 1.0))
    for written in write_format("litert", source, tmp_path):
        for width in source.widths:
            expected = network_logits(trained, trained.images, width)
            assert relative_error(written.run(width, trained.images), expected) < PROGRAMS[written.name]
        for graph in operators((tmp_path / written.files[0.5]).read_bytes()):
            assert set(graph) <= ALLOWED | POOLING | CONVERSION
            assert set(graph) >= OF_ALL_FAMILIES
            convolutions, depthwise = graph.count("CONV_2D"), graph.count("DEPTHWISE_CONV_2D")
            # A grouped convolution is one, too; activations are in what goes before them.
            assert (convolutions, depthwise) == {
                "mobilenet_v1": (3, 2),
                "mobilenet_v2": (7, 3),
                "resnet50": (8, 0),
                "shufflenet": (5, 2),
            }[name]
            assert graph.count("RELU") == {"shufflenet": 1}.get(name, 0)
            assert POOLING & set(graph) == {"resnet50": {"MAX_POOL_2D"}, "shufflenet": POOLING}.get(name, set())
    # The converter has a lot to say.
    assert capfd.readouterr() == ("", "")


def test_a_file_has_a_signature_for_each_width(bundle):
    for name in ("float32", "float16", "int8"):
        interpreter = Interpreter(model_path=str(bundle / "litert" / f"{name}.tflite"))
        signature = {"inputs": ["images"], "outputs": ["logits"]}
        assert interpreter.get_signature_list() == dict.fromkeys(("width_0.35", "width_0.5", "width_1"), signature)
        for key in interpreter.get_signature_list():
            runner = interpreter.get_signature_runner(key)
            ((images,), (logits,)) = runner.get_input_details().values(), runner.get_output_details().values()
            assert (images["shape"].tolist(), images["dtype"]) == ([1, 16, 16, 3], np.float32)
            assert (logits["shape"].tolist(), logits["dtype"]) == ([1, 5], np.float32)


def test_smaller_types_make_smaller_files(bundle):
    def bytes_of_constants(name):
        content = (bundle / "litert" / f"{name}.tflite").read_bytes()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        return sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)

    whole = bytes_of_constants("float32")
    assert 0.49 < bytes_of_constants("float16") / whole < 0.52
    # Biases have 32 bits, and small networks many of them.
    assert 0.25 < bytes_of_constants("int8") / whole < 0.35


def test_normalisation_can_be_baked_in(trained_small, digits, tmp_path, logits, relative_error):
    export_bundle(trained_small("mobilenet_v2", WIDTHS, "uint8"), tmp_path / "b", WIDTHS, Progress(False), ("litert",))
    for program, tolerance in PROGRAMS.items():
        runtime = SlimmableRuntime.load(tmp_path / "b", backend="litert", program=program)
        assert relative_error(runtime.predict(digits(16)[0], width=0.5), logits[0.5]) < tolerance
    with pytest.raises(UserError, match="images are float32, this bundle takes uint8"):
        runtime.predict(np.zeros((1, 16, 16, 3), np.float32))


def classifier_inputs(trained, width):
    """What the classifier takes for a network's images [count, features]."""

    @jax.jit
    def features(variables, images):
        taken = []

        def watch(call, arguments, options, context):
            taken.extend(arguments[:1] if isinstance(context.module, SlimmableDense) else ())
            return call(*arguments, **options)

        with nn.intercept_methods(watch):
            trained.model.apply(variables, images, width=width)
        return taken[0]

    return np.asarray(features(trained.variables, trained.images))


def with_readout(trained, labels):
    """The network with the classifier that fits its features, at all widths together, to the labels best."""
    features = [classifier_inputs(trained, width) for width in WIDTHS]
    inputs = np.concatenate([np.concatenate(features), np.ones((len(labels) * len(WIDTHS), 1))], 1)
    targets = np.tile(np.eye(5)[labels], (len(WIDTHS), 1))
    solution = np.linalg.solve(inputs.T @ inputs + 0.01 * np.eye(inputs.shape[1]), inputs.T @ targets)
    own = flatten_dict(trained.variables)
    own["params", "classifier", "kernel"] = solution[:-1].astype(np.float32)
    own["params", "classifier", "bias"] = solution[-1].astype(np.float32)
    return dataclasses.replace(trained, variables=unflatten_dict(own))


def test_int8_predicts_the_same_digits(trained_small, digits, tmp_path, network_logits):
    labels = digits(300)[1]
    trained = with_readout(trained_small("mobilenet_v2", WIDTHS, count=300), labels)
    # Calibrated on the first 32 of these.
    shown = dataclasses.replace(trained, images=trained.images[:64])
    *_, int8 = write_format("litert", Source(shown, WIDTHS), tmp_path)
    unseen = trained.images[32:]
    for width in WIDTHS:
        expected = network_logits(trained, unseen, width).argmax(-1)
        assert np.mean(expected == labels[32:]) > 0.9
        assert np.mean(int8.run(width, unseen).argmax(-1) == expected) > 0.95


def test_int8_is_calibrated_on_no_more_than_half_of_what_it_is_compared_on(trained_small):
    from slimjax.deploy.formats.litert import calibration_images

    for count, expected in [(100, 32), (64, 32), (16, 8), (1, 1)]:
        source = Source(trained_small("mobilenet_v1", (1.0,), "uint8", count), (1.0,))
        images = calibration_images(source)
        assert (len(images), images.dtype) == (expected, np.uint8)


def test_threads_share_a_runtime(bundle, trained):
    runtime = SlimmableRuntime.load(bundle, backend="litert", threads=2)
    expected = {width: runtime.predict(trained.images, width=width) for width in WIDTHS}
    calls = [(width, index) for index in range(16) for width in WIDTHS]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda call: runtime.predict(trained.images[call[1]][None], width=call[0]), calls)
        for (width, index), logits in zip(calls, found, strict=True):
            np.testing.assert_array_equal(logits[0], expected[width][index])


def test_latencies_are_filed_by_program_and_threads(bundle):
    load = partial(SlimmableRuntime.load, bundle, backend="litert")
    loaded = [load(threads=1), load(threads=2), load(program="litert_int8", threads=1)]
    devices = [runtime._programs.device() for runtime in loaded]
    assert len(set(devices)) == 3
    assert devices[0].startswith("litert:litert:")
    assert devices[0].endswith(" x1")
    assert load()._programs.device().endswith(tuple(f" x{threads}" for threads in (1, 2, 3, 4)))


ELSEWHERE = """
import sys
sys.modules["flax"] = sys.modules["tensorflow"] = sys.modules["slimjax.models"] = None
import numpy as np
from slimjax import SlimmableRuntime
runtime = SlimmableRuntime.load(sys.argv[1], backend="litert")
print(runtime.predict(np.ones((2, 16, 16, 3), np.float32), width=0.5).shape)
"""


def test_it_runs_quietly_where_neither_flax_nor_tensorflow_are(bundle):
    run = subprocess.run([sys.executable, "-c", ELSEWHERE, bundle], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("(2, 5)\n", "")


FILE = "litert/float32.tflite"


def repacked(change):
    """Makes another file by changing the last signature, all else well-formed."""

    def forge(content):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        change(model.signatureDefs[-1])
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return forge


FORGED = {
    "empty": (lambda content: b"", "cannot be read as a LiteRT program"),
    "something else": (lambda content: b"this is no network at all", "cannot be read as a LiteRT program"),
    "truncated": (lambda content: content[: len(content) // 2], "cannot be read as a LiteRT program"),
    "almost all of it": (lambda content: content[:-16], "cannot be read as a LiteRT program"),
    "a root beyond the end": (lambda content: struct.pack("<I", 24) + b"TFL3", "cannot be read as a LiteRT program"),
    "another signature": (
        lambda content: content.replace(b"width_0.5", b"width_0.6"),
        "has the signatures width_0.35, width_0.6, width_1; the manifest's widths call for width_0.35, width_0.5",
    ),
    "a subgraph that is not there": (
        repacked(lambda signature: setattr(signature, "subgraphIndex", 9)),
        "has a signature of a subgraph that it does not have",
    ),
    "an output that is not there": (
        repacked(lambda signature: setattr(signature.outputs[0], "tensorIndex", 10**6)),
        "cannot be read as a LiteRT program (Invalid tensor index 1000000",
    ),
    "another tensor as the output": (
        repacked(lambda signature: setattr(signature.outputs[0], "tensorIndex", signature.inputs[0].tensorIndex)),
        "float32.tflite has logits [1, 16, 16, 3] float32 where the manifest says logits [1, 5] float32",
    ),
    "another input": (
        lambda content: content.replace(b"images", b"colour"),
        "float32.tflite has colour [1, 16, 16, 3]",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_is_refused_by_name(bundle, forged, capfd, name):
    change, message = FORGED[name]
    with pytest.raises(UserError) as refused:
        SlimmableRuntime.load(forged(bundle, FILE, change), backend="litert")
    assert message in str(refused.value)
    assert "float32.tflite" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_a_file_that_was_made_for_other_images_or_classes_is_refused(bundle, forged):
    target = forged(bundle, FILE, lambda content: content)
    manifest = read_manifest(target)
    larger = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, height=32, width=32))
    for other, message in [
        (larger, r"has images \[1, 16, 16, 3\] float32 where the manifest says images \[1, 32, 32, 3\] float32"),
        (
            dataclasses.replace(manifest, num_classes=4, outputs={"logits": TensorEntry((4,), "float32")}),
            r"has logits \[1, 5\] float32 where the manifest says logits",
        ),
    ]:
        write_manifest(target, other)
        with pytest.raises(UserError, match=rf"float32.tflite {message}"):
            SlimmableRuntime.load(target, backend="litert")


def test_what_the_interpreter_cannot_run_is_told_in_one_line(bundle, trained, monkeypatch):
    runtime = SlimmableRuntime.load(bundle, backend="litert")

    def fail(**images):
        raise RuntimeError("Node number 3 (CONV_2D)\nfailed to invoke.")

    monkeypatch.setitem(runtime._programs._runners, 0.5, fail)
    with pytest.raises(UserError, match=r"float32.tflite: width 0.5 cannot be run \(Node number 3 \(CONV_2D\) failed"):
        runtime.predict(trained.images, width=0.5)
    assert np.isfinite(runtime.predict(trained.images, width=1.0)).all()
