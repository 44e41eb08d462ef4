"""A stored prefix's manifest: a small JSON file, written last, that says what the data file must be.

`{"digest": sha256 of what follows, "entry": {…}}`. The digest covers the very bytes of the entry, so that no
flipped bit in tokens, identity or checksum survives. The key, which is the file's name too, is a digest over
identity and tokens: a manifest or a data file under another's name doesn't fit it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec

from .identity import FORMAT, Identity
from .store_files import KEY_DIGITS

LARGEST = 64 << 20
"""Bytes of a manifest; a million tokens take 7 MB."""


Token: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class Damaged(Exception):
    """The manifest is not what was written; the message says how that is known."""


class OtherFormat(Exception):
    """The manifest is whole, and was written by another version of ours."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a data file is. Times are seconds since 1970.

    Attributes:
        format: Version of this file.
        key: Names the files.
        model: The model's name, which is not bound.
        identity: What the KV is bound to.
        tokens: What the KV was computed from.
        name: For listings; no prompt text.
        pinned: Evicted last.
        created: When it was saved.
        seconds: What it took to compute: what a restart saves by it.
        size: Bytes of the data file.
        sha256: Of the data file.
    """

    format: int
    key: str
    model: str
    identity: dict[str, str]
    tokens: tuple[Token, ...]
    name: str | None
    pinned: bool
    created: float
    seconds: float
    size: int
    sha256: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: str
    entry: msgspec.Raw


class _Head(msgspec.Struct, frozen=True):
    format: int


def key_of(identity_digest: str, packed_tokens: bytes) -> str:
    """The key of these tokens under this identity."""
    return hashlib.sha256(identity_digest.encode() + b":" + packed_tokens).hexdigest()[:KEY_DIGITS]


def packed(tokens: Sequence[int]) -> bytes:
    """Token ids as bytes, eight for each: one prefix is another's if their bytes are."""
    return array("q", tokens).tobytes()


def encode(manifest: Manifest) -> bytes:
    """The file's content."""
    entry = msgspec.json.encode(manifest, order="deterministic")
    digest = hashlib.sha256(entry).hexdigest()
    return msgspec.json.encode(_Envelope(digest, msgspec.Raw(entry)))


def decode(data: bytes, key: str) -> Manifest:
    """What was written.

    Args:
        data: The file's content.
        key: From the file's name.

    Raises:
        Damaged: Something changed it, or it is another's.
        OtherFormat: It says something that this version doesn't know.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged("the manifest is not whole") from error
    if hashlib.sha256(envelope.entry).hexdigest() != envelope.digest:
        raise Damaged("the manifest's checksum doesn't fit")
    try:
        if msgspec.json.decode(envelope.entry, type=_Head).format != FORMAT:
            raise OtherFormat
        manifest = msgspec.json.decode(envelope.entry, type=Manifest)
    except msgspec.DecodeError as error:
        raise OtherFormat from error
    digest = Identity(manifest.model, manifest.identity).digest
    if not manifest.key == key == key_of(digest, packed(manifest.tokens)):
        raise Damaged("the manifest belongs to another entry")
    return manifest
