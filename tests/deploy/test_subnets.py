"""A width taken out of its network: the same function, of variables sliced by hand, that trains, saves and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from slimjax.configs import default

from slimjax import UserError, create_model, extract_subnet, profile_model
from slimjax.models.network import SlimmableNetwork
from slimjax.nn import SlimmableConv, SlimmableDense, WidthPlan
from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.classification.task import ClassificationTask
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.training.mesh import put_batch
from slimjax.training.state import TrainState
from slimjax.training.step import TrainStep
from slimjax.training.switches import Turn

# At .25, block 1 of MobileNet v2 has as many outputs as inputs, and at the other widths it has not: no residual at any.
WIDTHS = (0.25, 0.75, 1.4)
MODELS = [
    ("mobilenet_v1", {}),
    ("mobilenet_v1", {"batch_norm": "shared_affine"}),
    ("mobilenet_v1", {"batch_norm": "shared"}),
    ("mobilenet_v2", {}),
    ("mobilenet_v2", {"tail_bn": "private"}),
    ("resnet50", {}),
    ("resnet50", {"batch_norm": "shared"}),
    ("shufflenet", {}),
    ("shufflenet", {"batch_norm": "shared_affine"}),
    ("shufflenet", {"batch_norm": "shared"}),
]


def evaluate(model, variables, images, width=None):
    return jax.jit(lambda v: model.apply(v, images, width=width))(variables)


def train(model, variables, images, width=None):
    return jax.jit(lambda v: model.apply(v, images, width=width, train=True, mutable=["batch_stats"]))(variables)


def renamed(path, switch):
    """Where the slimmable network keeps what the network of one width keeps at `path`."""
    return tuple(f"switch_{switch}" if key == "switch_0" else key for key in path)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_width_becomes_the_network_of_that_width(
    name, options, create_small, random_variables, elements_of, relative_error, images
):
    model = create_small(name, WIDTHS, **options)
    variables = random_variables(model)
    stored = flatten_dict(variables)
    for switch, width in enumerate(WIDTHS):
        narrow, own = extract_subnet(model, variables, width)
        alone = create_small(name, (width,), **options)
        assert narrow == alone
        shapes = jax.eval_shape(alone.init, jax.random.key(0), images)
        arrays = flatten_dict(own)
        assert arrays.keys() == flatten_dict(shapes).keys()
        for path, source, active in elements_of(variables, shapes, switch):
            assert arrays[path].dtype == jnp.float32
            np.testing.assert_array_equal(arrays[path], stored[source][active], err_msg=str(path))
        assert relative_error(evaluate(narrow, own, images), evaluate(model, variables, images, width)) < 1e-5


def test_it_trains_as_its_width_does_within_the_network(create_small, random_variables, relative_error, images):
    model = create_small("mobilenet_v2", WIDTHS)
    variables = random_variables(model)
    narrow, own = extract_subnet(model, variables, 0.25)
    expected, expected_updates = train(model, variables, images, 0.25)
    logits, updates = train(narrow, own, images)
    assert relative_error(logits, expected) < 1e-4
    expected_statistics = flatten_dict(expected_updates["batch_stats"])
    for path, value in flatten_dict(updates["batch_stats"]).items():
        of_width = expected_statistics[renamed(path, 0)][: value.size]
        np.testing.assert_allclose(value, of_width, rtol=1e-4, atol=1e-5, err_msg=str(path))


class Grouped(SlimmableNetwork):
    """Two groups, each of which is sliced by itself, so that the active outputs are no leading slice."""

    def uniform_plan(self, width):
        return WidthPlan(width, (("stem", int(8 * width)), ("grouped", int(16 * width))))

    @nn.compact
    def __call__(self, images, width=None, train=False):
        switch, features = self.switch_of(width), self.features_by_layer()
        stem, grouped = features["stem"], features["grouped"]
        x = SlimmableConv(3, max(stem), name="stem")(images, stem[switch])
        x = SlimmableConv(max(stem), max(grouped), groups=2, use_bias=True, name="grouped")(x, grouped[switch])
        x = self.make_batch_norm()(features=grouped, name="bn")(x, switch, train)
        return SlimmableDense(max(grouped), self.num_classes, name="classifier")(jnp.mean(x, axis=(1, 2)))


def test_groups_are_taken_out_of_the_middle_of_a_kernel(random_variables, relative_error, images):
    model = Grouped(widths=(0.5, 1.0), num_classes=5)
    variables = random_variables(model)
    narrow, own = extract_subnet(model, variables, 0.5)
    first_halves = np.r_[0:4, 8:12]
    grouped, own_grouped = (v["params"]["grouped"] for v in (variables, own))
    np.testing.assert_array_equal(own_grouped["kernel"], grouped["kernel"][:, :, :2, first_halves])
    np.testing.assert_array_equal(own_grouped["bias"], grouped["bias"][first_halves])
    assert relative_error(evaluate(narrow, own, images), evaluate(model, variables, images, 0.5)) < 1e-5


def test_a_searched_plan_goes_with_its_width(create_small, random_variables, relative_error, images):
    base = create_small("mobilenet_v1", (0.5, 1.0)).resolved_plans()
    odd = WidthPlan(0.5, tuple((layer, 17 if layer == "block_1" else count) for layer, count in base[0].features))
    model = create_small("mobilenet_v1", (0.5, 1.0), plans=(odd, base[1]))
    variables = random_variables(model)
    narrow, own = extract_subnet(model, variables, 0.5)
    assert narrow.plans == (odd,)
    assert own["params"]["block_1_pointwise"]["conv"]["kernel"].shape == (1, 1, 16, 17)
    assert relative_error(evaluate(narrow, own, images), evaluate(model, variables, images, 0.5)) < 1e-5
    assert extract_subnet(model, variables, 1.0).model == create_small("mobilenet_v1", (1.0,))


def test_full_size_counts_are_those_of_the_width():
    model = create_model("mobilenet_v2", (0.35, 1.0), 1000)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_variables(model))
    narrow, own = extract_subnet(model, variables, 0.35)
    row = profile_model(model, image_size=32)[0]
    assert profile_model(narrow, image_size=32) == [row]
    assert sum(leaf.size for leaf in jax.tree.leaves(own["params"])) == row.params


def test_the_trainer_goes_on_from_it_and_leaves_the_network_alone(create_small, random_variables):
    model = create_small("mobilenet_v1", (0.5, 1.0))
    variables = random_variables(model)
    before = jax.tree.map(np.array, variables)
    narrow, own = extract_subnet(model, variables, 1.0)
    info = DatasetInfo("five", 5, 16, 16, tuple("01234"))
    task = ClassificationTask(default.get_config(), narrow, info)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    tx, replicated = optax.sgd(0.2), NamedSharding(mesh, PartitionSpec())
    step = TrainStep(task, tx, mesh, True)
    state = TrainState(jnp.zeros((), jnp.int32), own["params"], own["batch_stats"], tx.init(own["params"]))
    state = jax.device_put(state, replicated)
    rng = np.random.default_rng(3)
    images = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
    batch = put_batch(mesh, {"image": images, "label": np.arange(16, dtype=np.int32) % 5})
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch, Turn((1.0,)))
        losses.append(float(metrics.widths[1.0].compute()["loss"]))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    # The step donates its state: had the widest width's arrays been handed on, they would be gone now.
    jax.tree.map(np.testing.assert_array_equal, variables, before)


def test_plain_orbax_saves_it(create_small, random_variables, tmp_path):
    model = create_small("mobilenet_v2", (0.5, 1.0))
    _, own = extract_subnet(model, random_variables(model), 0.5)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "narrow", own)
        checkpointer.wait_until_finished()
        read = checkpointer.restore(tmp_path / "narrow", own)
    assert jax.tree.structure(read) == jax.tree.structure(own)
    jax.tree.map(np.testing.assert_array_equal, read, own)


def test_mistakes_are_named(create_small, random_variables):
    model = create_small("mobilenet_v1", (0.5, 1.0))
    variables = random_variables(model)
    more_classes = model.clone(num_classes=7)
    one_more_width = create_small("mobilenet_v1", (0.5, 0.75, 1.0))
    for network, given, width, message in [
        (model, variables, 0.4, r"width=0.4 is not one of this model's widths \(0.5, 1.0\)"),
        (more_classes, variables, 0.5, r"params/classifier/bias has the shape \(5,\), the model's is \(7,\)"),
        (one_more_width, variables, 0.5, "the variables lack .*/switch_2/.* and [0-9]+ more, which the model has"),
        (model, random_variables(one_more_width), 0.5, "the variables have .*/switch_2/.* and [0-9]+ more"),
        (model, {"params": variables["params"]}, 0.5, "the variables lack batch_stats/.* which the model has; give"),
        (model, list(variables), 0.5, "variables are a list, not a dictionary"),
    ]:
        with pytest.raises(UserError, match=message):
            extract_subnet(network, given, width)
