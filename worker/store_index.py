"""What the store's folder holds, kept in memory and read again when the folder has changed."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from .identity import Identity
from .manifest import LARGEST, Damaged, Manifest, OtherFormat, decode, packed
from .prefix_cache import shared_length
from .quarantine import Mark, marks
from .store_files import Folder, StoredFile

OTHER_FORMAT = "format changed"


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored prefix.

    Attributes:
        key: Names its files.
        name: For people; None if it has none.
        model: Whose it is.
        size: Bytes of the data file.
        sha256: Of the data file.
        seconds: What it took to compute.
        pinned: Evicted last.
        created: Seconds since 1970.
        used: When last, in seconds since 1970; `created` if never.
        uses: How often it was opened.
        foreign: Why it isn't for this model, weights, engine and so on; None if it is.
        mark: Why it is set aside, if it is.
    """

    key: str
    name: str | None
    model: str
    packed_tokens: bytes = field(repr=False)
    size: int
    sha256: str
    seconds: float
    pinned: bool
    created: float
    used: float
    uses: int
    foreign: str | None
    mark: Mark | None

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.packed_tokens) // 8

    @property
    def tokens(self) -> tuple[int, ...]:
        """What its KV was computed from."""
        unpacked = array("q")
        unpacked.frombytes(self.packed_tokens)
        return tuple(unpacked)

    @property
    def servable(self) -> bool:
        """Whether it may be opened, as far as is known without reading its data."""
        return self.foreign is None and self.mark is None


@dataclass(frozen=True, slots=True)
class Contents:
    """The folder at one instant.

    Attributes:
        files: All of ours.
        entries: By key; those whose manifest is right.
        damaged: What is wrong with the other manifests, by key.
        marks: What is set aside, by key.
    """

    files: tuple[StoredFile, ...] = ()
    entries: dict[str, Entry] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)


class Index:
    """Reads the folder; manifests that didn't change are not read again.

    Args:
        folder: Of the store.
        identity: What entries must be bound to.
    """

    def __init__(self, folder: Folder, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity
        self._read: dict[str, tuple[tuple[int, int, int], Manifest | Damaged | OtherFormat]] = {}
        self._contents = Contents()
        self._changed: tuple[int, int] | None = None

    def contents(self, *, fresh: bool = False) -> Contents:
        """What is there; with `fresh` even where the folder's time says that nothing came or went.

        Raises:
            OSError: The folder can't be read.
        """
        changed = self._folder.changed()
        if fresh or changed is None or changed != self._changed:
            self._contents = self._scanned()
            self._changed = changed
        return self._contents

    def _scanned(self) -> Contents:
        files = tuple(self._folder.files())
        whole = {file.name: file for file in files if not file.partial}
        contents = Contents(files=files, marks=marks(self._folder, files))
        self._read = {name: read for name, read in self._read.items() if name in whole}
        for file in whole.values():
            if file.ending != "json":
                continue
            uses = whole.get(f"{file.key}.uses")
            match self._manifest(file):
                case Manifest() as manifest:
                    foreign = self._identity.difference(manifest.model, manifest.identity)
                    contents.entries[file.key] = entry_of(manifest, uses, foreign, contents.marks.get(file.key))
                case Damaged() as fault:
                    contents.damaged[file.key] = str(fault)
                case OtherFormat():
                    data = whole.get(f"{file.key}.safetensors")
                    contents.entries[file.key] = _unknown(file, data.size if data else 0)
                case None:
                    pass
        return contents

    def _manifest(self, file: StoredFile) -> Manifest | Damaged | OtherFormat | None:
        known = self._read.get(file.name)
        if known and known[0] == file.stamp:
            return known[1]
        result: Manifest | Damaged | OtherFormat
        try:
            result = decode(self._folder.read(file.name, LARGEST), file.key)
        except FileNotFoundError:
            return None  # evicted while we looked
        except OSError as error:
            result = Damaged(f"the manifest can't be read: {error}")
        except (Damaged, OtherFormat) as error:
            result = error
        self._read[file.name] = file.stamp, result
        return result


def entry_of(
    manifest: Manifest, uses: StoredFile | None = None, foreign: str | None = None, mark: Mark | None = None
) -> Entry:
    """What a manifest says, and what else is known of the entry."""
    return Entry(
        key=manifest.key,
        name=manifest.name,
        model=manifest.model,
        packed_tokens=packed(manifest.tokens),
        size=manifest.size,
        sha256=manifest.sha256,
        seconds=manifest.seconds,
        pinned=manifest.pinned,
        created=manifest.created,
        used=uses.modified if uses else manifest.created,
        uses=uses.size if uses else 0,
        foreign=foreign,
        mark=mark,
    )


def best(contents: Contents, tokens: Sequence[int], excluded: Container[str]) -> Entry | None:
    """The longest servable entry that is a prefix of the tokens, or all of them; none of the excluded keys."""
    wanted = packed(tokens)
    servable = (entry for entry in contents.entries.values() if entry.servable and entry.key not in excluded)
    fitting = (entry for entry in servable if wanted.startswith(entry.packed_tokens))
    return max(fitting, key=lambda entry: entry.length, default=None)


def closest(contents: Contents, tokens: Sequence[int], excluded: Container[str]) -> tuple[Entry, int] | None:
    """The servable entry that shares most with the tokens, the shortest of several, and how many it shares."""
    wanted = packed(tokens)
    servable = (entry for entry in contents.entries.values() if entry.servable and entry.key not in excluded)
    shares = ((entry, shared_length(entry.packed_tokens, wanted)) for entry in servable)
    found = max(shares, key=lambda pair: (pair[1], -pair[0].length), default=None)
    return found if found and found[1] else None


def _unknown(file: StoredFile, size: int) -> Entry:
    """An entry of another version of ours: it takes space, and that is all we know of it."""
    return Entry(
        key=file.key,
        name=None,
        model="",
        packed_tokens=b"",
        size=size,
        sha256="",
        seconds=0.0,
        pinned=False,
        created=file.modified,
        used=file.modified,
        uses=0,
        foreign=OTHER_FORMAT,
        mark=None,
    )
