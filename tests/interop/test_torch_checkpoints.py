"""Files that PyTorch wrote, of networks built in the public layouts, against those networks' own logits."""

import os
import pickle
import warnings
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax import UserError, create_model, fold_batch_norm, load_torch_checkpoint

pytestmark = pytest.mark.torch

WIDTHS_V1, WIDTHS_V2, SHUFFLE = (0.25, 0.5, 0.75, 1.0), (0.35, 0.5, 0.75, 1.0), (0.5, 1.0, 2.0)

NETWORKS = {
    "mobilenet_v1_tiny": (WIDTHS_V1, lambda n: n.mobilenet_v1(WIDTHS_V1), 16),
    "mobilenet_v2_tiny": (WIDTHS_V2, lambda n: n.mobilenet_v2(WIDTHS_V2), 16),
    # At .25 the first block has as many outputs as inputs, and yet no residual.
    "mobilenet_v2_tiny at .25": ((0.25, 1.0), lambda n: n.mobilenet_v2((0.25, 1.0)), 16),
    "mobilenet_v2": (WIDTHS_V2, lambda n: n.mobilenet_v2(WIDTHS_V2, n.V2_STAGES, stem_stride=2), 48),
    "resnet_tiny": (WIDTHS_V1, lambda n: n.resnet(WIDTHS_V1, n.RESNET_TINY_STAGES, stem=(16, 3, 1)), 16),
    "resnet50": ((0.25, 1.0), lambda n: n.resnet((0.25, 1.0), n.RESNET50_STAGES), 64),
    "resnet50 of torchvision": ((1.0,), lambda n: n.torchvision_resnet50(), 64),
    "shufflenet_tiny": (SHUFFLE, lambda n: n.shufflenet(SHUFFLE, n.SHUFFLE_TINY_STAGES, stem_stride=1), 16),
    "shufflenet": (SHUFFLE, lambda n: n.shufflenet(SHUFFLE, n.SHUFFLE_STAGES), 64),
    "mobilenet_v2 of torchvision": ((1.0,), lambda n: n.torchvision_mobilenet_v2(), 48),
}
"""By model: widths, the PyTorch network, pixels."""
PUBLISHED = {
    "mobilenet_v1": (WIDTHS_V1, lambda n: n.mobilenet_v1(WIDTHS_V1, n.V1_STAGES, stem_stride=2, classes=1000)),
    "mobilenet_v2": (WIDTHS_V2, lambda n: n.mobilenet_v2(WIDTHS_V2, n.V2_STAGES, stem_stride=2, classes=1000)),
    "shufflenet": (SHUFFLE, lambda n: n.shufflenet(SHUFFLE, n.SHUFFLE_STAGES, classes=1000)),
    "resnet50": (WIDTHS_V1, lambda n: n.resnet(WIDTHS_V1, n.RESNET50_STAGES, classes=1000)),
}
"""By model of a published row: its widths and the PyTorch network, of 1000 classes for 224 pixels."""


def saved(folder, content):
    import torch

    torch.save(content, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def assert_same_logits(networks, model, variables, network, size):
    """At every width within 1e-4, of logits that differ a hundred times more between a dark and a bright image."""
    noise = np.random.default_rng(1).normal(size=(2, size, size, 3))
    images = (noise + np.array([-1, 1])[:, None, None, None]).astype(np.float32)
    apply = jax.jit(model.apply, static_argnames="width")
    for switch, width in enumerate(model.widths):
        expected = networks.logits_at(network, switch, images)
        spread = np.abs(expected[0] - expected[1]).max()
        assert spread > 0.01, "what fades away on its way through the network would hide mistakes"
        logits = np.asarray(apply(variables, images, width=width))
        print(f"width {width}: differs by {np.abs(logits - expected).max():.1e}, the images by {spread:.2f}")
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_pytorch_network_at_every_width(networks, tmp_path, name):
    widths, build, size = NETWORKS[name]
    network, model = networks.randomised(build(networks), len(widths) - 1), create_model(name.split()[0], widths, 7)
    variables = load_torch_checkpoint(model, saved(tmp_path, network.state_dict()))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert_same_logits(networks, model, variables, network, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_gives_pytorchs_logits_at_full_size(networks, tmp_path, name):
    widths, build = PUBLISHED[name]
    network, model = networks.randomised(build(networks), len(widths) - 1), create_model(name, widths, 1000)
    variables = load_torch_checkpoint(model, saved(tmp_path, network.state_dict()))
    assert_same_logits(networks, model, variables, network, 224)
    assert_folds_to_exact_logits(networks, model, variables, network)


def assert_folds_to_exact_logits(networks, model, variables, network):
    """Folded beside the shared kernels and at each width alone, within 1e-5 of PyTorch's logits in float64."""
    images, folded = np.random.default_rng(2).normal(size=(2, 224, 224, 3)), fold_batch_norm(model, variables)
    network.double()
    for switch, width in enumerate(model.widths):
        exact = networks.logits_at(network, switch, images)
        lean = fold_batch_norm(model, variables, width)
        errors = []
        for (one, own), asked in ((folded, width), (lean, None), ((model, variables), width)):
            logits = jax.jit(partial(one.apply, width=asked))(own, images.astype(np.float32))
            errors.append(np.abs(logits - exact).max() / np.abs(exact).max())
        print("width {}: {:.1e} folded beside the kernels, {:.1e} alone; {:.1e} unfolded".format(width, *errors))
        assert max(errors[:2]) < 1e-5


def test_a_private_batch_norm_after_the_tail(networks, tmp_path):
    network = networks.randomised(networks.mobilenet_v2((0.5, 1.0), private_tail=True), widest=1)
    model = create_model("mobilenet_v2_tiny", (0.5, 1.0), 7, tail_bn="private")
    variables = load_torch_checkpoint(model, saved(tmp_path, network.state_dict()))
    assert_same_logits(networks, model, variables, network, 16)


def test_prefixes_wrappers_counters_and_precision_make_no_difference(networks, tmp_path):
    state = networks.randomised(networks.mobilenet_v1((0.5, 1.0)), widest=1).state_dict()
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 7)
    plain = load_torch_checkpoint(model, saved(tmp_path, state))
    prefixed = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
    uncounted = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(uncounted) < len(state)
    training = {"model": prefixed, "epoch": 479, "optimizer": {"lr": 0.1}}
    double = {name: tensor.double() for name, tensor in state.items()}
    compiled = {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}
    for content in (prefixed, uncounted, training, double, compiled, {"state_dict": state}):
        variables = load_torch_checkpoint(model, saved(tmp_path, content))
        jax.tree.map(np.testing.assert_array_equal, variables, plain)
    networks.torch.save(state, old := tmp_path / "as_in_2018.pt", _use_new_zipfile_serialization=False)
    jax.tree.map(np.testing.assert_array_equal, load_torch_checkpoint(model, old), plain)


def test_another_network_is_told_by_what_it_is(networks, tmp_path):
    state = networks.randomised(networks.mobilenet_v1((0.5, 1.0)), widest=1).state_dict()
    path = saved(tmp_path, state)
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 10)
    with pytest.raises(UserError, match="has 7 classes, the model 10; build it with num_classes=7"):
        load_torch_checkpoint(model, path)
    with pytest.raises(UserError, match=r"features\.1\.body\.0\.weight is in it, as in those of MobileNetV1"):
        load_torch_checkpoint(create_model("shufflenet_tiny", (0.5, 1.0), 7), path)
    folded, _ = fold_batch_norm(model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    with pytest.raises(UserError, match=r"the model is folded .*; load before folding"):
        load_torch_checkpoint(folded, path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file was run')",)


def nested(torch):
    with warnings.catch_warnings(action="ignore"):
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


REFUSED = {
    "code": (lambda torch: Evil(), r"cannot be read: it holds more than tensors \(exec\)"),
    "code beside weights": (lambda torch: {"model": {"weight": torch.zeros(1)}, "best": Evil()}, "more than tensors"),
    "list": (lambda torch: [torch.zeros(1)], "is not a state_dict: it holds a list; give a file of named tensors"),
    "empty": (lambda torch: {}, "is not a state_dict: it holds an empty dict"),
    "number": (lambda torch: {"epoch": 3, "weight": torch.zeros(1)}, "epoch is of type int, not a tensor"),
    "name": (lambda torch: {"a\nb": torch.zeros(1)}, r"is not a state_dict: it has the key 'a\\nb'"),
    "long name": (lambda torch: {f"a.bn.{'1' * 5000}.weight": 3}, r"a.bn.1{50,}\.\.\. is of type int"),
    "number as name": (lambda torch: {3: torch.zeros(1)}, "it has a key of type int"),
    "repeated": (
        lambda torch: {"weight": torch.zeros(1).expand(10**6, 10**6)},
        "weight has 1000000000000 elements, of which the file holds 1; save a contiguous tensor",
    ),
    "sparse": (
        lambda torch: {"weight": torch.zeros(1).to_sparse()},
        "weight is a sparse, nested, quantised or complex",
    ),
    "nested": (lambda torch: {"weight": nested(torch)}, "weight is a sparse, nested, quantised or complex tensor"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_state_dict_is_refused(networks, tmp_path, what):
    content, message = REFUSED[what]
    with pytest.raises(UserError, match=message) as caught:
        load_torch_checkpoint(create_model("mobilenet_v1_tiny", (1.0,), 7), saved(tmp_path, content(networks.torch)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    for advice in ("trust", "add_safe_globals", "Please"):
        assert advice not in str(caught.value), "PyTorch's advice to load it unsafely is not passed on"


def test_an_entry_at_fault_is_named_and_not_converted_before_its_shape_is_compared(networks, tmp_path):
    torch, model = networks.torch, create_model("mobilenet_v1_tiny", (0.5, 1.0), 7)
    state = networks.randomised(networks.mobilenet_v1((0.5, 1.0)), widest=1).state_dict()
    nowhere = torch.empty(10**6, 10**6, device="meta")
    for change, message in [
        ({"classifier.0.weight": nowhere}, r"classifier.0.weight \(1000000, 1000000\) in the file and \(7, 256\)"),
        ({"extra.weight": nowhere}, "1 unexpected: extra.weight"),
        ({"classifier.0.weight": nowhere[:7, :256]}, "classifier.0.weight cannot be converted"),
        ({"features.0.0.weight": state["features.0.0.weight"] * np.nan}, "features.0.0.weight has values that are inf"),
        (
            {"classifier.0.bias": torch.full((7,), 1e300, dtype=torch.float64)},
            "classifier.0.bias has values that are inf",
        ),
        (
            {"classifier.0.bias": torch.ones(7, dtype=torch.int64)},
            "classifier.0.bias is of type torch.int64; save it as",
        ),
        ({"features.0.1.bn.1.running_var": -torch.ones(32)}, "features.0.1.bn.1.running_var has variances below 0"),
        ({f"features.0.1.bn.{'9' * 5000}.weight": torch.zeros(1)}, r"1 unexpected: features.0.1.bn.9+\.\.\.\. Build"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            load_torch_checkpoint(model, saved(tmp_path, state | change))
        assert str(caught.value).isprintable()


DAMAGED = {
    "empty": (b"", "it is empty; save it anew"),
    "text": (b"text", "torch.save has not written it; give a file that it has"),
    "zip": (b"PK\x03\x04 no archive", r"it is damaged or cut short \(RuntimeError: PytorchStreamReader failed reading"),
    "plain pickle": (pickle.dumps({"weight": 1}), r"it is damaged or cut short \(UnpicklingError: \S+"),
    "escape sequences": (b"\x80\x02c\x1b]0;owned\x07\x1b[2J\nfoo\n.", r"it holds more than tensors \("),
    "system call": (pickle.dumps(os.system, 2), r"it holds more than tensors \(posix\.system\)"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_one_clear_mistake(tmp_path, what):
    content, message = DAMAGED[what]
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"damaged\.pt cannot be read: {message}") as caught:
        load_torch_checkpoint(create_model("mobilenet_v1_tiny", (1.0,), 7), path)
    assert str(caught.value).isprintable()


def test_a_pytorch_whose_reader_runs_code_reads_nothing(tmp_path, monkeypatch):
    """The version alone is another one here: it is looked at before the file is."""
    import torch

    path = tmp_path / "file.pt"
    path.write_bytes(b"no checkpoint")
    for version, message in (
        ("2.5.1+cu121", r"needs PyTorch 2\.6 or newer, 2\.5\.1\+cu121 is installed"),
        ("1.13.0", r"needs PyTorch 2\.6 or newer"),
        ("2.6.0", "is no checkpoint|cannot be read|is damaged"),
        ("10.0.0a0+git", "is no checkpoint|cannot be read|is damaged"),
    ):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(UserError, match=message):
            load_torch_checkpoint(create_model("mobilenet_v2_tiny", (0.5, 1.0), 5), path)


def test_a_truncated_file_is_one_clear_mistake(networks, tmp_path):
    path = saved(tmp_path, networks.mobilenet_v1((1.0,)).state_dict())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        load_torch_checkpoint(create_model("mobilenet_v1_tiny", (1.0,), 7), path)
