"""What is measured of a run, against the network run plainly and channels computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax.errors import UserError
from slimjax.reporting.layers import check_channel, find_layer, norm_layers
from slimjax.reporting.measuring import TOP_IMAGES, collect_images


def stem_scores(run, width, images):
    """The stem at a width by hand: convolution with the leading outputs, then the batch norm of that width."""
    switch = run.model.widths.index(width)
    norm = {
        **run.variables["params"]["stem"]["bn"][f"switch_{switch}"],
        **run.variables["batch_stats"]["stem"]["bn"][f"switch_{switch}"],
    }
    kernel = run.variables["params"]["stem"]["conv"]["kernel"][..., : len(norm["scale"])]
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(images, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=dimensions)
    y = (y - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    return np.asarray(y).max((1, 2))


def test_answers_are_those_of_the_network_on_every_image_that_counts(measured, split):
    _, images, labels = split
    assert measured.labels.tolist() == labels.tolist()
    network = jax.jit(measured.run.model.apply, static_argnames="width")
    for width, outcome in measured.outcomes.items():
        logits = np.asarray(network(measured.run.variables, images, width=width), np.float64)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        assert outcome.predictions.tolist() == logits.argmax(1).tolist()
        np.testing.assert_allclose(outcome.confidences, probabilities.max(1), rtol=1e-4)
        assert outcome.is_right.tolist() == (logits.argmax(1) == labels).tolist()
        assert outcome.top1_error == pytest.approx(100 * np.mean(logits.argmax(1) != labels))


def test_top_images_are_those_of_brute_force(measured, reported_run, measure, split):
    _, images, _ = split
    for channel, of_channel in (
        (measured.top.channel, measured),
        (5, measure(reported_run(), layer="stem", channel=5)),
    ):
        for width in of_channel.widths:
            scores = stem_scores(of_channel.run, width, images)[:, channel]
            expected = sorted(range(len(images)), key=lambda number: -scores[number])[:TOP_IMAGES]
            assert of_channel.top.images[width].tolist() == expected


def test_the_default_channel_tells_classes_apart_best(measured, split):
    _, images, labels = split
    scores = stem_scores(measured.run, 1.0, images)
    means = np.stack([scores[labels == label].mean(0) for label in labels])
    shares = means.var(0) / scores.var(0)
    common = len(measured.top.layer.channels[0.25])
    assert measured.top.channel == int(np.argmax(shares[:common]))


def test_channels_of_grouped_convolutions_are_the_leading_ones_of_each_group(reported_run, measure):
    run = reported_run("shufflenet", widths=(0.5, 1.0))
    layer = find_layer(run.model, "stem", run.name)
    narrow, wide = layer.channels[0.5], layer.channels[1.0]
    size, share = len(wide) // 3, len(narrow) // 3
    assert wide.tolist() == list(range(len(wide)))
    assert narrow.tolist() == [group * size + place for group in range(3) for place in range(share)]
    only_wide = size - 1
    assert set(measure(run, layer="stem", channel=only_wide).top.images) == {1.0}
    assert layer.index_of(size, 0.5) == share


@pytest.mark.parametrize("family", ["mobilenet_v1", "mobilenet_v2", "resnet50", "shufflenet"])
def test_every_family_has_layers_of_one_batch_norm_each(reported_run, family):
    run = reported_run(family, widths=(0.5, 1.0))
    stored = [path for path, _ in jax.tree.leaves_with_path(run.variables["params"]) if path[-1].key == "scale"]
    layers = norm_layers(run.model)
    assert {"/".join(key.key for key in path[:-3]) for path in stored} == {layer.name for layer in layers}
    assert find_layer(run.model, None, run.name).name == layers[-1].name


def test_images_are_collected_by_number_in_their_own_colours(measured, split):
    colours, _, _ = split
    images = collect_images(measured.run, {0, 20, 39})
    assert sorted(images) == [0, 20, 39]
    for number, image in images.items():
        np.testing.assert_array_equal(image, colours[number])


def test_a_layer_or_channel_that_is_not_there_is_told_with_those_that_are(reported_run):
    run = reported_run()
    message = r"--layer=steem is no layer of it \(did you mean 'stem'\?\); choose one of stem, block_1_depthwise"
    with pytest.raises(UserError, match=message):
        find_layer(run.model, "steem", "it")
    message = r"--channel=64 is no channel of block_2_pointwise in it; it has 0 to 63, of which every width has 16"
    with pytest.raises(UserError, match=message):
        check_channel(find_layer(run.model, None, "it"), 64, "it")
    check_channel(find_layer(run.model, None, "it"), 63, "it")
