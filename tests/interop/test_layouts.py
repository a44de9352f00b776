"""Names and shapes of the public layout, without PyTorch: every entry has its place, and what does not fit is named."""

import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from slimjax import MODELS, UserError, create_model, load_torch_checkpoint
from slimjax.interop.assignments import assignments_of
from slimjax.interop.layouts import layouts_of
from slimjax.interop.torch_checkpoints import num_classes_in, variables_of
from slimjax.nn.tracing import abstract_variables


def norm_entries(module, features):
    return {f"{module}.{name}": (features,) for name in ("weight", "bias", "running_mean", "running_var")}


def private_norm(module, *features):
    return {
        name: shape
        for k, count in enumerate(features)
        for name, shape in norm_entries(f"{module}.bn.{k}", count).items()
    }


def first_blocks_of_v1():
    """The entries of a MobileNet v1 with one block, widths .5 and 1.0 and 7 classes, spelt out."""
    return {
        "features.0.0.weight": (32, 3, 3, 3),
        **private_norm("features.0.1", 16, 32),
        "features.1.body.0.weight": (32, 1, 3, 3),
        **private_norm("features.1.body.1", 16, 32),
        "features.1.body.3.weight": (64, 32, 1, 1),
        **private_norm("features.1.body.4", 32, 64),
        "classifier.0.weight": (7, 64),
        "classifier.0.bias": (7,),
    }


def first_blocks_of_v2():
    """The same of a MobileNet v2 with two blocks: one that does not expand, one that does, and the plain tail."""
    return {
        "features.0.0.weight": (32, 3, 3, 3),
        **private_norm("features.0.1", 16, 32),
        "features.1.body.0.weight": (32, 1, 3, 3),
        **private_norm("features.1.body.1", 16, 32),
        "features.1.body.3.weight": (16, 32, 1, 1),
        **private_norm("features.1.body.4", 8, 16),
        "features.2.body.0.weight": (96, 16, 1, 1),
        **private_norm("features.2.body.1", 48, 96),
        "features.2.body.3.weight": (96, 1, 3, 3),
        **private_norm("features.2.body.4", 48, 96),
        "features.2.body.6.weight": (24, 96, 1, 1),
        **private_norm("features.2.body.7", 16, 24),
        "features.3.0.weight": (1280, 24, 1, 1),
        **norm_entries("features.3.1", 1280),
        "classifier.0.weight": (7, 1280),
        "classifier.0.bias": (7,),
    }


def small(name, **options):
    """The network whose entries are spelt out above."""
    from slimjax.models import mobilenet_v1, mobilenet_v2

    stages = {
        "mobilenet_v1_tiny": (mobilenet_v1.Stage(64, 1, 1),),
        "mobilenet_v2_tiny": (mobilenet_v2.InvertedStage(16, 1, 1, expansion=1), mobilenet_v2.InvertedStage(24, 1, 2)),
    }
    return create_model(name, options.pop("widths", (0.5, 1.0)), 7, stages=stages[name], **options)


ENTRIES = {"mobilenet_v1_tiny": first_blocks_of_v1, "mobilenet_v2_tiny": first_blocks_of_v2}


def filled(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_layout_has_exactly_these_names_and_shapes(name):
    model = small(name)
    assignments = assignments_of(model, layouts_of(model)[0])
    assert {entry: a.entry_shape for a in assignments for entry in a.entries} == ENTRIES[name]()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_is_filled_from_entries_of_its_layouts(name):
    for layout in layouts_of(create_model(name, (1.0,), 3)):
        model = create_model(name, (0.5, 1.0) if layout.slimmable else (1.0,), 3)
        shapes = {entry: a.entry_shape for a in assignments_of(model, layout) for entry in a.entries}
        state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        variables = variables_of(model, state, "file.pt")
        expected = abstract_variables(model)
        assert jax.tree.structure(variables) == jax.tree.structure(expected)
        assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, expected)


def test_every_element_arrives_where_it_belongs():
    state = filled(first_blocks_of_v2())
    flat = flatten_dict(variables_of(small("mobilenet_v2_tiny"), state, "file.pt"), sep="/")
    kernel = flat["params/block_2/project/conv/kernel"]
    assert kernel[0, 0, 95, 23] == state["features.2.body.6.weight"][23, 95, 0, 0]
    assert flat["params/stem/conv/kernel"][0, 2, 1, 31] == state["features.0.0.weight"][31, 1, 0, 2]
    assert flat["params/classifier/kernel"][1279, 6] == state["classifier.0.weight"][6, 1279]
    for key, entry in {"params/{}/scale": "weight", "params/{}/bias": "bias"}.items():
        np.testing.assert_array_equal(
            flat[key.format("block_1/depthwise/bn/switch_0")], state[f"features.1.body.1.bn.0.{entry}"]
        )
    for key, entry in {"mean": "running_mean", "var": "running_var"}.items():
        np.testing.assert_array_equal(flat[f"batch_stats/tail/bn/shared/{key}"], state[f"features.3.1.{entry}"])


def without(state, *names):
    return {name: array for name, array in state.items() if name not in names}


def renamed(state, old, new):
    return {name.replace(old, new): array for name, array in state.items()}


MISFITS = [
    (
        {},
        lambda s: without(s, "features.0.0.weight", "features.2.body.4.bn.1.running_var"),
        "2 missing: features.0.0.weight, features.2.body.4.bn.1.running_var. Build",
    ),
    ({}, lambda s: s | {"extra.weight": np.zeros(3)}, "1 unexpected: extra.weight"),
    ({}, lambda s: s | {"extra.num_batches_tracked": np.zeros(())}, "1 unexpected: extra.num_batches_tracked"),
    (
        {},
        lambda s: s | {"classifier.0.weight": np.zeros((10, 1280)), "classifier.0.bias": np.zeros(10)},
        "2 of another shape: classifier.0.weight (10, 1280) in the file and (7, 1280) in the model, classifier.0.bias",
    ),
    ({}, lambda s: renamed(s, "features.2", "features.9"), "27 missing: features.2.body.0.weight"),
    ({"widths": (0.5, 0.75, 1.0)}, dict, "batch norms of 2 widths, but the model has 3: (0.5, 0.75, 1.0)"),
    (
        {"widths": (0.25, 1.0)},
        dict,
        "features.0.1.bn.0.weight (16,) in the file and (8,) in the model",
    ),
    (
        {"tail_bn": "private"},
        dict,
        "features.3.1 is one for all widths, the model's tail_bn='private' has it otherwise",
    ),
    ({"batch_norm": "shared"}, dict, "build the model with batch_norm='switchable'"),
    ({"batch_norm": "shared_affine"}, dict, "build the model with batch_norm='switchable'"),
    (
        {},
        lambda s: renamed(without(s, *(n for n in s if ".bn.0." in n)), ".bn.1", ""),
        "build the model with batch_norm='shared'",
    ),
    ({}, lambda s: renamed(s, "features.3.1", "features.3.1.bn.0"), "build the model with tail_bn='private'"),
    (
        {},
        lambda s: renamed(s, "features.1.body.0", "features.1.conv.0.0"),
        "a plain network of one width, but the model's widths are (0.5, 1.0); load it into a model of widths=(1.0,)",
    ),
]


@pytest.mark.parametrize(("options", "change", "message"), MISFITS, ids=[message[:40] for _, _, message in MISFITS])
def test_what_does_not_fit_is_named(options, change, message):
    state = change(filled(first_blocks_of_v2()))
    with pytest.raises(UserError) as caught:
        variables_of(small("mobilenet_v2_tiny", **options), state, "file.pt")
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.pt")


def test_a_message_names_a_handful():
    state = filled(first_blocks_of_v2())
    with pytest.raises(UserError, match=r"file.pt is not a checkpoint of MobileNetV1") as caught:
        variables_of(small("mobilenet_v1_tiny"), state, "file.pt")
    assert str(caught.value).count("features.2") <= 4
    assert len(str(caught.value)) < 1000


def test_the_number_of_classes_is_the_files():
    assert num_classes_in({"classifier.0.bias": np.zeros(10)}, "file.pt") == 10
    assert num_classes_in({"classifier.1.bias": np.zeros(1000)}, "file.pt") == 1000
    with pytest.raises(UserError, match=r"file.pt has no classifier: none of classifier.0.bias, classifier.1.bias"):
        num_classes_in({"features.0.0.weight": np.zeros(3)}, "file.pt")


def test_without_pytorch_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "file.pt"
    model = create_model("mobilenet_v1_tiny", (1.0,), 7)
    with pytest.raises(UserError, match="there is no such file"):
        load_torch_checkpoint(model, path)
    path.touch()
    with pytest.raises(UserError, match=r"pip install 'slimjax\[torch\]'"):
        load_torch_checkpoint(model, path)
