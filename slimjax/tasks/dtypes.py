"""The dtypes that networks compute in."""

from typing import Any

import jax.numpy as jnp

from slimjax.errors import UserError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def compute_dtype(name: str, platform: str) -> Any:
    """The dtype of the computation; `auto` is bfloat16 on accelerators.

    Args:
      name: `config.dtype`.
      platform: of the devices that compute, cpu, gpu or tpu; they need not be this machine's.

    Raises:
      UserError: if the name is unknown.
    """
    if name == "auto":
        return jnp.float32 if platform == "cpu" else jnp.bfloat16
    if name not in DTYPES:
        raise UserError(f"dtype={name!r} is unknown; choose one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]
