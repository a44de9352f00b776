"""PyTorch networks for the tests that have PyTorch; the others must not import it."""

from importlib import util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def networks():
    """The module `torch_networks`."""
    spec = util.spec_from_file_location("torch_networks", Path(__file__).with_name("torch_networks.py"))
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
