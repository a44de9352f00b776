"""The README's Python blocks run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_python_blocks_run(capsys):
    blocks = BLOCK.findall((Path(__file__).parents[1] / "README.md").read_text())
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(block, names)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(":")[0] for row in rows] == ["width 0.35", "width 0.5", "width 0.75", "width 1.0"]
    assert rows[-1] == "width 1.0: 3,504,872 parameters, 300.8 M multiply-adds"
    for name in ("narrow", "widest", "logits"):
        assert names[name].shape == (1, 1000)
