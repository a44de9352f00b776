"""What takes the place of damaged examples, and what is told of them."""

import resource

import ml_collections
import numpy as np
import pytest

from slimjax.errors import UserError
from slimjax.tasks.classification.data import records
from slimjax.tasks.classification.data.damage import Damage, fill_damaged


@pytest.mark.parametrize(
    ("is_damaged", "sources"),
    [
        ("..x...", [0, 1, 1, 3, 4, 5]),
        ("x.....", [2, 1, 2, 3, 4, 5]),
        (".xx..x", [0, 0, 0, 3, 4, 4]),
        ("xx.x.x", [2, 2, 2, 4, 4, 4]),
        ("......", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_sound_example_before_takes_the_place(is_damaged: str, sources: list[int]) -> None:
    """Of six examples the first three are one device's, the others another's."""
    batch = {"image": np.arange(6.0)[:, np.newaxis], "label": 10 * np.arange(6)}
    filled = fill_damaged(batch, np.array([mark == "x" for mark in is_damaged]), share_size=3)
    np.testing.assert_array_equal(filled["image"][:, 0], sources)
    np.testing.assert_array_equal(filled["label"], 10 * np.array(sources))


def test_a_share_without_a_sound_example() -> None:
    with pytest.raises(UserError, match="all 2 examples of one device's batch are damaged"):
        fill_damaged({"label": np.arange(4)}, np.array([False, True, True, True]), share_size=2)


def marked(numbers: range) -> dict[str, np.ndarray]:
    """A batch of damaged examples with these numbers, and a sound one."""
    return {
        "is_damaged": np.array([*[True for _ in numbers], False]),
        "file": np.array([b"a/file"] * (len(numbers) + 1), object),
        "record": np.array([*numbers, 99]),
    }


def test_damaged_examples_are_named_once_and_counted(
    dataset_config: ml_collections.ConfigDict, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset_config.skip_damaged = True
    damage = Damage(dataset_config)
    for numbers in (range(3), range(3), range(0), range(30)):
        damage.meet(marked(numbers))
    assert damage.count == 36
    lines = capsys.readouterr().err.splitlines()
    named = [line for line in lines if line.startswith("skipping")]
    assert named == [f"skipping a damaged example of 'digits': record {number} of a/file" for number in range(20)]
    counts = [int(line.split()[0]) for line in lines if line.endswith("damaged examples of 'digits' skipped so far")]
    assert counts == [2, 4, 8, 16, 32]


def test_a_damaged_example_is_an_error_by_default(dataset_config: ml_collections.ConfigDict) -> None:
    damage = Damage(dataset_config)
    damage.meet(marked(range(0)))
    with pytest.raises(UserError, match=r"'digits' is damaged: record 7 of a/file cannot be read or decoded"):
        damage.meet(marked(range(7, 9)))


def test_more_files_than_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.__setitem__(slice(None), wanted))
    records._allow_open_files(100)
    assert limits == [1024, 4096]
    records._allow_open_files(1024)
    assert limits == [1536, 4096]
    with pytest.raises(UserError, match=r"5000 ArrayRecord files are more than this process may open \(4096\)"):
        records._allow_open_files(5000)
