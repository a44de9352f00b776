"""Weights of other frameworks as variables of slimjax's networks, and back."""

from slimjax.interop.torch_checkpoints import load_torch_checkpoint, save_torch_checkpoint

__all__ = ["load_torch_checkpoint", "save_torch_checkpoint"]
