"""Reading an entry, and comparing every byte of it with what was saved."""

from __future__ import annotations

import os

from .identity import Identity
from .manifest import LARGEST, Damaged, Manifest, OtherFormat, decode
from .store_ahead import Ahead
from .store_files import Folder, sha256
from .store_index import OTHER_FORMAT, Entry
from .store_results import GONE


class Unusable(Exception):
    """The entry can't be used, by no fault of its own; the message is the reason."""


class Reader:
    """Reads entries, without a lock.

    Args:
        folder: Of the store.
        ahead: What was compared already.
    """

    def __init__(self, folder: Folder, ahead: Ahead | None = None) -> None:
        self._folder = folder
        self._ahead = ahead

    def opened(self, key: str, identity: Identity) -> tuple[Manifest, int]:
        """An entry bound to the identity, and a descriptor of its data.

        Raises:
            Damaged: It is not what was saved.
            Unusable: It isn't for this identity, or has gone.
            OSError: It can't be read.
        """
        raw, manifest = self._manifest(key)
        if reason := identity.difference(manifest.model, manifest.identity):
            raise Unusable(reason)
        return manifest, self._compared(manifest, raw, self._ahead)

    def prove(self, entry: Entry) -> None:
        """Read and compare an entry, whatever it is bound to. Raises as `opened` does."""
        if entry.foreign != OTHER_FORMAT:  # of that only the version that wrote it can tell
            raw, manifest = self._manifest(entry.key)
            os.close(self._compared(manifest, raw, None))  # whoever asks wants it read now

    def _manifest(self, key: str) -> tuple[bytes, Manifest]:
        try:
            raw = self._folder.read(f"{key}.json", LARGEST)
            return raw, decode(raw, key)
        except FileNotFoundError:
            raise Unusable(GONE) from None
        except OtherFormat:
            raise Unusable(OTHER_FORMAT) from None

    def _compared(self, manifest: Manifest, raw: bytes, ahead: Ahead | None) -> int:
        """A descriptor of the data file that the manifest describes.

        Data that doesn't fit is no damage where the manifest has gone or changed meanwhile: then another worker
        dropped the entry, and perhaps saved it anew.
        """
        fault: str | None
        try:
            descriptor = self._folder.open(f"{manifest.key}.safetensors")
            fault = _fault(descriptor, manifest, ahead)
        except FileNotFoundError:
            fault = "the data file is missing"
        except OSError as error:
            fault = _unreadable(error)
        if fault is None:
            return descriptor
        try:
            same = self._folder.read(f"{manifest.key}.json", LARGEST) == raw
        except OSError:
            same = False
        raise Damaged(fault) if same else Unusable(GONE)


def _fault(descriptor: int, manifest: Manifest, ahead: Ahead | None) -> str | None:
    """What is wrong with a data file; closes the descriptor if anything is."""
    fault = None
    try:
        size = os.fstat(descriptor).st_size
        if size != manifest.size:
            fault = f"the data file has {size} bytes, not {manifest.size}"
        elif not (ahead and ahead.proves(manifest, descriptor)) and sha256(descriptor) != manifest.sha256:
            fault = "the data file's checksum doesn't fit"
    except OSError as error:
        fault = _unreadable(error)
    if fault:
        os.close(descriptor)
    return fault


def _unreadable(error: OSError) -> str:
    return f"the data file can't be read: {error.strerror or error}"
