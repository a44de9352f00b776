"""What is wrong in a detector's configuration is told before anything is opened or compiled."""

import pytest
from etils import epath
from slimjax.configs import s_faster_rcnn, s_keypoint_rcnn, s_mask_rcnn, shapes_faster_rcnn

from slimjax.errors import UserError
from slimjax.tasks.creation import create_network
from slimjax.training.run import check_start


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task", "detecting", "task='detecting' is unknown (did you mean 'detection'?)"),
        (
            "model.name",
            "mobilenet_v2",
            "mobilenet_v2 is no ResNet; detectors are built on one, such as resnet50",
        ),
        ("model.name", "resnet_tiny", "a detector needs four stages whose grids have steps of 4, 8, 16 and 32 pixels"),
        ("model.stem", "small", "a detector needs four stages"),
        ("detection.frozen_stages", 1, "batch norms that learn leave no stage frozen; set detection.frozen_stages=0"),
        ("detection.frozen_stages", 5, "detection.frozen_stages=5 has to be 0 to 4"),
        ("detection.short_side", 0, "detection.short_side=0 has to be positive and at most detection.long_side=128"),
        ("detection.short_side", 200, "detection.short_side=200 has to be positive and at most"),
        ("detection.box_samples", 0, "detection.box_samples=0 has to be at least 4"),
        ("detection.num_keypoints", -1, "detection.num_keypoints=-1 has to be at least 0"),
        ("dtype", "float8", "dtype='float8' is unknown"),
    ],
)
def test_mistakes_are_named(key, value, message):
    config = shapes_faster_rcnn.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as caught:
        create_network(config, 3, "cpu")
    assert message in str(caught.value)


def test_the_published_rows_are_built_with_their_heads():
    heads = [
        (network.settings.masks, network.settings.num_keypoints, network.widths)
        for network in (
            create_network(row.get_config(), 80, "tpu") for row in (s_faster_rcnn, s_mask_rcnn, s_keypoint_rcnn)
        )
    ]
    widths = (0.25, 0.5, 0.75, 1.0)
    assert heads == [(False, 0, widths), (True, 0, widths), (False, 17, widths)]
    individual = create_network(s_mask_rcnn.get_config("individual=0.5"), 80, "cpu")
    assert individual.widths == (0.5,)
    with pytest.raises(UserError, match="method 'naive' is not a detector's"):
        s_mask_rcnn.get_config("naive")


def test_a_frozen_backbone_that_nobody_has_trained_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"which nobody has trained; give --config\.init_from"):
        check_start(s_faster_rcnn.get_config(), epath.Path(tmp_path))
    check_start(shapes_faster_rcnn.get_config(), epath.Path(tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label_smoothing", 0.1, r"label_smoothing=0\.1 is for classifiers; leave it out where task=detection"),
        ("dataset.image_size", 320, r"dataset\.image_size=320 .*; the size of images is detection\.short_side"),
        ("dataset.augmentation", "mobile", r"dataset\.augmentation=mobile is for classifiers"),
    ],
)
def test_what_detectors_do_not_have_is_refused(key, value, message):
    config = shapes_faster_rcnn.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        create_network(config, 3, "cpu")
