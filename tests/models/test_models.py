"""The families: every width against a network of that width alone that holds the sliced weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax import MODELS, UserError, create_model, profile_model
from slimjax.analysis.profile import total_params
from slimjax.nn import WidthPlan
from slimjax.nn.tracing import active_masks

WIDTHS_V1, WIDTHS_V2 = (0.25, 0.5, 0.75, 1.0), (0.35, 0.5, 0.75, 1.0)


def test_tail_batch_norm_can_be_private():
    shared, private = (create_model("mobilenet_v2", WIDTHS_V2, 1000, tail_bn=kind) for kind in ("shared", "private"))
    assert total_params(private) - total_params(shared) == 3 * 2 * 1280


@pytest.fixture(scope="session")
def sliced_by_hand(elements_of):
    """Variables of the network that has one width only, out of those of all widths."""

    def sliced(variables, narrow_shapes, switch):
        stored = flatten_dict(variables)
        elements = elements_of(variables, narrow_shapes, switch)
        return unflatten_dict({path: stored[source][active] for path, source, active in elements})

    return sliced


@pytest.fixture(scope="session")
def run():
    """Evaluates at a width, and differentiates the loss of a training batch there: one program, since compiling takes
    the time.
    """

    @partial(jax.jit, static_argnums=(0, 1))
    def evaluate_and_differentiate(model, width, variables, images, labels):
        def loss(params):
            given = {**variables, "params": params}
            logits, updated = model.apply(given, images, width=width, train=True, mutable=["batch_stats"])
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
            return -jnp.mean(picked), (logits, updated["batch_stats"])

        gradients, (logits, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
        return model.apply(variables, images, width=width), logits, gradients, statistics

    return evaluate_and_differentiate


@pytest.mark.parametrize("batch_norm", ["switchable", "shared_affine", "shared"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet50", "shufflenet"])
def test_a_width_is_the_individual_network_with_the_sliced_weights(
    name, batch_norm, create_small, random_variables, elements_of, sliced_by_hand, run
):
    widths = (0.35, 0.75, 1.0)
    model = create_small(name, widths, batch_norm=batch_norm)
    variables = random_variables(model)
    images, labels = jax.random.normal(jax.random.key(2), (4, 16, 16, 3)), jnp.array([0, 1, 2, 3])
    # What the widths share of batch norms makes a difference below the widest only.
    tried = widths[::2] if batch_norm == "switchable" else widths[1:2]
    for width in tried:
        switch = widths.index(width)
        narrow = create_small(name, (width,), batch_norm=batch_norm)
        shapes = jax.eval_shape(narrow.init, jax.random.key(0), images)
        own = sliced_by_hand(variables, shapes, switch)
        evaluated, logits, gradients, statistics = run(model, width, variables, images, labels)
        expected_evaluated, expected, expected_gradients, expected_statistics = run(narrow, width, own, images, labels)
        np.testing.assert_allclose(evaluated, expected_evaluated, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        active = sliced_by_hand({"params": gradients}, {"params": shapes["params"]}, switch)["params"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=2e-5), active, expected_gradients)
        kept = sliced_by_hand({"s": statistics}, {"s": shapes["batch_stats"]}, switch)["s"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), kept, expected_statistics)
        read = elements_of(gradients, shapes["params"], switch)
        check_the_rest_is_left_out(gradients, active_masks(model, width), read)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet50", "shufflenet"])
def test_slices_compute_what_the_arithmetic_is(name, create_small, random_variables, elements_of, sliced_by_hand, run):
    """Operations of the compiled evaluation and training pass are those of the network built for the width, about as
    many as four forward passes take: nothing is computed for other channels, no grouped convolution as if dense.
    """
    widths = (0.35, 0.75, 1.0)
    model = create_small(name, widths)
    variables = random_variables(model)
    images, labels = jax.random.normal(jax.random.key(2), (4, 16, 16, 3)), jnp.array([0, 1, 2, 3])
    for width in widths[::2]:
        narrow = create_small(name, (width,))
        shapes = jax.eval_shape(narrow.init, jax.random.key(0), images)
        own = sliced_by_hand(variables, shapes, widths.index(width))
        flops, expected = (
            run.lower(network, width, given, images, labels).compile().cost_analysis()["flops"]
            for network, given in ((model, variables), (narrow, own))
        )
        assert flops == pytest.approx(expected, rel=1e-3)
        # XLA counts no products with padding, and the images have no gradient; batch norms and the like come on top.
        by_hand = 4 * 2 * len(images) * profile_model(narrow, 16)[0].macs
        assert 0.5 * by_hand < flops < 1.6 * by_hand


def check_the_rest_is_left_out(gradients, masks, read):
    """What a width does not read has a gradient of exactly zero, and the width's masks are what it does read."""
    rest = {path: np.array(gradient) for path, gradient in flatten_dict(gradients).items()}
    masks = flatten_dict(masks)
    for _, source, active in read:
        rest[source][active] = 0
        assert masks[source][active].all()
        masks[source][active] = False
    assert not any(gradient.any() for gradient in rest.values())
    assert not any(mask.any() for mask in masks.values())


def test_init_creates_every_width_whatever_width_runs():
    model = create_model("mobilenet_v2_tiny", WIDTHS_V2, 5)
    images = jnp.zeros((1, 16, 16, 3))
    shapes = [
        jax.eval_shape(lambda w=width: model.init(jax.random.key(0), images, width=w)) for width in (None, *WIDTHS_V2)
    ]
    assert all(jax.tree.structure(s) == jax.tree.structure(shapes[0]) for s in shapes)
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: a.shape == b.shape, s, shapes[0]))
        == [True] * len(jax.tree.leaves(shapes[0]))
        for s in shapes
    )


def test_one_width_leaves_the_statistics_of_the_others_untouched(create_small, random_variables):
    model = create_small("mobilenet_v1", WIDTHS_V1)
    variables = random_variables(model)
    images = jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
    _, updated = jax.jit(lambda v: model.apply(v, images, width=0.5, train=True, mutable=["batch_stats"]))(variables)
    before, after = flatten_dict(variables["batch_stats"]), flatten_dict(updated["batch_stats"])
    assert before.keys() == after.keys()
    for path, value in before.items():
        changed = bool((value != after[path]).any())
        assert changed == ("switch_1" in path), path


def test_two_widths_that_round_to_the_same_channels_keep_batch_norms_apart():
    model = create_model("mobilenet_v2", (0.95, 1.0), 5)
    assert model.resolved_plans()[0]["block_1"] == model.resolved_plans()[1]["block_1"]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert set(shapes["params"]["block_1"]["project"]["bn"]) == {"switch_0", "switch_1"}


def test_a_searched_plan_builds_counts_and_runs(random_variables):
    base = create_model("mobilenet_v1_tiny", (0.5, 1.0), 5).resolved_plans()
    odd = WidthPlan(0.5, tuple((layer, 17 if layer == "block_2" else count) for layer, count in base[0].features))
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 5, plans=(odd, base[1]))
    variables = random_variables(model)
    logits = jax.jit(lambda v: model.apply(v, jnp.ones((2, 16, 16, 3)), width=0.5))(variables)
    assert logits.shape == (2, 5)
    assert jnp.isfinite(logits).all()
    # Only block 2's output and block 3's input change, from 64 to 17 channels: 1x1, depthwise, 1x1.
    rows = [profile_model(m, 16)[0] for m in (create_model("mobilenet_v1_tiny", (0.5, 1.0), 5), model)]
    before, after = (row.kernel_params for row in rows)
    assert before - after == (64 - 17) * (32 + 9 + 64)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("size", [28, 33])
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"resnet101", "resnet152"}))
def test_any_input_size_and_number_of_classes(name, stem, size):
    model = create_model(name, (0.5, 1.4), 7, stem=stem)
    images = jnp.zeros((2, size, size, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits = jax.eval_shape(lambda v: model.apply(v, images, width=1.4), variables)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)


def test_mistakes_are_told_before_anything_is_built():
    for arguments, options, message in [
        (("mobilenet_v3", (1.0,), 10), {}, r"model.name='mobilenet_v3' is unknown \(did you mean 'mobilenet_v"),
        (("mobilenet_v1", (1.0, 0.5), 10), {}, "strictly ascending"),
        (("mobilenet_v1", 0.5, 10), {}, "widths=0.5 has to be a non-empty, strictly ascending list"),
        (("mobilenet_v1", "0.5", 10), {}, "widths='0.5' has to be a non-empty, strictly ascending list"),
        ((None, (1.0,), 10), {}, "model.name=None is unknown; choose one of"),
        (("mobilenet_v1", (1.0,), 0), {}, "num_classes=0"),
        (("mobilenet_v1", (1.0,), 2.5), {}, "num_classes=2.5 has to be a whole number"),
        (("mobilenet_v1", (1.0,), "10"), {}, "num_classes='10' has to be a whole number"),
        (("mobilenet_v1", (1.0,), 10), {"dtype": "float33"}, "dtype='float33' is unknown; give float32 or bfloat16"),
        (("mobilenet_v1", (1.0,), 10), {"stem": ["big"]}, r"stem=\['big'\] is unknown"),
        (("mobilenet_v1", (1.0,), 10), {"tail_bn": "shared"}, "mobilenet_v1 has no option tail_bn; it has"),
        (("mobilenet_v1", (1.0,), 10), {"stem": "big"}, "stem='big' is unknown"),
        (("mobilenet_v1", (1.0,), 10), {"batch_norm": "big"}, "batch_norm='big' is unknown"),
        (("mobilenet_v2", (1.0,), 10), {"tail_bn": "big"}, "tail_bn='big' is unknown"),
    ]:
        with pytest.raises(UserError, match=message):
            create_model(*arguments, **options)
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 10)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(UserError, match=r"width=0.4 is not one of this model's widths \(0.5, 1.0\)"):
        jax.eval_shape(lambda v: model.apply(v, jnp.zeros((1, 16, 16, 3)), width=0.4), variables)


@pytest.mark.parametrize("shape", [(1, 16, 16, 1), (1, 3, 16, 16), (16, 16, 3), (1, 16, 16, 4)])
def test_images_that_are_not_rgb_with_channels_last_are_refused(create_small, shape):
    model = create_small("mobilenet_v1", (0.5, 1.0))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(UserError, match=r"have to be \[batch, height, width, 3\], channels last"):
        jax.eval_shape(model.apply, variables, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("name", "highest"), [("mobilenet_v1", 6), ("mobilenet_v2", 6), ("shufflenet", np.inf), ("resnet50", np.inf)]
)
def test_the_stem_is_a_convolution_a_batch_norm_and_the_familys_activation(
    create_small, random_variables, name, highest
):
    model = create_small(name, (0.5, 1.0))
    variables, images = random_variables(model), jax.random.normal(jax.random.key(2), (2, 16, 16, 3)) * 8
    captured = jax.jit(
        lambda v: model.apply(v, images, capture_intermediates=lambda module, _: module.name == "stem")[1]
    )(variables)
    (actual,) = captured["intermediates"]["stem"]["__call__"]
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    y = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), ((kernel.shape[0] // 2,) * 2,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    affine, running = (variables[of]["stem"]["bn"]["switch_1"] for of in ("params", "batch_stats"))
    y = (y - running["mean"]) / jnp.sqrt(running["var"] + 1e-5) * affine["scale"] + affine["bias"]
    assert (y < 0).any()
    assert (y > 6).any()
    np.testing.assert_allclose(actual, y.clip(0, highest), rtol=1e-4, atol=1e-4)
