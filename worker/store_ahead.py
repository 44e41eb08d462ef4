"""Comparing what will be restored while the model is still being loaded: that takes a core, and loading leaves one.

Only that is done ahead. Loading a prefix may kill the process, and has to wait for a model that it fits anyway.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from .manifest import LARGEST, Damaged, Manifest, OtherFormat, decode
from .store_files import Folder, sha256

log = logging.getLogger(__name__)

Proof: TypeAlias = tuple[float, str, tuple[int, ...]]
"""When a data file had been compared, its checksum, and what the system says of the file: a write changes a time of
it, unless it follows the comparison within the clock's tick of some milliseconds, as it could in any case."""

GOOD_SECONDS = 300.0
"""For which a comparison is good: loading and warming take no longer, and what is older is compared again."""


class Ahead:
    """Comparisons that were begun before anybody asked. Each is good for one use, and not for long.

    Args:
        folder: The store's.
        model: Prefixes of other models are left alone.
        most_bytes: Bytes of data to read; the last used come first.
    """

    def __init__(self, folder: Path, model: str, most_bytes: int) -> None:
        self._folder = Folder(folder)
        self._proofs: dict[str, Future[Proof | None]] = {}
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._begun = self._thread.submit(self._begin, model, most_bytes)

    def proves(self, manifest: Manifest, descriptor: int) -> bool:
        """Whether the open data file was compared already, and is the same since. Waits for one under way."""
        comparison = self._proofs.pop(manifest.key, None)
        if comparison is None or comparison.cancel():
            return False  # its turn has not come: whoever asks is quicker
        proof = comparison.result()
        if proof is None or time.monotonic() - proof[0] > GOOD_SECONDS:
            return False
        return proof[1:] == (manifest.sha256, _stamp(descriptor))

    def _begin(self, model: str, most_bytes: int) -> None:
        try:
            for manifest in self._wanted(model, most_bytes):
                self._proofs[manifest.key] = self._thread.submit(self._compared, manifest.key)
        except OSError as error:
            log.info("nothing is compared ahead: %s", error)  # whoever opens the store will be told what is wrong
        self._thread.shutdown(wait=False)

    def _wanted(self, model: str, most_bytes: int) -> Iterator[Manifest]:
        files = self._folder.files()
        used = {file.key: file.modified for file in files if file.ending == "uses"}
        manifests = [file for file in files if file.ending == "json" and not file.partial]
        for file in sorted(manifests, key=lambda file: -max(file.modified, used.get(file.key, 0.0))):
            with suppress(Damaged, OtherFormat, FileNotFoundError):  # the store itself will deal with these
                manifest = decode(self._folder.read(file.name, LARGEST), file.key)
                if manifest.pinned and manifest.model == model and manifest.size <= most_bytes:
                    most_bytes -= manifest.size
                    yield manifest

    def _compared(self, key: str) -> Proof | None:
        try:
            descriptor = self._folder.open(f"{key}.safetensors")
        except OSError:
            return None  # as above
        try:
            before = _stamp(descriptor)
            digest = sha256(descriptor)
            return (time.monotonic(), digest, before) if _stamp(descriptor) == before else None
        except OSError:
            return None
        finally:
            os.close(descriptor)


def _stamp(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
