"""Plans that no rounding rule gives, through counting, extraction and folding."""

import math

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from slimjax import UserError, extract_subnet, fold_batch_norm, profile_model
from slimjax.nn import WidthPlan

# By family: channels at .5 and at 1.0, each of which is the wider one somewhere.
PLANS = {
    "mobilenet_v1": {"stem": (11, 18), "block_1": (17, 9), "block_2": (30, 47)},
    "mobilenet_v2": {
        "stem": (11, 18),
        "block_1_hidden": (11, 18),
        "block_1": (13, 5),
        "block_2_hidden": (29, 50),
        "block_2": (7, 13),
        "block_3_hidden": (40, 31),
        # In one plan as many as in the block before, which adds the input, and not in the other.
        "block_3": (7, 15),
        "tail": (70, 90),
    },
    "resnet50": {"stem": (11, 18), "block_1_hidden": (7, 5), "block_1": (23, 40), "block_2_hidden": (9, 21)}
    | {"block_2": (23, 40)},
    "shufflenet": {"stem": (9, 18), "block_1_hidden": (15, 6), "block_1": (33, 54), "block_2_hidden": (3, 21)}
    | {"block_2": (33, 54)},
}
# The kernels [height, width, in, out] of the network at .5, by hand; the stem's is [3, 3, 3, stem] but for ResNet's.
KERNELS = {
    "mobilenet_v1": {
        "stem": (3, 3, 3, 11),
        "block_1_depthwise": (3, 3, 1, 11),
        "block_1_pointwise": (1, 1, 11, 17),
        "block_2_depthwise": (3, 3, 1, 17),
        "block_2_pointwise": (1, 1, 17, 30),
    },
    "mobilenet_v2": {
        "stem": (3, 3, 3, 11),
        "block_1/depthwise": (3, 3, 1, 11),
        "block_1/project": (1, 1, 11, 13),
        "block_2/expand": (1, 1, 13, 29),
        "block_2/depthwise": (3, 3, 1, 29),
        "block_2/project": (1, 1, 29, 7),
        "block_3/expand": (1, 1, 7, 40),
        "block_3/depthwise": (3, 3, 1, 40),
        "block_3/project": (1, 1, 40, 7),
        "tail": (1, 1, 7, 70),
    },
    "resnet50": {
        "stem": (7, 7, 3, 11),
        "block_1/reduce": (1, 1, 11, 7),
        "block_1/spatial": (3, 3, 7, 7),
        "block_1/expand": (1, 1, 7, 23),
        "block_1/shortcut": (1, 1, 11, 23),
        "block_2/reduce": (1, 1, 23, 9),
        "block_2/spatial": (3, 3, 9, 9),
        "block_2/expand": (1, 1, 9, 23),
    },
    # Of the first block's 33 channels 9 are the pooled input's.
    "shufflenet": {
        "stem": (3, 3, 3, 9),
        "block_1/reduce": (1, 1, 9, 15),
        "block_1/depthwise": (3, 3, 1, 15),
        "block_1/expand": (1, 1, 5, 24),
        "block_2/reduce": (1, 1, 11, 3),
        "block_2/depthwise": (3, 3, 1, 3),
        "block_2/expand": (1, 1, 1, 33),
    },
}


def with_plans(create_small, name, **changes):
    """The small network whose channels at .5 and 1.0 are those above but for the changes."""
    features = PLANS[name] | changes
    plans = [WidthPlan(w, tuple((layer, f[k]) for layer, f in features.items())) for k, w in enumerate((0.5, 1.0))]
    return create_small(name, (0.5, 1.0), plans=tuple(plans))


def evaluate(model, variables, images, width=None):
    return np.asarray(jax.jit(lambda v: model.apply(v, images, width=width))(variables))


@pytest.mark.parametrize("name", PLANS)
def test_an_odd_plan_counts_extracts_and_folds(name, create_small, random_variables):
    model = with_plans(create_small, name)
    variables, images = random_variables(model), jax.random.normal(jax.random.key(2), (2, 16, 16, 3))
    narrow, own = extract_subnet(model, variables, 0.5)
    params = flatten_dict(own["params"], sep="/")
    kernels = {path.removesuffix("/conv/kernel"): leaf.shape for path, leaf in params.items() if "conv" in path}
    assert kernels == KERNELS[name]
    row, *_ = profile_model(model, image_size=16)
    classifier = 5 * (next(reversed(PLANS[name].values()))[0] + 1)
    assert row.kernel_params == sum(math.prod(shape) for shape in kernels.values()) + classifier
    assert row.params == sum(leaf.size for leaf in jax.tree.leaves(own["params"]))
    assert [r.macs for r in profile_model(narrow, image_size=16)] == [row.macs]

    folded, folded_variables = fold_batch_norm(model, variables)
    for width in (0.5, 1.0):
        expected = evaluate(model, variables, images, width)
        largest = np.abs(expected).max()
        alone, alone_variables = extract_subnet(model, variables, width)
        lean, lean_variables = fold_batch_norm(model, variables, width)
        for actual in (
            evaluate(alone, alone_variables, images),
            evaluate(folded, folded_variables, images, width),
            evaluate(lean, lean_variables, images),
        ):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "mobilenet_v2",
            {"block_1_hidden": (11, 17)},
            "width 1.0: block_1_hidden=17 has to be 18, its input, as the block does not expand",
        ),
        ("resnet50", {"block_2": (22, 40)}, "width 0.5: block_2=22 has to be 23, as the block before"),
        ("shufflenet", {"block_2": (30, 54)}, "width 0.5: block_2=30 has to be 33, as the block before"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_by_its_layer(name, changes, message, create_small):
    with pytest.raises(UserError, match=message):
        with_plans(create_small, name, **changes)
