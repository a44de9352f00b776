"""Shares of split ranges against slices of a plain list."""

import pytest

from slimjax.tasks.classification.data.splits import ExampleRange, count_examples, select_examples

RANGES = (ExampleRange("a", 3, 7), ExampleRange("b", 0, 1), ExampleRange("a", 10, 15))
POSITIONS = [("a", 3), ("a", 4), ("a", 5), ("a", 6), ("b", 0), ("a", 10), ("a", 11), ("a", 12), ("a", 13), ("a", 14)]


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (0, 4), (3, 6), (4, 5), (5, 10), (2, 9), (6, 6)])
def test_selected_examples_are_the_slice(start: int, stop: int) -> None:
    selected = select_examples(RANGES, start, stop)
    assert [(part.split, index) for part in selected for index in range(part.start, part.stop)] == POSITIONS[start:stop]
    assert count_examples(selected) == stop - start
