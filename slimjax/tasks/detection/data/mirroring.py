"""Which keypoints change places in a mirror, by their names."""

import re
from collections.abc import Sequence

_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}

_SIDES = (r"\b(left|right|l|r)\b", r"left|right")
"""Sides as words of their own; and within words, as in `lefteye`, for names that have no partner otherwise."""


def words_of(name: str) -> str:
    """The words and numbers of a name in lower case, with spaces between: `left eye` of `Left_eye` and `LeftEye`."""
    apart = re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.findall(r"[^\W\d_]+|\d+", apart)).lower()


def mirrored_keypoints(names: Sequence[str]) -> list[int]:
    """For each keypoint, by index, the one that it becomes in a mirror: `left_eye` and `right_eye` change places.

    Partners have the same words but for their sides, left and right or l and r, however these are written. Keypoints
    without a partner, or with several, stay themselves: mirrored twice, all are what they were.
    """
    words = [words_of(name) for name in names]
    partners = list(range(len(names)))
    for index, own in enumerate(words):
        for sides in _SIDES:
            others = [place for place, other in enumerate(words) if other == _mirrored(own, sides)]
            if partners[index] == index and words.count(own) == len(others) == 1:
                partners[index] = others[0]
    return [partner if partners[partner] == index else index for index, partner in enumerate(partners)]


def told_pairs(names: Sequence[str]) -> str:
    """A line that says which keypoints change places in a mirror."""
    partners = mirrored_keypoints(names)
    pairs = [f"{names[index]} and {names[other]}" for index, other in enumerate(partners) if index < other]
    if not pairs:
        return (
            f"none of the {len(names)} keypoints changes places in a mirror: no two of their names are a left and a "
            "right, such as left_eye and right_eye"
        )
    return f"keypoints that change places in a mirror: {', '.join(pairs)}"


def _mirrored(words: str, sides: str) -> str:
    return re.sub(sides, lambda match: _OTHER_SIDE[match[0]], words)
