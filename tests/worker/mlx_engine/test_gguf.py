"""GGUF to mlx-lm's format."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from stoker.worker.mlx_engine.gguf import Form, convert
from tests.fakes.tiny_gguf import CONTEXT, LAYERS, TOKENS, write_tiny_gguf


def converted(tmp_path: Path, form: Form = "float32", steps: list[tuple[int, int]] | None = None) -> Path:
    target = tmp_path / "model"
    target.mkdir()
    told = [] if steps is None else steps
    convert(write_tiny_gguf(tmp_path / "tiny.gguf"), target, form, lambda done, total: told.append((done, total)))
    return target


def test_mlx_lm_loads_what_was_converted(tmp_path: Path) -> None:
    """All layers arrive, each value as it was, and the model computes finite logits for its whole vocabulary."""
    model, tokenizer = mlx_lm.load(str(converted(tmp_path)))[:2]
    source: Any = mx.load(str(tmp_path / "tiny.gguf"), return_metadata=True)
    weights, metadata = source
    logits = model(mx.array([[4, 5, 6]]))

    assert len(model.layers) == LAYERS
    assert logits.shape == (1, 3, len(TOKENS))
    assert mx.isfinite(logits).all().item()
    assert mx.array_equal(model.layers[6].self_attn.k_proj.weight, weights["blk.6.attn_k.weight"]).item()
    assert mx.array_equal(model.model.embed_tokens.weight, weights["token_embd.weight"]).item()
    assert tokenizer.chat_template == metadata["tokenizer.chat_template"]


def test_the_tokenizer_is_the_files_own(tmp_path: Path) -> None:
    """Merges apply, digits stay single, special tokens are one each and end a text where the file says so."""
    tokenizer = mlx_lm.load(str(converted(tmp_path)))[1]
    tokens = tokenizer.encode("abc12<|im_end|>ab", add_special_tokens=False)

    assert [TOKENS[token] for token in tokens] == ["abc", "1", "2", "<|im_end|>", "ab"]
    assert tokenizer.eos_token_ids == {2}
    assert tokenizer.bos_token_id == 1
    assert tokenizer.decode(tokens) == "abc12<|im_end|>ab"
    assert tokenizer.model_max_length == CONTEXT


def test_progress_counts_every_layer(tmp_path: Path) -> None:
    """Steps go up by at most two, from none to all."""
    steps: list[tuple[int, int]] = []
    converted(tmp_path, steps=steps)
    done, totals = zip(*steps, strict=True)

    assert set(totals) == {LAYERS + 2}
    assert (done[0], done[-1]) == (0, LAYERS + 2)
    assert all(0 < after - before <= 2 for before, after in itertools.pairwise(done))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general__architecture": "falcon"}, "falcon"),
        ({"tokenizer__ggml__model": "llama"}, "gpt2"),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A file that isn't what is expected is an error that says what it is."""
    source = write_tiny_gguf(tmp_path / "other.gguf", **changes)
    with pytest.raises(ValueError, match=words):
        convert(source, tmp_path, "float32", lambda *_: None)
