"""The optimiser: which parameters decay, any optimiser of optax, and clipping of the sum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from slimjax.configs import default

from slimjax import UserError, create_model
from slimjax.training.optimizers import check_optimizer, create_optimizer, decay_mask, parse_options

PARAMS = {"kernel": jnp.array([1.0, -2.0]), "scale": jnp.array([3.0])}
MASK = {"kernel": True, "scale": False}


def first_update(gradients, **settings):
    section = default.optimizer()
    section.update(settings)
    tx = create_optimizer(section, lambda step: 0.5, MASK)
    return tx.update(gradients, tx.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet50", "shufflenet"])
def test_only_dense_and_non_depthwise_kernels_decay(name):
    mask = flatten_dict(decay_mask(create_model(name, (0.5, 1.0), 10)))
    for path, decays in mask.items():
        is_kernel = path[-1] == "kernel"
        is_depthwise = any("depthwise" in key for key in path)
        assert decays == (is_kernel and not is_depthwise), path
    assert mask["classifier", "kernel"]
    assert not mask["classifier", "bias"]
    assert mask["stem", "conv", "kernel"]


def test_decay_is_added_to_the_gradient_of_sgd():
    update = first_update({"kernel": jnp.array([0.1, 0.2]), "scale": jnp.array([0.3])}, options="", weight_decay=0.01)
    np.testing.assert_allclose(update["kernel"], [-0.5 * (0.1 + 0.01), -0.5 * (0.2 - 0.02)], rtol=1e-6)
    np.testing.assert_allclose(update["scale"], [-0.5 * 0.3], rtol=1e-6)


def test_an_optimiser_with_decay_of_its_own_gets_it_masked():
    gradients = {"kernel": jnp.array([0.1, 0.2]), "scale": jnp.array([0.3])}
    update = first_update(gradients, name="adamw", options="b1=0.8", weight_decay=0.01)
    tx = optax.adamw(0.5, b1=0.8, weight_decay=0.01, mask=MASK)
    expected = tx.update(gradients, tx.init(PARAMS), PARAMS)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), update, expected)


def test_clipping_comes_before_everything_else():
    gradients = {"kernel": jnp.array([3.0, 0.0]), "scale": jnp.array([4.0])}
    update = first_update(gradients, options="", weight_decay=0.0, clip_norm=1.0)
    np.testing.assert_allclose(update["kernel"], [-0.5 * 0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(update["scale"], [-0.5 * 0.8], rtol=1e-6)


def test_options_are_read_as_keyword_arguments():
    assert parse_options("momentum=0.9, nesterov=True") == {"momentum": 0.9, "nesterov": True}
    assert parse_options("") == {}
    for text in ("0.9", "momentum=", "momentum=open('x')", "**{}", "momentum=0.9) + f("):
        with pytest.raises(UserError, match="has to read like"):
            parse_options(text)


def test_unknown_optimisers_and_options_are_named():
    with pytest.raises(UserError, match="did you mean 'adam'"):
        first_update({}, name="adamm")
    with pytest.raises(UserError, match=r"beta is no argument of optax\.adam that can be set here; it takes b1, b2"):
        first_update({}, name="adam", options="beta=1")
    with pytest.raises(UserError, match="learning_rate is no argument"):
        first_update({}, options="learning_rate=0.1")


def test_options_that_fail_at_construction_are_named():
    section = default.optimizer()
    section.options = "momentum=0.9, accumulator_dtype='foo'"
    with pytest.raises(UserError, match=r"options=.*'foo'.* cannot take a step \(.*foo"):
        check_optimizer(section)
