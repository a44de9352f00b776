"""The modules of experiments/reproduce, its scripts, and results made by hand."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slimjax.configuration import plain

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "reproduce"


@pytest.fixture(scope="module")
def reproduce():
    """Imports a module of the folder, as its scripts import each other."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def cells(reproduce):
    return reproduce("cells")


@pytest.fixture(scope="module")
def raw_results(reproduce):
    return reproduce("raw_results")


@pytest.fixture(scope="session")
def run_script():
    """Runs a script of the folder with arguments: exit code, stdout, stderr."""

    def run(script, *arguments):
        result = subprocess.run(
            [sys.executable, str(FOLDER / script), *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return result.returncode, result.stdout, result.stderr

    return run


# Hand-made results: errors by width, of two seeds.
MADE = {
    ("individual=0.25", 0): {"0.25": 20.0},
    ("individual=0.25", 1): {"0.25": 23.0},
    ("slimmable", 0): {"0.25": 18.0, "0.5": 16.0, "0.75": 15.0, "1": 14.0},
    ("slimmable", 1): {"0.25": 22.0, "0.5": 17.5, "0.75": 15.5, "1": 15.0},
    ("naive", 0): {"0.25": 88.0, "0.5": 70.0, "0.75": 61.0, "1": 52.0},
}


@pytest.fixture
def make_result(cells):
    """Makes a result of errors by width, and where statistics were calibrated, of those."""

    def point(epoch, errors):
        return {"step": int(10 * epoch), "epoch": epoch, "top1_error": errors, "loss": dict.fromkeys(errors, 1.0)}

    def figures_of(errors):
        return {width: {"loss": 0.5, "top1_error": error} for width, error in errors.items()}

    def result(method, seed, errors, calibrated=None, family="mobilenet_v1"):
        cell = cells.Cell(family, method, seed)
        curve = [point(epoch, {width: error + 2 - epoch for width, error in errors.items()}) for epoch in (1.0, 2.0)]
        return {
            "cell": cell.name, "family": cell.family, "method": method, "seed": seed, "dataset": "digits",
            "scale": "tiny", "config": plain(cells.config_of(cell, "digits", "tiny")), "commit": "0123456789ab",
            "machine": {"platform": "cpu", "device": "cpu", "cores": 2, "processor": "Some CPU"},
            "resumed_from_step": 0, "seconds": 100.0 * len(errors) + seed, "train_seconds": 72.0,
            "figures": figures_of(errors), "calibrated": calibrated and figures_of(calibrated),
            "curves": {"train": curve, "eval": curve},
        }  # fmt: skip

    return result


@pytest.fixture
def made(make_result):
    return [make_result(method, seed, errors) for (method, seed), errors in MADE.items()]
