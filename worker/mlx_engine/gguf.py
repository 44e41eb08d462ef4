"""A llama in GGUF becomes a directory in mlx-lm's format.

Only what the embedded default model needs: the llama architecture, tied embeddings, blocks of 32 where quantized, and
a byte-level BPE that splits digits. `mlx.load` reads the file; here tensors get mlx-lm's names, and the tokenizer is
built anew from the file's own tokens and merges.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

Form: TypeAlias = Literal["float32", "quantized"]
"""How the weights are written. On a CPU float32 is much the faster one: it can use a BLAS."""

GROUP = 32
"""Weights for each scale in GGUF's Q4_0, Q4_1 and Q8_0, and so in what `mlx.load` makes of them."""
LAYERS_PER_FILE = 6
"""Weights are converted, written and forgotten in such portions, to need little memory: SmolLM2's are 85 MB."""
CONTROL = 3
"""GGUF's token type of special tokens."""

_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}

Weights: TypeAlias = dict[str, mx.array]


def preferred_form() -> Form:
    """The faster form on the device that MLX will use."""
    return "float32" if mx.default_device() == mx.Device(mx.cpu) else "quantized"


def convert(source: Path, target: Path, form: Form, progress: Callable[[int, int], None]) -> None:
    """Write the model in the GGUF file `source` into the existing directory `target`.

    Args:
        source: The file.
        target: An empty directory.
        form: Float32, or as it is; the latter only for a file that is quantized throughout.
        progress: Called with steps done and in all, after each layer.

    Raises:
        ValueError: If the file isn't a llama with tied embeddings in a quantization that MLX reads.
        RuntimeError: If MLX can't read or write a file.
        OSError: The same for files that MLX has no part in.
    """
    loaded: Any = mx.load(str(source), format="gguf", return_metadata=True)
    weights, metadata = loaded
    _demand_supported(weights, metadata)
    layers = int(_number(metadata, "llama.block_count"))
    steps = layers + 2
    progress(0, steps)
    _write_tokenizer(metadata, target)
    _write_json(target / "config.json", _config(weights, metadata, form))
    _write_json(target / "generation_config.json", _special_ids(metadata))
    files = -(-layers // LAYERS_PER_FILE) + 1
    _save(target, 1, files, _model_ends(weights, form))
    progress(2, steps)
    for index in range(1, files):
        portion: Weights = {}
        for layer in range((index - 1) * LAYERS_PER_FILE, min(index * LAYERS_PER_FILE, layers)):
            portion |= _layer(weights, layer, form)
            progress(layer + 3, steps)
        _save(target, index + 1, files, portion)


def _demand_supported(weights: Weights, metadata: dict[str, Any]) -> None:
    architecture, tokenizer = metadata.get("general.architecture"), metadata.get("tokenizer.ggml.model")
    if architecture != "llama" or tokenizer != "gpt2":
        raise ValueError(f"it has architecture {architecture} and tokenizer {tokenizer}; expected llama and gpt2")
    if "output.weight" in weights:
        raise ValueError("its output layer is not its embeddings; expected tied ones")


def _config(weights: Weights, metadata: dict[str, Any], form: Form) -> dict[str, Any]:
    heads = int(_number(metadata, "llama.attention.head_count"))
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": int(_number(metadata, "llama.embedding_length")),
        "num_hidden_layers": int(_number(metadata, "llama.block_count")),
        "intermediate_size": int(_number(metadata, "llama.feed_forward_length")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_number(metadata, "llama.attention.head_count_kv", heads)),
        "rms_norm_eps": _number(metadata, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": _number(metadata, "llama.rope.freq_base", 10000.0),
        # GGUF permutes the rows of q and k so that pairs to rotate are neighbours, which is MLX's "traditional".
        "rope_traditional": True,
        "max_position_embeddings": int(_number(metadata, "llama.context_length")),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **_special_ids(metadata),
    }
    if form == "quantized":
        # mlx-lm takes those of a tensor's bits that differ from the first layer's from their key here.
        config["quantization"] = {"group_size": GROUP, "bits": _bits(weights, "blk.0.attn_q")}
        config["quantization"]["model.embed_tokens"] = {"group_size": GROUP, "bits": _bits(weights, "token_embd")}
    return config


def _special_ids(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{role}_token_id": int(_number(metadata, f"tokenizer.ggml.{name}_token_id"))
        for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }


def _model_ends(weights: Weights, form: Form) -> Weights:
    """What is before the first layer and after the last."""
    ends = _renamed(weights, "token_embd", "model.embed_tokens", form)
    return ends | _renamed(weights, "output_norm", "model.norm", form)


def _layer(weights: Weights, layer: int, form: Form) -> Weights:
    converted: Weights = {}
    for old, new in _NAMES.items():
        converted |= _renamed(weights, f"blk.{layer}.{old}", f"model.layers.{layer}.{new}", form)
    mx.eval(converted)
    return converted


def _renamed(weights: Weights, old: str, new: str, form: Form) -> Weights:
    """One tensor, a triplet where it stays quantized; taken out of `weights`, so that its memory is freed."""
    bits = _bits(weights, old)
    parts = {part: _precise(weights.pop(f"{old}.{part}")) for part in _parts(weights, old)}
    if form == "float32" and bits is not None:
        triplet = parts["weight"], parts["scales"], parts["biases"]
        parts = {"weight": mx.dequantize(*triplet, group_size=GROUP, bits=bits)}
    return {f"{new}.{part}": value for part, value in parts.items()}


def _precise(values: mx.array) -> mx.array:
    """Everything but packed weights in float32, from which activations take their precision.

    SmolLM2's reach 25,000, where neighbouring float16 numbers are 16 apart: in half precision it answers nonsense.
    """
    return values if values.dtype == mx.uint32 else values.astype(mx.float32)


def _parts(weights: Weights, name: str) -> list[str]:
    return [part for part in ("weight", "scales", "biases") if f"{name}.{part}" in weights]


def _bits(weights: Weights, name: str) -> int | None:
    """Bits of a quantized tensor's weights, None if it isn't quantized: 32-bit words hold them, GROUP to a scale."""
    if f"{name}.scales" not in weights:
        return None
    words = weights[f"{name}.weight"].shape[-1]
    return words * 32 // (weights[f"{name}.scales"].shape[-1] * GROUP)


def _save(target: Path, number: int, files: int, weights: Weights) -> None:
    path = target / f"model-{number:05}-of-{files:05}.safetensors"
    mx.save_safetensors(str(path), weights, {"format": "mlx"})
    mx.clear_cache()


def _write_tokenizer(metadata: dict[str, Any], target: Path) -> None:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: id_ for id_, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"].tolist()
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(target / "tokenizer.json"))
    ids = {role.removesuffix("_id"): tokens[id_] for role, id_ in _special_ids(metadata).items()}
    _write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **ids,
            "model_max_length": int(_number(metadata, "llama.context_length")),
            "clean_up_tokenization_spaces": False,
            "chat_template": metadata["tokenizer.chat_template"],
        },
    )


def _number(metadata: dict[str, Any], key: str, default: float | None = None) -> float:
    value = metadata.get(key, default)
    if value is None:
        raise ValueError(f"its metadata lacks {key}")
    return cast("float", value.item() if isinstance(value, mx.array) else value)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
