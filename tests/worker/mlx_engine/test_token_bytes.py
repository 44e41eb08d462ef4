"""Bytes of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer, SPMStreamingDetokenizer, TokenizerWrapper
from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from stoker.worker.mlx_engine.token_bytes import TokenBytes
from tests.fakes.tiny_models import token_id


def test_each_byte_is_itself(tiny_llama: Path) -> None:
    """Of a byte-level vocabulary each token gives its own bytes, half characters and control characters too."""
    spelling = TokenBytes(load_tokenizer(tiny_llama))

    assert [spelling[byte] for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_special_tokens_are_their_names(tiny_llama: Path) -> None:
    """A special token gives its name; an id that the tokenizer hasn't gives nothing."""
    spelling = TokenBytes(load_tokenizer(tiny_llama))

    assert spelling[token_id("<|im_end|>")] == b"<|im_end|>"
    assert spelling[100_000] == b""


@pytest.fixture
def sentences() -> PreTrainedTokenizerFast:
    """As SentencePiece writes: spaces as letters, bytes in hexadecimal, and an added token of any letters."""
    vocabulary = {"\u2581the": 0, "fire": 1, "<0xF0>": 2, "\u2581": 3, "é": 4, "<unk>": 5}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken("é é")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_sentencepiece(sentences: PreTrainedTokenizerFast) -> None:
    """Spaces and single bytes come as what they stand for."""
    spelling = TokenBytes(TokenizerWrapper(sentences, SPMStreamingDetokenizer))

    assert [spelling[token] for token in (0, 1, 2, 3, 4, 6)] == [
        b" the", b"fire", b"\xf0", b" ", "é".encode(), "é é".encode()
    ]  # fmt: skip


def test_any_other_tokenizer(sentences: PreTrainedTokenizerFast) -> None:
    """Where the kind isn't known, a token gives what it decodes to."""
    spelling = TokenBytes(TokenizerWrapper(sentences, NaiveStreamingDetokenizer))

    assert (spelling[1], spelling[4]) == (b"fire", "é".encode())
