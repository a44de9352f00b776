"""Versions of the libraries that a result depends on."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("slimjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def package_versions(*extra: str) -> dict[str, str]:
    """Versions by package: of slimjax and what it computes with, and of the `extra` packages that are installed."""
    versions = {package: version(package) for package in _PACKAGES}
    for package in extra:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
