"""The detector as a whole, small: widths that share it, losses of batches and images, static shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.errors import UserError
from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.detection.detector import create_detector
from slimjax.tasks.detection.heads import transposed_convolution
from slimjax.tasks.detection.matching import Objects
from slimjax.tasks.detection.settings import Settings


@pytest.fixture(scope="module")
def objects():
    """Two objects, a crowd and padding; one object; none."""
    rng = np.random.default_rng(2)
    boxes = np.array(
        [
            [[4, 6, 30, 40], [30, 20, 60, 60], [0, 40, 20, 64], [0, 0, 0, 0]],
            [[10, 10, 50, 30], *[[0, 0, 0, 0]] * 3],
            [[0, 0, 0, 0]] * 4,
        ],
        np.float32,
    )
    there = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    crowds = np.array([[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)
    points = boxes[:, :, None, :2] + rng.uniform(0, 1, (3, 4, 4, 2)) * (boxes[..., 2:] - boxes[..., :2])[:, :, None]
    keypoints = np.concatenate([points, rng.integers(0, 3, (3, 4, 4, 1))], -1)
    return Objects(
        jnp.asarray(boxes),
        jnp.asarray(rng.integers(0, 3, (3, 4)), jnp.int32),
        jnp.asarray(there),
        jnp.asarray(crowds),
        jnp.asarray(rng.integers(0, 2, (3, 4, 28, 28)), jnp.uint8),
        jnp.asarray(keypoints, jnp.float32),
    )


@pytest.fixture(scope="module")
def sizes():
    return jnp.asarray([[64, 64], [48, 64], [64, 40]], jnp.float32)


@pytest.fixture(scope="module")
def losses_of(detector):
    """Losses by name, [batch], at a width: compiled once for each width and batch."""

    def losses(variables, images, objects, sizes, keys, width):
        return detector.apply(variables, images, objects, sizes, keys, width, method="losses")

    return jax.jit(losses, static_argnames="width")


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 3)


def test_every_width_finds_a_fixed_number_of_things(detector, variables, images, sizes):
    find = jax.jit(lambda width: detector.apply(variables, images, width, sizes=sizes), static_argnums=0)
    for width in detector.widths:
        found = find(width)
        assert found.boxes.shape == (3, 10, 4)
        assert found.masks.shape == (3, 10, 28, 28)
        assert found.keypoints.shape == (3, 10, 4, 3)
        assert np.asarray(found.there).any(axis=1).all(), "with no threshold there is always something"
        assert not np.any(np.diff(np.asarray(found.scores), axis=1) > 0), "best first"
        limits = np.asarray(sizes)[:, None, ::-1]
        assert np.all(np.asarray(found.boxes[..., 2:]) <= limits)
        assert np.all(np.asarray(found.boxes) >= 0)


def test_a_width_is_a_detector_of_that_width_with_the_sliced_weights(
    detector, create_small_detector, variables, images, sizes, elements_of
):
    narrow = create_small_detector((0.5,))
    sliced = {}
    for path, source, elements in elements_of(variables, abstract_variables(narrow), switch=0):
        sliced[path] = jnp.asarray(np.asarray(flatten_dict(variables)[source])[elements])
    # A uniform plan of the width alone would be that of its own widest; the stored kernels are the only difference.
    expected = detector.apply(variables, images, 0.5, sizes=sizes)
    found = narrow.apply(unflatten_dict(sliced), images, sizes=sizes)
    assert np.asarray(expected.there).any(axis=1).all()
    np.testing.assert_array_equal(found.labels, expected.labels)
    for name in ("boxes", "scores", "masks", "keypoints"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-3, err_msg=name)


def test_losses_of_a_batch_are_those_of_its_images(losses_of, variables, images, objects, sizes, keys):
    together = losses_of(variables, images, objects, sizes, keys, width=0.5)
    assert set(together) == {"rpn_class", "rpn_box", "box_class", "box", "mask", "keypoint"}
    for index in range(3):
        one = slice(index, index + 1)
        own = jax.tree.map(lambda array, one=one: array[one], objects)
        alone = losses_of(variables, images[one], own, sizes[one], keys[one], width=0.5)
        for name, value in together.items():
            np.testing.assert_allclose(value[index], alone[name][0], rtol=1e-3, atol=1e-5, err_msg=name)
    for name in ("rpn_box", "box", "mask", "keypoint"):
        assert float(together[name][0]) > 0
        assert float(together[name][2]) == 0, "nothing is there"


def test_gradients_are_finite_and_nothing_frozen_or_narrower_has_one(detector, variables, images, objects, sizes, keys):
    def total(params, width):
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        losses = detector.apply(both, images, objects, sizes, keys, width, method="losses")
        return sum(jnp.mean(loss) for loss in losses.values())

    gradient = flatten_dict(jax.jit(jax.grad(total), static_argnums=1)(variables["params"], 0.5))
    assert all(np.all(np.isfinite(leaf)) for leaf in gradient.values())
    for path, leaf in gradient.items():
        frozen = path[:2] in (("backbone", "stem"), ("backbone", "block_1"))
        other_width = "switch_1" in path
        assert np.any(leaf) != (frozen or other_width), "/".join(path)
    lateral = gradient["pyramid", "lateral_3", "kernel"]
    assert not np.any(lateral[:, :, 48:]), "a narrow width reads the leading half of the coarsest map"
    assert np.any(lateral[:, :, :48])


def test_odd_sides_are_refused(detector, variables):
    with pytest.raises(UserError, match=r"images of 60 x 64 pixels need sides of multiples of 32"):
        detector.apply(variables, jnp.zeros((1, 60, 64, 3)))


def test_published_detectors_have_the_published_backbone_and_heads():
    """R-50-FPN of two Mask R-CNN heads for 80 classes: 44.4 million parameters (as torchvision's and mmdetection's)."""
    settings = dataclasses.replace(Settings(), masks=True)
    params = abstract_variables(create_detector("resnet50", (1.0,), 80, settings))["params"]
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}
    assert counts["backbone"] == 25_557_032 - 2_049_000, "ResNet-50 without its classifier"
    assert counts["pyramid"] == (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 4 * (9 * 256 * 256 + 256)
    assert counts["region_proposals"] == 9 * 256 * 256 + 256 + 256 * 15 + 15
    assert counts["box_head"] == 12544 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * (81 + 320) + 401
    assert counts["mask_head"] == 4 * (9 * 256 * 256 + 256) + 4 * 256 * 256 + 256 + 256 * 80 + 80


def test_only_resnets_carry_detectors():
    with pytest.raises(UserError, match="mobilenet_v2 is no ResNet"):
        create_detector("mobilenet_v2", (1.0,), 80, Settings())
    with pytest.raises(UserError, match="needs four stages"):
        create_detector("resnet_tiny", (1.0,), 80, Settings())


def test_transposed_convolutions_are_those_of_xla(rng):
    for side, strides in ((2, 2), (4, 2), (3, 3)):
        x = jnp.asarray(rng.normal(size=(2, 5, 6, 3)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(side, side, 3, 4)), jnp.float32)
        margin = side - 1 - (side - strides) // 2
        expected = jax.lax.conv_transpose(
            x, kernel, (strides, strides), [(margin, margin)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(transposed_convolution(x, kernel, strides), expected, atol=1e-5)


def test_the_backbone_has_all_that_the_detector_was_given(detector):
    """What is forgotten would be a silent default: calibration relies on the momentum, for one."""
    given = {
        "batch_norm_momentum": 0.0,
        "batch_norm_axis": "data",
        "batch_norm_groups": ((0, 1),),
        "dtype": jnp.bfloat16,
    }
    backbone = detector.clone(**given)._resnet(parent=None)
    assert {name: getattr(backbone, name) for name in given} == given
    options = {name: value for name, value in given.items() if name != "dtype"}
    made = create_detector("resnet_pyramid_tiny", (0.5, 1.0), 3, Settings(), **options)
    assert {name: getattr(made, name) for name in options} == options
    assert made.stages == made._resnet(parent=None).stages
