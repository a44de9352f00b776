"""Which keypoints change places in a mirror: by the words of their names, and never two into the same one."""

from itertools import product

import pytest

from slimjax.tasks.detection.data.mirroring import mirrored_keypoints, told_pairs
from slimjax.tasks.detection.data.shapes import KEYPOINTS

PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO = ("nose", *(f"{side}_{part}" for part in PARTS for side in ("left", "right")))


def test_those_of_people_in_coco():
    assert mirrored_keypoints(COCO) == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def test_those_of_the_generated_shapes():
    """The corner that is farthest right in an image is the one that is farthest left in a mirror."""
    names = [KEYPOINTS[index] for index in mirrored_keypoints(KEYPOINTS)]
    assert dict(zip(KEYPOINTS, names, strict=True)) == {
        "top": "top",
        "right": "left",
        "bottom": "bottom",
        "left": "right",
    }


@pytest.mark.parametrize(
    "pair",
    [
        ("Left_eye", "right_eye"),
        ("l_eye", "r_eye"),
        ("LeftEye", "RightEye"),
        ("LEye", "REye"),
        ("LEFT EYE", "RIGHT EYE"),
        ("eye-L", "eye-R"),
        ("eyeLeft", "eyeRight"),
        ("lefteye", "righteye"),
        ("topleft", "topright"),
        ("left", "right"),
        ("front_left_1", "front_right_1"),
        ("right_left_a", "left_right_a"),
        ("bright_left", "bright_right"),
    ],
)
def test_sides_are_words_however_they_are_written(pair):
    names = ("nose", pair[0], "tail", pair[1])
    assert mirrored_keypoints(names) == [0, 3, 2, 1]
    assert told_pairs(names) == f"keypoints that change places in a mirror: {pair[0]} and {pair[1]}"


@pytest.mark.parametrize(
    "names",
    [
        ("nose", "left_only"),
        ("left_right_a", "right_right_a"),
        ("left_eye", "Left_eye", "right_eye"),
        ("left_eye", "right_ear"),
        ("left_eye_1", "right_eye_2"),
        ("lip", "rip"),
        ("corner_1", "corner_2"),
        ("links", "rechts"),
        (),
    ],
)
def test_what_has_no_partner_stays_itself(names):
    assert mirrored_keypoints(names) == list(range(len(names)))
    assert told_pairs(names).startswith(f"none of the {len(names)} keypoints changes places in a mirror")


def test_mirrored_twice_all_names_are_what_they_were():
    words = ("left", "right", "l", "a", "R", "bright")
    names = [separator.join(parts) for parts in product(words, repeat=2) for separator in ("_", "")]
    partners = mirrored_keypoints(names)
    assert [partners[partner] for partner in partners] == list(range(len(names)))
    assert partners != list(range(len(names)))
