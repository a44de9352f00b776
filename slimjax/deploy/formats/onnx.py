"""ONNX: one file of all widths, whose input `width` switches between them, over weights that are stored once.

A branch for each width slices the widest kernels and multiplies them by the width's scales. Runtimes do so once, when
they load the file, so that a call takes what a network of that width alone takes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.export
import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from slimjax.deploy.backends.onnxruntime import IMAGES, LOGITS, WIDTH, WIDTHS, OnnxRuntimePrograms
from slimjax.deploy.bundle import width_key
from slimjax.deploy.formats import Written
from slimjax.deploy.formats.onnx_graph import NCHW, OPSET, Array, Graph, Initialisers
from slimjax.deploy.formats.onnx_translation import translate
from slimjax.deploy.source import Source
from slimjax.versions import package_versions

FILE = "onnx/model.onnx"

# The oldest that goes with the opset.
_IR_VERSION = 8


def write(source: Source, bundle: Path) -> Iterator[Written]:
    """See `slimjax.deploy.formats`."""
    model = onnx_model(source)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    (bundle / FILE).parent.mkdir()
    (bundle / FILE).write_bytes(content)
    dtype, classes = source.images.dtype, source.trained.model.num_classes
    run = OnnxRuntimePrograms(bundle / FILE, content, source.widths, source.image_shape, dtype, classes)
    yield Written("onnx", dict.fromkeys(source.widths, FILE), run)


def onnx_model(source: Source) -> ModelProto:
    """The network as a model of two inputs and an output.

    Inputs are `images` [batch, height, width, 3], float32 or uint8 as the bundle's are, and `width` [] float32, which
    has to be one of the widths exactly; with another, a node fails whose name says so. The output is `logits` [batch,
    classes] float32.

    Raises:
      UserError: if the network computes something that has no translation to ONNX.
    """
    initialisers = Initialisers()
    tensors = {name: tensor for width in source.widths for name, tensor in source.tensors(width).items()}
    weights = {name: initialisers.weight(name, tensor) for name, tensor in tensors.items()}
    main = Graph("", initialisers)
    (batch,) = jax.export.symbolic_shape("batch")
    shape = (batch, *source.image_shape)
    # Once for all branches; between them and at their convolutions' sides nothing is transposed.
    images = main.stored_as(Array(IMAGES, shape, (0, 1, 2, 3)), NCHW)
    branches = {width: _branch(source, width, initialisers, weights, images) for width in source.widths}
    _switch(source, branches, _refusal(source, initialisers, images), main)
    inputs = [
        helper.make_tensor_value_info(
            IMAGES, helper.np_dtype_to_tensor_dtype(source.images.dtype), ["batch", *source.image_shape]
        ),
        helper.make_tensor_value_info(WIDTH, TensorProto.FLOAT, []),
    ]
    outputs = [_logits_info(source, LOGITS)]
    graph = helper.make_graph(main.nodes, source.trained.name, inputs, outputs, initialisers.tensors)
    return _described(source, graph)


def _described(source: Source, graph: GraphProto) -> ModelProto:
    keys = ",".join(map(width_key, source.widths))
    entry = source.trained.input
    colours = "colours of 0 to 255" if entry.dtype == "uint8" else "normalised by mean and stddev of the metadata"
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="slimjax",
        producer_version=package_versions()["slimjax"],
        doc_string=f"{source.trained.name} at the widths {keys}: {IMAGES} are NHWC, {colours}; {WIDTH} is one of them.",
    )
    names = {"class_names": ",".join(source.trained.class_names)} if source.trained.class_names else {}
    described = {"model": source.trained.name, WIDTHS: keys, "mean": str(entry.mean), "stddev": str(entry.stddev)}
    helper.set_model_props(model, {**described, **names})
    return model


def _branch(
    source: Source, width: float, initialisers: Initialisers, weights: Mapping[str, Array], images: Array
) -> GraphProto:
    """The network at a width, on weights and images of the graph around it."""
    params, abstract = source.params(width), jax.ShapeDtypeStruct(images.shape, source.images.dtype)
    traced = jax.make_jaxpr(source.forward(width))(params, abstract)
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    arguments = [weights[jax.tree_util.keystr(path, simple=True, separator="/")] for path in paths]
    graph = Graph(f"width_{width_key(width)}/", initialisers)
    (logits,) = translate(graph, traced, [*arguments, images])
    output = graph.stored_as(logits, (0, 1))
    return helper.make_graph(graph.nodes, f"width_{width_key(width)}", [], [_logits_info(source, output.name)])


def _switch(source: Source, branches: Mapping[float, GraphProto], otherwise: GraphProto, main: Graph) -> None:
    """Writes nodes that run the branch of the width that is given: one If within the other, the narrowest outermost."""
    for width, branch in sorted(branches.items(), reverse=True):
        name, is_narrowest = width_key(width), width == min(branches)
        output = LOGITS if is_narrowest else f"logits_from_{name}"
        asked = main.constant(width, np.float32).name
        condition = helper.make_node("Equal", [WIDTH, asked], [f"is_{name}"], f"is_{name}")
        chosen = helper.make_node(
            "If", [f"is_{name}"], [output], f"if_{name}", then_branch=branch, else_branch=otherwise
        )
        if is_narrowest:
            main.nodes += [condition, chosen]
        otherwise = helper.make_graph([condition, chosen], f"from_{name}", [], [_logits_info(source, output)])


def _refusal(source: Source, initialisers: Initialisers, images: Array) -> GraphProto:
    """Looks up a row that is not there, for every image: runtimes stop, naming a node that says what is wrong."""
    graph, classes = Graph("width_is_none_of_this_network/", initialisers), source.trained.model.num_classes
    batch = graph.add("Shape", [images], (1,), (0,), start=0, end=1)
    missing = graph.add("Expand", [initialisers.constant(1, np.int64), batch], images.shape[:1], (0,))
    only_row = initialisers.constant(np.zeros((1, classes), np.float32))
    row = graph.add("Gather", [only_row, missing], (images.shape[0], classes), (0, 1))
    return helper.make_graph(graph.nodes, "no_such_width", [], [_logits_info(source, row.name)])


def _logits_info(source: Source, name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", source.trained.model.num_classes])
