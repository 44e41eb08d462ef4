"""Stoker keeps a local MLX language model running and warm."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # Looked up when asked for: reading the metadata costs a third of a short command's start.
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("stoker")
    except PackageNotFoundError:  # a source tree on the path, never installed
        return "0+unknown"
