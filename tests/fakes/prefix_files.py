"""Stored prefixes without an engine: small random bytes stand for KV."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stoker.worker.identity import Identity
from stoker.worker.store import PrefixStore
from stoker.worker.store_results import Draft, NotSaved, Rejected, Saved

PARTS = {"weights": "w1", "template": "t1", "engine": "mlx 1", "adapter": "none"}
LIMIT = 64 << 20


def identity(model: str = "tiny", **changed: str) -> Identity:
    return Identity(model, {**PARTS, **changed})


def store_in(folder: Path, budget: int = LIMIT, *, bound_to: Identity | None = None, **options: Any) -> PrefixStore:
    """A store that leaves no reserve on the volume, unless told to."""
    return PrefixStore(folder, bound_to or identity(), budget, **{"reserve_bytes": 0, **options})


def payload(tokens: Sequence[int], size: int = 5000) -> bytes:
    """What stands for the KV of these tokens."""
    return random.Random(repr(tuple(tokens))).randbytes(size)


def writing(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def commit(
    store: PrefixStore, tokens: Sequence[int], size: int = 5000, *, seconds: float = 1.0, **said: Any
) -> Saved | NotSaved:
    return store.commit(Draft(tokens, size, seconds, **said), writing(payload(tokens, size)))


def saved(store: PrefixStore, tokens: Sequence[int], size: int = 5000, **said: Any) -> str:
    """Save, which must succeed; returns the key."""
    result = commit(store, tokens, size, **said)
    assert isinstance(result, Saved), result
    return result.key


def served(store: PrefixStore, key: str) -> bytes | str:
    """The data that the store serves, or the reason why it doesn't."""
    opened = store.open(key)
    if isinstance(opened, Rejected):
        return opened.reason
    with opened:
        return Path(opened.path).read_bytes()


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A volume of that many bytes at `place`; gives a function that mounts it anew with an option (`ro`, `rw`)."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small volume")
    place.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a volume")
    try:
        yield lambda option: _mounted_anew(place, option)
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(place)], check=True)


def _mounted_anew(place: Path, option: str) -> None:
    subprocess.run(["/bin/mount", "-o", f"remount,{option}", str(place)], check=True)
