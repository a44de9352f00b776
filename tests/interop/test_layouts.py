"""Names and shapes of the public layout, without PyTorch: every entry has its place, and what does not fit is named."""

import math
import sys
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from slimjax import MODELS, UserError, create_model, load_torch_checkpoint
from slimjax.interop.assignments import assignments_of
from slimjax.interop.layouts import LAYOUTS, layers_by_block, layouts_of
from slimjax.interop.torch_checkpoints import num_classes_in, variables_of
from slimjax.models import ShuffleNet
from slimjax.models.mobilenet_v2 import InvertedStage
from slimjax.models.network import Stage
from slimjax.nn.tracing import abstract_variables


@dataclass(frozen=True)
class Convolution:
    """What a checkpoint has of a convolution and its batch norm; of each group, where modules have a G in their names.

    Attributes:
      kernel: the kernel's module.
      shape: of the kernel, in PyTorch's order: outputs, inputs, height, width.
      norm: the batch norm's module.
      features: of the batch norm of every width; one number if there is one batch norm only.
    """

    kernel: str
    shape: tuple[int, int, int, int]
    norm: str
    features: tuple[int, ...] | int

    def groups(self):
        """The modules of every group."""
        groups = "012" if "_G" in self.kernel else "0"
        return [(self.kernel.replace("_G", f"_{g}"), self.norm.replace("_G", f"_{g}")) for g in groups]

    def norms(self, layer, module):
        """Key of every batch norm in a layer's variables, its module in the checkpoint and its features."""
        if isinstance(self.features, int):
            return [("shared" if layer == "tail" else "switch_0", module, self.features)]
        return [(f"switch_{k}", f"{module}.bn.{k}", count) for k, count in enumerate(self.features)]


# One to three blocks of every layout with 7 classes, the slimmable ones at the widths .5 and 1.0, all spelt out.
LAYERS = {
    "mobilenet_v1": {
        "stem": Convolution("features.0.0", (32, 3, 3, 3), "features.0.1", (16, 32)),
        "block_1_depthwise": Convolution("features.1.body.0", (32, 1, 3, 3), "features.1.body.1", (16, 32)),
        "block_1_pointwise": Convolution("features.1.body.3", (64, 32, 1, 1), "features.1.body.4", (32, 64)),
    },
    # A block that does not expand, one that does, and the plain tail.
    "mobilenet_v2": {
        "stem": Convolution("features.0.0", (32, 3, 3, 3), "features.0.1", (16, 32)),
        "block_1/depthwise": Convolution("features.1.body.0", (32, 1, 3, 3), "features.1.body.1", (16, 32)),
        "block_1/project": Convolution("features.1.body.3", (16, 32, 1, 1), "features.1.body.4", (8, 16)),
        "block_2/expand": Convolution("features.2.body.0", (96, 16, 1, 1), "features.2.body.1", (48, 96)),
        "block_2/depthwise": Convolution("features.2.body.3", (96, 1, 3, 3), "features.2.body.4", (48, 96)),
        "block_2/project": Convolution("features.2.body.6", (24, 96, 1, 1), "features.2.body.7", (16, 24)),
        "tail": Convolution("features.3.0", (1280, 24, 1, 1), "features.3.1", 1280),
    },
    # Two blocks of the first stage and one of the second: shortcuts in the first and the third.
    "resnet": {
        "stem": Convolution("features.0.0", (16, 3, 3, 3), "features.0.1", (8, 16)),
        "block_1/reduce": Convolution("features.1.body.0", (16, 16, 1, 1), "features.1.body.1", (8, 16)),
        "block_1/spatial": Convolution("features.1.body.3", (16, 16, 3, 3), "features.1.body.4", (8, 16)),
        "block_1/expand": Convolution("features.1.body.6", (64, 16, 1, 1), "features.1.body.7", (32, 64)),
        "block_1/shortcut": Convolution("features.1.shortcut.0", (64, 16, 1, 1), "features.1.shortcut.1", (32, 64)),
        "block_2/reduce": Convolution("features.2.body.0", (16, 64, 1, 1), "features.2.body.1", (8, 16)),
        "block_2/spatial": Convolution("features.2.body.3", (16, 16, 3, 3), "features.2.body.4", (8, 16)),
        "block_2/expand": Convolution("features.2.body.6", (64, 16, 1, 1), "features.2.body.7", (32, 64)),
        "block_3/reduce": Convolution("features.3.body.0", (32, 64, 1, 1), "features.3.body.1", (16, 32)),
        "block_3/spatial": Convolution("features.3.body.3", (32, 32, 3, 3), "features.3.body.4", (16, 32)),
        "block_3/expand": Convolution("features.3.body.6", (128, 32, 1, 1), "features.3.body.7", (64, 128)),
        "block_3/shortcut": Convolution("features.3.shortcut.0", (128, 64, 1, 1), "features.3.shortcut.1", (64, 128)),
    },
    # The first block takes its whole input in every group, and adds 72 channels to the 24 that it is given.
    "shufflenet": {
        "stem": Convolution("head_G.0", (8, 3, 3, 3), "head_G.1", (4, 8)),
        "block_1/reduce": Convolution("features.0.a_G.0", (8, 24, 1, 1), "features.0.a_G.1", (4, 8)),
        "block_1/depthwise": Convolution("features.0.b.1", (24, 1, 3, 3), "features.0.b.2", (12, 24)),
        "block_1/expand": Convolution("features.0.c_G.0", (24, 8, 1, 1), "features.0.c_G.1", (12, 24)),
        "block_2/reduce": Convolution("features.1.a_G.0", (8, 32, 1, 1), "features.1.a_G.1", (4, 8)),
        "block_2/depthwise": Convolution("features.1.b.1", (24, 1, 3, 3), "features.1.b.2", (12, 24)),
        "block_2/expand": Convolution("features.1.c_G.0", (32, 8, 1, 1), "features.1.c_G.1", (16, 32)),
    },
    "torchvision mobilenet_v2": {
        "stem": Convolution("features.0.0", (32, 3, 3, 3), "features.0.1", 32),
        "block_1/depthwise": Convolution("features.1.conv.0.0", (32, 1, 3, 3), "features.1.conv.0.1", 32),
        "block_1/project": Convolution("features.1.conv.1", (16, 32, 1, 1), "features.1.conv.2", 16),
        "block_2/expand": Convolution("features.2.conv.0.0", (96, 16, 1, 1), "features.2.conv.0.1", 96),
        "block_2/depthwise": Convolution("features.2.conv.1.0", (96, 1, 3, 3), "features.2.conv.1.1", 96),
        "block_2/project": Convolution("features.2.conv.2", (24, 96, 1, 1), "features.2.conv.3", 24),
        "tail": Convolution("features.3.0", (1280, 24, 1, 1), "features.3.1", 1280),
    },
    "torchvision resnet": {
        "stem": Convolution("conv1", (16, 3, 3, 3), "bn1", 16),
        "block_1/reduce": Convolution("layer1.0.conv1", (16, 16, 1, 1), "layer1.0.bn1", 16),
        "block_1/spatial": Convolution("layer1.0.conv2", (16, 16, 3, 3), "layer1.0.bn2", 16),
        "block_1/expand": Convolution("layer1.0.conv3", (64, 16, 1, 1), "layer1.0.bn3", 64),
        "block_1/shortcut": Convolution("layer1.0.downsample.0", (64, 16, 1, 1), "layer1.0.downsample.1", 64),
        "block_2/reduce": Convolution("layer1.1.conv1", (16, 64, 1, 1), "layer1.1.bn1", 16),
        "block_2/spatial": Convolution("layer1.1.conv2", (16, 16, 3, 3), "layer1.1.bn2", 16),
        "block_2/expand": Convolution("layer1.1.conv3", (64, 16, 1, 1), "layer1.1.bn3", 64),
        "block_3/reduce": Convolution("layer2.0.conv1", (32, 64, 1, 1), "layer2.0.bn1", 32),
        "block_3/spatial": Convolution("layer2.0.conv2", (32, 32, 3, 3), "layer2.0.bn2", 32),
        "block_3/expand": Convolution("layer2.0.conv3", (128, 32, 1, 1), "layer2.0.bn3", 128),
        "block_3/shortcut": Convolution("layer2.0.downsample.0", (128, 64, 1, 1), "layer2.0.downsample.1", 128),
    },
}
CLASSIFIERS = {
    "mobilenet_v1": ("classifier.0", 64),
    "mobilenet_v2": ("classifier.0", 1280),
    "resnet": ("classifier.0", 128),
    "shufflenet": ("classifier.0", 96),
    "torchvision mobilenet_v2": ("classifier.1", 1280),
    "torchvision resnet": ("fc", 128),
}
STAGES = {
    "mobilenet_v1": (Stage(64, 1, 1),),
    "mobilenet_v2": (InvertedStage(16, 1, 1, expansion=1), InvertedStage(24, 1, 2)),
    "resnet": (Stage(64, 2, 1), Stage(128, 1, 2)),
    "shufflenet": (Stage(96, 2, 2),),
}
NORM = {
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def entries_of(case):
    """Names and shapes of a small checkpoint's entries."""
    classifier, inputs = CLASSIFIERS[case]
    entries = {f"{classifier}.weight": (7, inputs), f"{classifier}.bias": (7,)}
    for layer, convolution in LAYERS[case].items():
        for kernel, module in convolution.groups():
            entries[f"{kernel}.weight"] = convolution.shape
            for _, norm, features in convolution.norms(layer, module):
                entries |= {f"{norm}.{name}": (features,) for name in NORM.values()}
    return entries


def small(case, **options):
    """The network whose entries are spelt out above."""
    family = case.removeprefix("torchvision ")
    widths = options.pop("widths", (0.5, 1.0) if family == case else (1.0,))
    return create_model(f"{family}_tiny", widths, 7, stages=STAGES[family], **options)


def filled(shapes):
    """Random arrays, of which variances are not negative."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: np.abs(array) if name.endswith("running_var") else array for name, array in arrays.items()}


@pytest.mark.parametrize("case", LAYERS)
def test_the_layout_has_exactly_these_names_and_shapes(case):
    model = small(case)
    layout = layouts_of(model)["torchvision" in case]
    assert {entry: a.entry_shape for a in assignments_of(model, layout) for entry in a.entries} == entries_of(case)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_variable_is_left_out_and_no_entry_is_taken_twice(name):
    for layout in layouts_of(create_model(name, (1.0,), 3)):
        model = create_model(name, (0.5, 1.0) if layout.slimmable else (1.0,), 3)
        taken = [(entry, a.entry_shape) for a in assignments_of(model, layout) for entry in a.entries]
        assert len({entry for entry, _ in taken}) == len(taken)
        leaves = jax.tree.leaves(abstract_variables(model))
        assert sum(math.prod(shape) for _, shape in taken) == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize("case", LAYERS)
def test_every_element_arrives_where_it_belongs(case):
    state, model = filled(entries_of(case)), small(case)
    flat = flatten_dict(variables_of(model, state, "file.pt"), sep="/")
    assert {path: leaf.shape for path, leaf in flat.items()} == {
        path: leaf.shape for path, leaf in flatten_dict(abstract_variables(model), sep="/").items()
    }
    for layer, convolution in LAYERS[case].items():
        kernel = flat[f"params/{layer}/conv/kernel"]
        for group, (module, norm) in enumerate(convolution.groups()):
            outputs = convolution.shape[0]
            of_group = kernel[..., group * outputs : (group + 1) * outputs]
            np.testing.assert_array_equal(of_group, np.einsum("oihw->hwio", state[f"{module}.weight"]))
            for key, entry, features in convolution.norms(layer, norm):
                for (collection, name), suffix in NORM.items():
                    values = flat[f"{collection}/{layer}/bn/{key}/{name}"]
                    of_group = values[group * features : (group + 1) * features]
                    np.testing.assert_array_equal(of_group, state[f"{entry}.{suffix}"])
    classifier, _ = CLASSIFIERS[case]
    np.testing.assert_array_equal(flat["params/classifier/kernel"], state[f"{classifier}.weight"].T)
    np.testing.assert_array_equal(flat["params/classifier/bias"], state[f"{classifier}.bias"])


def test_the_last_group_of_shufflenet_is_the_last_third():
    """Some elements one by one, without the tables' help."""
    state = filled(entries_of("shufflenet"))
    flat = flatten_dict(variables_of(small("shufflenet"), state, "file.pt"), sep="/")
    assert flat["params/stem/conv/kernel"][2, 0, 1, 16] == state["head_2.0.weight"][0, 1, 2, 0]
    assert flat["params/block_1/reduce/conv/kernel"][0, 0, 23, 15] == state["features.0.a_1.0.weight"][7, 23, 0, 0]
    assert flat["params/block_1/depthwise/conv/kernel"][0, 2, 0, 17] == state["features.0.b.1.weight"][17, 0, 0, 2]
    assert flat["params/block_2/expand/conv/kernel"][0, 0, 7, 95] == state["features.1.c_2.0.weight"][31, 7, 0, 0]
    assert flat["params/block_1/expand/bn/switch_0/scale"][12] == state["features.0.c_1.1.bn.0.weight"][0]
    assert flat["batch_stats/block_2/expand/bn/switch_0/var"][47] == state["features.1.c_2.1.bn.0.running_var"][15]
    assert flat["batch_stats/block_2/depthwise/bn/switch_1/mean"][23] == state["features.1.b.2.bn.1.running_mean"][23]


def test_published_shufflenets_have_sixteen_blocks_from_features_0_on():
    blocks = layers_by_block(abstract_variables(create_model("shufflenet", (0.5, 1.0, 2.0), 10))["params"])
    (layout,) = LAYOUTS[ShuffleNet]
    modules = [module for layer in layout.layers(blocks) for module in layer.kernels]
    assert {module.split(".")[0] for module in modules} == {"head_0", "head_1", "head_2", "features"}
    numbers = [int(module.split(".")[1]) for module in modules if module.startswith("features")]
    assert sorted(set(numbers)) == list(range(16))


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
        lambda s: s | {"classifier.0.weight": np.zeros((7, 128)), "classifier.0.bias": np.zeros((7, 1))},
        "2 of another shape: classifier.0.weight (7, 128) in the file and (7, 1280) in the model, classifier.0.bias",
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
    state = change(filled(entries_of("mobilenet_v2")))
    with pytest.raises(UserError) as caught:
        variables_of(small("mobilenet_v2", **options), state, "file.pt")
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.pt")


def test_a_message_names_a_handful():
    state = filled(entries_of("mobilenet_v2"))
    with pytest.raises(UserError, match=r"file.pt is not a checkpoint of MobileNetV1") as caught:
        variables_of(small("mobilenet_v1"), state, "file.pt")
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
