"""Reading and writing PyTorch's files: the one place that needs PyTorch. What is read is untrusted input."""

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slimjax.errors import UserError

NAME_LENGTH = 100
"""How much of a name a message gives."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file, with its shape at hand; `np.asarray(stored, np.float32)` makes an array of it.

    Attributes:
      path: of the file.
      name: of the entry.
      tensor: PyTorch's.
    """

    path: Path
    name: str
    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor, in PyTorch's order of axes."""
        return tuple(self.tensor.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, float32 if no dtype is given; UserError if they are no finite floats of that size."""
        told = f"{self.path}: {shortened(self.name)}"
        if not self.tensor.is_floating_point():
            raise UserError(f"{told} is of type {self.tensor.dtype}; save it as floats")
        try:
            array = self.tensor.detach().float().numpy()
        except Exception as error:
            raise UserError(f"{told} cannot be converted ({_reason(error)})") from error
        if not np.isfinite(array).all():
            raise UserError(f"{told} has values that are infinite or no numbers in float32: the file is damaged")
        return array if dtype is None else array.astype(dtype, copy=bool(copy))


StateDict = Mapping[str, np.ndarray | StoredTensor]
"""Arrays by PyTorch's names without the prefix `module.`, converted where they are taken."""

_SAFE_SINCE = (2, 6)
"""PyTorch whose `weights_only=True` keeps what it says."""

WRAPPER = "module."
"""What PyTorch's data parallelism puts before every name."""

_PREFIXES = (WRAPPER, "_orig_mod.")
"""The other one is of torch.compile."""


def read_state_dict(path: str | Path) -> StateDict:
    """The tensors of a PyTorch checkpoint: a state_dict, or a dict that holds one under `model` or `state_dict`.

    Nothing of the file is run: it is read with `weights_only=True`, which refuses whatever is not plain data. No tensor
    is converted: whoever takes one has compared its shape before, which the file is free to claim.

    Args:
      path: of a file that `torch.save` wrote.

    Returns:
      Tensors by name. Where all names begin with `module.` or torch.compile's `_orig_mod.`, they are without it.

    Raises:
      UserError: if PyTorch is not installed, or the file is absent, damaged or not a state_dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        held = "it is no file" if path.exists() else "there is no such file"
        raise UserError(f"checkpoint={path}: {held}; give one that torch.save has written")
    loaded = _load(path)
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        held = "an empty dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise _not_a_state_dict(path, f"it holds {held}")
    stored = {name: _stored(path, name, value) for name, value in loaded.items()}
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in stored)), None):
        stored = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    return stored


def write_state_dict(path: str | Path, state: Mapping[str, np.ndarray], wrapped: bool) -> None:
    """Writes arrays as a PyTorch checkpoint, whole or not at all.

    Args:
      path: of the file, which must not be there, in a folder that is.
      state: arrays by PyTorch's names.
      wrapped: whether names get the prefix `module.` and the state_dict stands under `model`, or it stands bare.

    Raises:
      UserError: if PyTorch is not installed, or the file is there or cannot be written.
    """
    path = Path(path).expanduser()
    torch = _pytorch(f"writing {path}")
    if os.path.lexists(path):
        raise UserError(f"{path} is there already; give a new file, or remove it")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    content = {"model": {f"{WRAPPER}{name}": tensor for name, tensor in tensors.items()}} if wrapped else tensors
    try:
        _write_whole(path, partial(torch.save, content))
    # PyTorch raises RuntimeError where its own writer fails.
    except (OSError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0][:120]
        raise UserError(
            f"{path} cannot be written ({reason}); give a file in a folder that is there and yours"
        ) from None


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file beside its place and renames it there."""
    handle, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(unfinished))
        os.chmod(unfinished, 0o644)
        os.rename(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _pytorch(purpose: str) -> Any:
    """The module `torch`; UserError, with the remedy, if it is not installed or its reader is not safe."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{purpose} needs PyTorch, which is not installed; run: pip install 'slimjax[torch]'") from None
    if _release(torch.__version__) < _SAFE_SINCE:
        wanted = ".".join(map(str, _SAFE_SINCE))
        raise UserError(
            f"{purpose} needs PyTorch {wanted} or newer, {torch.__version__} is installed: it may run code that is in "
            "a checkpoint (CVE-2025-32434); run: pip install --upgrade torch"
        )
    return torch


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version such as `2.13.0+cpu`."""
    return tuple(int(number) for number in version.split(".")[:2])


def shortened(name: str) -> str:
    """A name of the file for a message, which no name makes long."""
    return name if len(name) <= NAME_LENGTH else f"{name[:NAME_LENGTH]}..."


def _load(path: Path) -> Any:
    torch = _pytorch(f"reading {path}")
    try:
        # PyTorch warns of kinds of tensors that are refused below.
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read: {_fault(path, error)}") from error


_ZIP, _PICKLE = b"PK", b"\x80"
"""How the files begin that `torch.save` writes, of today and before PyTorch 1.6."""


def _fault(path: Path, error: Exception) -> str:
    """Why PyTorch does not read a file, and what to do."""
    with path.open("rb") as file:
        first = file.read(2)
    if not first:
        return "it is empty; save it anew"
    if not first.startswith((_ZIP, _PICKLE)):
        return "torch.save has not written it; give a file that it has"
    if refused := re.search(r"(?:Unsupported global: |[Uu]nsupported )GLOBAL (\S+)", str(error)):
        return (
            f"it holds more than tensors ({_plain(refused[1])}), and other objects are not loaded since they could run "
            "code; save the state_dict alone, as in torch.save(state_dict, path)"
        )
    return f"it is damaged or cut short ({_reason(error)}); save or fetch it anew"


def _reason(error: Exception) -> str:
    """What PyTorch says is wrong, in one line of plain characters, without its advice to load the file unsafely."""
    _, _, behind = str(error).partition("WeightsUnpickler error:")
    text = next(filter(None, map(str.strip, (behind or str(error)).splitlines())), "")
    # What follows the first sentence is advice.
    return f"{type(error).__name__}: {_plain(re.split(r'[.;] ', text)[0])}"


def _plain(text: str) -> str:
    """What quotes the file, which may hold what a terminal obeys."""
    return shortened("".join(character if character.isprintable() else "?" for character in text))


def _stored(path: Path, name: Any, value: Any) -> StoredTensor:
    """One entry, once it is known to be a named tensor of plain numbers, all of which the file has."""
    import torch

    if not isinstance(name, str):
        raise _not_a_state_dict(path, f"it has a key of type {type(name).__name__}")
    told = shortened(name)
    # Names come back in messages, which are one line whatever the file says.
    if not name.isprintable():
        raise _not_a_state_dict(path, f"it has the key {told!r}")
    if not isinstance(value, torch.Tensor):
        raise _not_a_state_dict(path, f"{told} is of type {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_complex():
        raise UserError(f"{path}: {told} is a sparse, nested, quantised or complex tensor; save it as plain floats")
    held = value.untyped_storage().nbytes() // value.element_size()
    if value.numel() > held:
        raise UserError(
            f"{path}: {told} has {value.numel()} elements, of which the file holds {held}; save a contiguous tensor"
        )
    return StoredTensor(path, name, value)


def _not_a_state_dict(path: Path, found: str) -> UserError:
    return UserError(
        f"{path} is not a state_dict: {found}; give a file of named tensors, or of a dict that has them under 'model'"
    )
