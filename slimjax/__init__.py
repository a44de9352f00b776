"""Slimmable neural networks in JAX: one network, several widths, switched while it runs."""

from slimjax.analysis.latency import measure_latency
from slimjax.analysis.profile import profile_model
from slimjax.deploy import extract_subnet, fold_batch_norm
from slimjax.errors import UserError
from slimjax.interop import load_torch_checkpoint
from slimjax.models import MODELS, create_model

__all__ = [
    "MODELS",
    "UserError",
    "create_model",
    "extract_subnet",
    "fold_batch_norm",
    "load_torch_checkpoint",
    "measure_latency",
    "profile_model",
]
