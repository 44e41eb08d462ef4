"""A tiny llama as a GGUF file, to convert in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

HIDDEN, FEED_FORWARD, LAYERS, CONTEXT = 32, 64, 7, 256
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"0123456789abcdefgh", "ab", "abc"]
MERGES = ["a b", "ab c"]


def write_tiny_gguf(path: Path, *, seed: int = 1, **changes: Any) -> Path:
    """Write the file, unquantized; `changes` replace metadata, with `__` for dots."""
    keys = iter(mx.random.split(mx.random.key(seed), 100))

    def matrix(rows: int, columns: int) -> mx.array:
        return mx.random.normal((rows, columns), scale=0.3, key=next(keys))

    tensors = {"token_embd.weight": matrix(len(TOKENS), HIDDEN), "output_norm.weight": mx.ones(HIDDEN)}
    for layer in range(LAYERS):
        tensors |= _layer(layer, matrix)
    metadata = _metadata() | {key.replace("__", "."): value for key, value in changes.items()}
    mx.save_gguf(str(path), tensors, metadata)
    return path


def _layer(layer: int, matrix: Callable[[int, int], mx.array]) -> dict[str, mx.array]:
    return {
        f"blk.{layer}.attn_q.weight": matrix(HIDDEN, HIDDEN),
        f"blk.{layer}.attn_k.weight": matrix(HIDDEN // 2, HIDDEN),
        f"blk.{layer}.attn_v.weight": matrix(HIDDEN // 2, HIDDEN),
        f"blk.{layer}.attn_output.weight": matrix(HIDDEN, HIDDEN),
        f"blk.{layer}.ffn_gate.weight": matrix(FEED_FORWARD, HIDDEN),
        f"blk.{layer}.ffn_up.weight": matrix(FEED_FORWARD, HIDDEN),
        f"blk.{layer}.ffn_down.weight": matrix(HIDDEN, FEED_FORWARD),
        f"blk.{layer}.attn_norm.weight": mx.ones(HIDDEN),
        f"blk.{layer}.ffn_norm.weight": mx.ones(HIDDEN),
    }


def _metadata() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.embedding_length": mx.array(HIDDEN, mx.uint32),
        "llama.block_count": mx.array(LAYERS, mx.uint32),
        "llama.feed_forward_length": mx.array(FEED_FORWARD, mx.uint32),
        "llama.attention.head_count": mx.array(4, mx.uint32),
        "llama.attention.head_count_kv": mx.array(2, mx.uint32),
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5, mx.float32),
        "llama.rope.freq_base": mx.array(10000.0, mx.float32),
        "llama.context_length": mx.array(CONTEXT, mx.uint32),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": mx.array([3, 3, 3] + [1] * (len(TOKENS) - 3), mx.int32),
        "tokenizer.ggml.bos_token_id": mx.array(1, mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(2, mx.uint32),
        "tokenizer.ggml.padding_token_id": mx.array(0, mx.uint32),
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
