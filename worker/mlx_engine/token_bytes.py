"""The bytes that a token stands for: exact, also where they are only part of a character."""

from __future__ import annotations

from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer

SPACE = "\u2581".encode()
"""How SentencePiece writes a space."""


class TokenBytes:
    """Of one tokenizer.

    Args:
        tokenizer: mlx-lm's tokenizer wrapper.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        detokenizer = tokenizer.detokenizer
        self._pieces: Any = getattr(detokenizer, "tokenmap", None)
        self._byte_level = isinstance(detokenizer, BPEStreamingDetokenizer)
        self._sentencepiece = isinstance(detokenizer, SPMStreamingDetokenizer)
        self._added = {token: str(added) for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items()}

    def __getitem__(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        if self._pieces is None or not (self._byte_level or self._sentencepiece):
            # Some other tokenizer, whose tokens of half a character come as a replacement character.
            return str(self._tokenizer.decode([token])).encode()
        piece = self._pieces[token] if token < len(self._pieces) else None
        if piece is None:
            return b""  # the model has more logits than the tokenizer has tokens
        if self._sentencepiece:
            return bytes(piece).replace(SPACE, b" ")
        return b"".join(_BYTES.get(character) or character.encode() for character in piece)


def _byte_symbols() -> dict[str, bytes]:
    """Byte-level BPE writes each byte as one printable character; GPT-2 chose which."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return {chr(byte if byte in printable else next(others)): bytes([byte]) for byte in range(256)}


_BYTES = _byte_symbols()
