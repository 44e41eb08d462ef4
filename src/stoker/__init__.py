"""Stoker keeps a local MLX language model running and warm."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("stoker")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
