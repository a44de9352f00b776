"""The notebooks as they are committed, and executed anew from an empty folder."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "notebooks"
NAMES = ("quickstart", "finetune", "deploy")
LARGEST_PICTURE_BYTES = 100_000
# Of this or any machine: where people's files are.
ABSOLUTE = re.compile(r"(?<![\w.])/(?:tmp|root|home|work|usr|var|opt|content|Users)/")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts_of(cell):
    """What a cell has printed, streams and values alike."""
    streams = [output.text for output in cell.outputs if output.output_type == "stream"]
    values = [output.data.get("text/plain", "") for output in cell.outputs if "data" in output]
    return streams + values


def pictures_of(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    return [base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.data]


def printed_by(notebook, cell_id):
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    return "".join(texts_of(cell))


def check_outputs(notebook):
    """Every cell was executed, in order, without an error or a warning, and leaves little behind."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.id
            assert output.get("name") != "stderr", output.text
        text = "\n".join(texts_of(cell))
        assert "Warning" not in text, text
        assert "error:" not in text, text
        # A run that hangs tells it.
        assert "waiting for" not in text, text
        assert "\r" not in text, text
        assert not ABSOLUTE.search(text), text
        assert len(text) < 5000, "a reader wants less"
    pictures = pictures_of(notebook)
    assert pictures
    assert max(map(len, pictures)) < LARGEST_PICTURE_BYTES


@pytest.fixture(params=NAMES)
def committed(request):
    return nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)


def test_no_notebook_is_missing():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


def test_committed_outputs_are_whole_and_small(committed):
    nbformat.validate(committed)
    check_outputs(committed)
    sources = [cell.source for cell in code_cells(committed)]
    digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
    assert committed.metadata["executed_cells"] == digest, "a cell was edited; run make notebooks"


def test_every_cell_says_why_and_the_first_installs_and_looks_for_an_accelerator(committed):
    kinds = [cell.cell_type for cell in committed.cells]
    assert kinds[0] == kinds[-1] == "markdown"
    assert ("code", "code") not in pairwise(kinds)
    first = code_cells(committed)[0]
    assert "%pip install" in first.source
    assert re.match(r"JAX \S+ runs on CPU, 1 device\.\n", "".join(texts_of(first)))
    assert committed.metadata["accelerator"] == "GPU", "what Colab then offers"


def test_they_use_what_is_public(committed):
    import slimjax

    sources = "\n".join(cell.source for cell in code_cells(committed))
    assert not re.search(r"from slimjax|import slimjax\.", sources)
    used = set(re.findall(r"(?<!-m )\bslimjax\.(\w+)", sources)) - {"zip"}
    assert used <= set(slimjax.__all__)


@pytest.fixture(scope="module")
def executed(tmp_path_factory, data_dir):
    """Executes a notebook with the project's own script; returns what comes out."""
    output = tmp_path_factory.mktemp("executed")

    def run(name, *options):
        variables = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        variables["TFDS_DATA_DIR"] = str(data_dir)
        result = subprocess.run(
            [sys.executable, str(FOLDER / "execute.py"), name, "--output", str(output), *options],
            env=variables,
            cwd=tmp_path_factory.mktemp("elsewhere"),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return nbformat.read(output / f"{name}.ipynb", as_version=4)

    return run


@pytest.mark.slow
def test_quickstart_learns_at_every_width_and_counts_as_the_program_does(executed):
    notebook = executed("quickstart")
    check_outputs(notebook)
    rows = re.findall(r"^([\d.]+) +([\d,]+) +([\d.]+) M +([\d.]+) % +([\d.]+)$", printed_by(notebook, "tradeoff"), re.M)
    assert [float(row[0]) for row in rows] == [0.125, 0.25, 0.5, 1.0]
    assert [float(row[2]) for row in rows] == [0.16, 0.35, 1.15, 4.13]
    assert all(float(row[3]) < 30 for row in rows), "guessing is wrong 90 times of 100"
    assert all(float(row[4]) > 0 for row in rows)
    assert len(pictures_of(notebook)) == 3


@pytest.mark.slow
def test_finetune_gains_by_its_start_at_every_width(executed):
    notebook = executed("finetune")
    check_outputs(notebook)
    rows = re.findall(r"^(fine-tuned|from nothing), step (\d+) +(.*)$", printed_by(notebook, "compare"), re.M)
    errors = {(name, step): [float(error) for error in line.split()] for name, step, line in rows}
    assert {len(row) for row in errors.values()} == {4}
    tuned = errors["fine-tuned", "60"]
    assert all(error < 15 for error in tuned), "guessing is wrong every other time"
    assert max(errors["fine-tuned", "20"]) < min(errors["from nothing", "20"])
    assert all(error < other for error, other in zip(tuned, errors["from nothing", "60"], strict=True))
    right = re.findall(r"width \S+: (\d+) of (\d+) right", printed_by(notebook, "predict"))
    assert len(right) == 4
    for error, (count, total) in zip(tuned, right, strict=True):
        # 200 of the validation images, resized by another library than evaluation's.
        assert 100 * (1 - int(count) / int(total)) == pytest.approx(error, abs=8)


@pytest.mark.torch
def test_finetune_starts_from_a_pytorch_checkpoint(executed, tmp_path):
    import jax
    import jax.numpy as jnp

    import slimjax

    model = slimjax.create_model("mobilenet_v1_tiny", (0.25, 0.5, 0.75, 1.0), 6)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    slimjax.save_torch_checkpoint(model, variables, tmp_path / "six.pt")
    notebook = executed("finetune", "--set", f"TORCH_CHECKPOINT={tmp_path / 'six.pt'}")
    assert "mobilenet_v1_tiny, widths (0.25, 0.5, 0.75, 1.0), 6 classes" in printed_by(notebook, "start")
    assert "starting from the weights of runs/imported, the classifier anew" in printed_by(notebook, "finetune")
    assert len(re.findall(r"width \S+: \d+ of 200 right", printed_by(notebook, "predict"))) == 4


@pytest.mark.slow
def test_deploy_keeps_its_budget(executed):
    notebook = executed("deploy")
    check_outputs(notebook)
    told = printed_by(notebook, "budget")
    budget, width, median = map(
        float, re.search(r"budget ([\d.]+) ms: mostly width ([\d.]+), whose median is ([\d.]+) ms", told).groups()
    )
    assert median <= budget
    assert width in (0.25, 0.5, 0.75, 1.0)
    rows = re.findall(
        r"^(idle again|idle|loaded) +(\d+) +(\d+) +([\d.]+) +([\d.]+)$", printed_by(notebook, "draw"), re.M
    )
    assert [row[0] for row in rows] == ["idle", "loaded", "idle again"]
    assert all(int(row[1]) > 5 for row in rows)
    told = re.search(r"(\d+) calls, of which (\d+) ran over", printed_by(notebook, "under-load")).groups()
    assert [sum(int(row[column]) for row in rows) for column in (1, 2)] == list(map(int, told))
    assert float(rows[1][3]) <= float(rows[0][3]), "under load it runs narrower, never wider"
    assert len(pictures_of(notebook)) == 2
