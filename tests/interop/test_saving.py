"""Variables as PyTorch's entries and files, against the reading of them and against networks of PyTorch."""

import os
import stat
import sys
from importlib import util
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax import UserError, create_model, fold_batch_norm, load_torch_checkpoint, save_torch_checkpoint
from slimjax.interop.layouts import LAYOUT_NAMES, layout_of
from slimjax.interop.torch_checkpoints import state_of, variables_of
from slimjax.models.mobilenet_v2 import InvertedStage
from slimjax.models.network import Stage
from slimjax.nn.tracing import abstract_variables

STAGES = {
    "mobilenet_v1": (Stage(32, 1, 1), Stage(64, 1, 2)),
    "mobilenet_v2": (InvertedStage(16, 1, 1, expansion=1), InvertedStage(24, 2, 2)),
    "resnet": (Stage(64, 2, 1), Stage(128, 1, 2)),
    "shufflenet": (Stage(96, 2, 2),),
}
SHARINGS = [
    *((family, {"batch_norm": sharing}) for family in STAGES for sharing in ("switchable", "shared_affine", "shared")),
    ("mobilenet_v2", {"tail_bn": "private"}),
    ("mobilenet_v2", {"tail_bn": "private", "batch_norm": "shared_affine"}),
]
PLAIN = ("mobilenet_v2", "resnet")


def small(family, widths=(0.35, 0.5, 1.0), **options):
    return create_model(f"{family}_tiny", widths, 7, stages=STAGES[family], **options)


def numbered(model):
    """Variables of which no two elements are the same."""
    shapes, first = flatten_dict(abstract_variables(model)), 0
    arrays = {}
    for path, leaf in shapes.items():
        arrays[path] = np.arange(first, first + leaf.size, dtype=np.float32).reshape(leaf.shape)
        first += leaf.size
    assert first < 2**24, "float32 has every whole number up to here"
    return unflatten_dict(arrays)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize(("family", "options"), SHARINGS)
def test_every_variable_comes_back_as_it_was(family, options):
    model = small(family, **options)
    variables = numbered(model)
    state = state_of(model, variables, layout_of(model, "slimmable"))
    assert_same(variables_of(model, state, "state"), variables)


@pytest.mark.parametrize("family", PLAIN)
def test_a_plain_network_comes_back_from_torchvisions_names(family):
    model = small(family, (1.0,))
    state = state_of(model, numbered(model), layout_of(model, "torchvision"))
    assert not [name for name in state if ".bn." in name]
    assert_same(variables_of(model, state, "state"), numbered(model))


def test_entries_of_a_module_follow_each_other_as_in_pytorch():
    model = small("mobilenet_v1", tuple(np.arange(2, 13) / 12))
    state = state_of(model, numbered(model), layout_of(model, "slimmable"))
    entries = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    stem = ["features.0.0.weight", *(f"features.0.1.bn.{k}.{entry}" for k in range(11) for entry in entries)]
    names = list(state)
    assert names[: len(stem)] == stem
    assert names[len(stem)] == "features.1.body.0.weight"
    assert names[-2:] == ["classifier.0.weight", "classifier.0.bias"]


def test_names_of_a_shared_scale_are_those_of_universally_slimmable_networks():
    model = small("mobilenet_v1", batch_norm="shared_affine")
    state = state_of(model, numbered(model), layout_of(model, "slimmable"))
    assert [name for name in state if name.startswith("features.0.1.")] == [
        "features.0.1.weight",
        "features.0.1.bias",
        *(
            f"features.0.1.bn.{k}.{entry}"
            for k in range(3)
            for entry in ("running_mean", "running_var", "num_batches_tracked")
        ),
    ]


def test_what_a_layout_cannot_hold_is_named(tmp_path):
    model = small("mobilenet_v2")
    variables, path = numbered(model), tmp_path / "file.pt"
    folded = fold_batch_norm(model, variables)
    for asked, given, layout, message in [
        (
            model,
            variables,
            "torchvison",
            "layout='torchvison' is none of MobileNetV2's; choose one of slimmable, torch",
        ),
        (
            model,
            variables,
            "torchvision",
            r"plain networks of widths=\(1.0,\), but the model's widths are \(0.35, 0.5,",
        ),
        (small("mobilenet_v1"), variables, "torchvision", "none of MobileNetV1's; choose one of slimmable"),
        (*folded, "slimmable", r"the network is folded \(folding='affine'\)"),
        (small("mobilenet_v2", (0.5, 1.0)), variables, "slimmable", "the variables have .* which the model does not"),
    ]:
        with pytest.raises(UserError, match=message):
            save_torch_checkpoint(asked, given, path, layout)
    assert not list(tmp_path.iterdir())


def test_without_pytorch_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    model = small("mobilenet_v1")
    with pytest.raises(UserError, match=r"writing .*file.pt needs PyTorch.* pip install 'slimjax\[torch\]'"):
        save_torch_checkpoint(model, numbered(model), tmp_path / "file.pt")


def test_the_command_offers_the_layouts_that_there_are():
    spec = util.find_spec("slimjax.export_torch")
    assert f"LAYOUTS = {LAYOUT_NAMES!r}".replace("'", '"') in Path(spec.origin).read_text()


NETWORKS = {
    "mobilenet_v1_tiny": ((0.25, 1.0), lambda n: n.mobilenet_v1((0.25, 1.0)), 16),
    "mobilenet_v2_tiny": ((0.35, 1.0), lambda n: n.mobilenet_v2((0.35, 1.0)), 16),
    "mobilenet_v2_tiny private": ((0.35, 1.0), lambda n: n.mobilenet_v2((0.35, 1.0), private_tail=True), 16),
    "resnet_tiny": ((0.25, 1.0), lambda n: n.resnet((0.25, 1.0), n.RESNET_TINY_STAGES, stem=(16, 3, 1)), 16),
    "shufflenet_tiny": ((0.5, 2.0), lambda n: n.shufflenet((0.5, 2.0), n.SHUFFLE_TINY_STAGES, stem_stride=1), 16),
    "mobilenet_v2 of torchvision": ((1.0,), lambda n: n.torchvision_mobilenet_v2(), 48),
    "resnet50 of torchvision": ((1.0,), lambda n: n.torchvision_resnet50(), 64),
}


def of(networks, name):
    """A model, its PyTorch network as it is built, and pixels."""
    widths, build, size = NETWORKS[name]
    options = {"tail_bn": "private"} if "private" in name else {}
    return create_model(name.split()[0], widths, 7, **options), build(networks), size


def layout_in(name):
    return "torchvision" if "torchvision" in name else "slimmable"


@pytest.mark.torch
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_is_what_pytorch_would_have_saved(networks, tmp_path, name):
    """A network of PyTorch, read, written, and loaded as the existing code does: every entry by its name."""
    torch = networks.torch
    model, network, _ = of(networks, name)
    expected = networks.randomised(network).state_dict()
    wrapped = {"model": {f"module.{entry}": tensor for entry, tensor in expected.items()}}
    torch.save(wrapped, tmp_path / "given.pt")
    save_torch_checkpoint(
        model, load_torch_checkpoint(model, tmp_path / "given.pt"), tmp_path / "back.pt", layout_in(name)
    )
    loaded = torch.load(tmp_path / "back.pt", weights_only=True)
    state = {f"module.{key}": value for key, value in loaded.items()} if "of torchv" in name else loaded["model"]
    assert state.keys() == wrapped["model"].keys()
    for entry, tensor in wrapped["model"].items():
        assert state[entry].dtype == tensor.dtype, entry
        assert state[entry].is_contiguous()
        if entry.endswith("num_batches_tracked"):
            assert state[entry] == 0
        else:
            assert torch.equal(state[entry], tensor), entry


@pytest.mark.torch
@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_gives_the_logits_of_the_network_that_was_saved(networks, tmp_path, random_variables, name):
    torch = networks.torch
    model, network, size = of(networks, name)
    variables = random_variables(model)
    save_torch_checkpoint(model, variables, tmp_path / "file.pt", layout_in(name))
    assert_same(load_torch_checkpoint(model, tmp_path / "file.pt"), variables)
    loaded = torch.load(tmp_path / "file.pt", weights_only=True)
    if layout_in(name) == "torchvision":
        network.load_state_dict(loaded, strict=True)
    else:
        torch.nn.DataParallel(network).load_state_dict(loaded["model"], strict=True)
    network.eval()
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype(np.float32)
    for switch, width in enumerate(model.widths):
        logits = np.asarray(model.apply(variables, images, width=width))
        assert np.ptp(logits, axis=0).max() > 0.01, "images differ"
        scale = np.abs(logits).max()
        error = np.abs(networks.logits_at(network, switch, images) - logits).max() / scale
        print(f"width {width}: {error:.1e} of {scale:.2f}")
        assert error < 1e-4


@pytest.mark.torch
def test_a_file_that_is_there_is_left_alone_and_one_that_fails_leaves_nothing(tmp_path, monkeypatch):
    import torch

    model = small("mobilenet_v1")
    variables, path = numbered(model), tmp_path / "file.pt"
    save_torch_checkpoint(model, variables, path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(UserError, match=r"file.pt is there already; give a new file"):
        save_torch_checkpoint(model, variables, path)
    os.symlink("nowhere", tmp_path / "link.pt")
    with pytest.raises(UserError, match=r"link.pt is there already"):
        save_torch_checkpoint(model, variables, tmp_path / "link.pt")
    with pytest.raises(UserError, match=r"none/file.pt cannot be written \(No such file or directory\)"):
        save_torch_checkpoint(model, variables, tmp_path / "none" / "file.pt")

    def failing(content, place):
        Path(place).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore")

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(UserError, match=r"new.pt cannot be written \(PytorchStreamWriter failed") as caught:
        save_torch_checkpoint(model, variables, tmp_path / "new.pt")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["file.pt", "link.pt"]
