"""Reading PyTorch's files: the one place that needs PyTorch. What they hold is untrusted input."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slimjax.errors import UserError

StateDict = Mapping[str, np.ndarray]
"""Arrays by PyTorch's names, float32, without the prefix `module.`."""

WRAPPER = "module."
"""What PyTorch's data parallelism puts before every name."""


def read_state_dict(path: str | Path) -> StateDict:
    """The arrays of a PyTorch checkpoint: a state_dict, or a dict that holds one under `model`.

    Nothing of the file is run: it is read with `weights_only=True`, which refuses whatever is not plain data.

    Args:
      path: of a file that `torch.save` wrote.

    Returns:
      Arrays by name, float32. Where all names begin with `module.`, they are without it.

    Raises:
      UserError: if PyTorch is not installed, or the file is absent, damaged or not a state_dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"checkpoint={path}: there is no such file; give one that torch.save has written")
    loaded = _load(path)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not loaded:
        held = "an empty dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise _not_a_state_dict(path, f"it holds {held}")
    arrays = {name: _as_array(path, name, value) for name, value in loaded.items()}
    if all(name.startswith(WRAPPER) for name in arrays):
        arrays = {name.removeprefix(WRAPPER): array for name, array in arrays.items()}
    return arrays


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"reading {path} needs PyTorch, which is not installed; run: pip install 'slimjax[torch]'"
        ) from None
    try:
        # PyTorch warns of kinds of tensors that are refused below.
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read ({_reason(error)}): it is damaged, or holds more than tensors, and other objects "
            "are not loaded since they could run code; save the state_dict alone, as in torch.save(state_dict, path)"
        ) from error


def _reason(error: Exception) -> str:
    """What PyTorch says is wrong, without its advice to load the file unsafely."""
    unpickler = re.search(r"WeightsUnpickler error: (.*)", str(error))
    text = unpickler[1] if unpickler else next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text}"[:160].rstrip()


def _as_array(path: Path, name: Any, value: Any) -> np.ndarray:
    import torch

    # Names come back in messages, which are one line whatever the file says.
    if not isinstance(name, str) or not name.isprintable():
        raise _not_a_state_dict(path, f"it has the key {name!r}")
    if not isinstance(value, torch.Tensor):
        raise _not_a_state_dict(path, f"{name} is of type {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise UserError(f"{path}: {name} is a sparse, quantised or complex tensor; save it as plain floats")
    return value.detach().to(torch.float32).numpy()


def _not_a_state_dict(path: Path, found: str) -> UserError:
    return UserError(
        f"{path} is not a state_dict: {found}; give a file of named tensors, or of a dict that has them under 'model'"
    )
