"""How programs are compiled for the platform they will run on."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from slimjax.allocator import compiling

Key = TypeVar("Key")
Program = TypeVar("Program")


def compiler_options(platform: str) -> dict[str, bool | int] | None:
    """Options for `jax.jit` under which slimjax's networks run best on a platform.

    XLA:CPU's default scheduler, made for concurrency, keeps far more temporaries alive than its older one. And it uses
    half of an AVX-512 register unless it is told otherwise, with which steps took longer (tried while it was written,
    and not recorded).
    """
    if platform != "cpu":
        return None
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False, "xla_cpu_prefer_vector_width": 512}


def compile_all(platform: str, compiled: Callable[[Key], Program], keys: Iterable[Key]) -> dict[Key, Program]:
    """Compiles several programs, side by side where that saves time.

    On CPU they are compiled one after the other, since XLA:CPU keeps the cores busy with one of them, and the fragments
    that compiling leaves in the heap are set aside, see `slimjax.allocator.compiling`.

    Args:
      platform: for which they are compiled.
      compiled: lowers and compiles the program of a key.
      keys: of the programs, without repetition.

    Returns:
      The programs by their keys, in order.
    """
    keys = list(keys)
    if platform == "cpu":
        with compiling():
            return {key: compiled(key) for key in keys}
    with ThreadPoolExecutor(max(1, len(keys))) as pool:
        return dict(zip(keys, pool.map(compiled, keys), strict=True))
