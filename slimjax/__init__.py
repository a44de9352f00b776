"""Slimmable neural networks in JAX: one network, several widths, switched while it runs.

What stands here is imported when it is first asked for (PEP 562), so that command lines can tell a mistake in their
flags, or print their help, without waiting for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimjax.analysis.latency import measure_latency
    from slimjax.analysis.profile import profile_model
    from slimjax.deploy.folding import fold_batch_norm
    from slimjax.deploy.runtime import SlimmableRuntime
    from slimjax.deploy.subnets import extract_subnet
    from slimjax.errors import UserError
    from slimjax.interop import load_torch_checkpoint, save_torch_checkpoint
    from slimjax.models import MODELS, create_model
    from slimjax.training.loading import load_checkpoint

_MODULES = {
    "MODELS": "slimjax.models",
    "SlimmableRuntime": "slimjax.deploy.runtime",
    "UserError": "slimjax.errors",
    "create_model": "slimjax.models",
    "extract_subnet": "slimjax.deploy.subnets",
    "fold_batch_norm": "slimjax.deploy.folding",
    "load_checkpoint": "slimjax.training.loading",
    "load_torch_checkpoint": "slimjax.interop",
    "measure_latency": "slimjax.analysis.latency",
    "profile_model": "slimjax.analysis.profile",
    "save_torch_checkpoint": "slimjax.interop",
}

__all__ = [
    "MODELS",
    "SlimmableRuntime",
    "UserError",
    "create_model",
    "extract_subnet",
    "fold_batch_norm",
    "load_checkpoint",
    "load_torch_checkpoint",
    "measure_latency",
    "profile_model",
    "save_torch_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    # Found without this function from now on.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _MODULES.keys())
