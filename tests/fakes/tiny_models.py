"""Tiny random models in mlx-lm's format, with a byte-level tokenizer and a chat template, in milliseconds.

A token is a byte, so the number of tokens of a text is its length in UTF-8, plus one for each `<|im_start|>`
and the like. Answers are printable ASCII, and never end by themselves: a special token is never the likeliest
one, unless `eos` names ordinary tokens that shall end a text.

Random weights as a model class leaves them answer every prompt with one constant token, which would make each
test of equality empty. So the weights here are scaled until the prompt matters, and `write_tiny_model`
refuses to write a model that doesn't answer three prompts in three ways.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

if mx.default_device() == mx.Device(mx.cpu):
    mx.disable_compile()  # on a CPU each new kernel would run a C++ compiler in the middle of a test

Kind: TypeAlias = Literal["llama", "sliding", "hybrid"]
"""`llama`: pure `KVCache`. `sliding`: llama, every other layer with a window of 64. `hybrid`: recurrent lfm2."""

CONTEXT = 8192
"""Tokens that the models take."""

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
MUTED = 0.05
"""Factor on the embeddings of tokens that shall be read but not said."""
MARKERS = ("<tool_call>", "</tool_call>")
VOCABULARY = 256 + len(SPECIALS) + len(MARKERS)

PROBES = tuple(
    f"<|im_start|>system\nYou {verb}.<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>assistant\n"
    for verb in ("count to ten", "stoke the fire", "write code")
)
"""Prompts that a lively model answers differently, although their last thirty tokens are the same."""

CHAT_TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
{{- '# Tools\n<tools>' }}
{%- for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
{{- '\n</tools>\nCall one as <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
{{- raise_exception('unknown role ' ~ message.role) }}
{%- endif %}
{%- if message.role != 'system' or not loop.first %}{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content %}{{ message.content }}{% endif %}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function %}{% set tool_call = tool_call.function %}{% endif %}
{{- '\n<tool_call>\n{"name": "' + tool_call.name + '", "arguments": ' }}{{ tool_call.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a kind is made: mlx-lm's `config.json`, and the spread of its weights."""

    config: dict[str, Any]
    spread: float = 0.35
    attention: float = 1.0
    """Factor on attention's outputs: where it is too small, only the last few tokens matter."""


_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
}
_LLAMA: dict[str, Any] = {
    **_COMMON,
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}

_ATTENTION_OUT = ("self_attn.o_proj.weight", "self_attn.out_proj.weight")

RECIPES: dict[Kind, Recipe] = {
    "llama": Recipe({**_LLAMA, "num_hidden_layers": 2}),
    "sliding": Recipe(
        {
            **_LLAMA,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 64,
        }
    ),
    "hybrid": Recipe(
        {
            **_COMMON,
            "model_type": "lfm2",
            "architectures": ["Lfm2ForCausalLM"],
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention"] * 2,
            "norm_eps": 1e-5,
            "conv_bias": False,
            "conv_L_cache": 3,
            "block_dim": 64,
            "block_ff_dim": 128,
            "block_multiple_of": 32,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": False,
        },
        attention=12.0,
    ),
}


def write_tiny_model(kind: Kind, folder: Path, *, seed: int = 4, eos: Iterable[int] = ()) -> Path:
    """Write a model into `folder`, which is made; returns it.

    Args:
        kind: Which architecture.
        folder: Where; its name is the model's id.
        seed: Other seeds give other weights.
        eos: Ordinary token ids (bytes) that shall end a text too, for tests of a natural end.
    """
    recipe = RECIPES[kind]
    module = importlib.import_module(f"mlx_lm.models.{recipe.config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(recipe.config))
    model.update(tree_unflatten(_weights(model, recipe, seed)))
    mx.eval(model.parameters())
    _demand_lively(model, kind, seed)
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    ends = [token_id(IM_END), token_id(END_OF_TEXT), *eos]
    write_json(folder / "config.json", {**recipe.config, "eos_token_id": ends})
    write_json(folder / "generation_config.json", {"eos_token_id": ends})
    write_tokenizer(folder)
    return folder


def roomy(model: Path, folder: Path) -> Path:
    """A copy of a model, in `folder`, that takes eight times the tokens."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "max_position_embeddings": 8 * CONTEXT})
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write the byte-level tokenizer and its chat template."""
    tokenizer = Tokenizer(models.BPE(vocab=byte_symbols(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in MARKERS])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": IM_START,
            "eos_token": IM_END,
            "pad_token": END_OF_TEXT,
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def token_id(name: str) -> int:
    """The id of a special token or marker; a byte's id is the byte."""
    return 256 + (*SPECIALS, *MARKERS).index(name)


def greedy(model: Any, tokens: Iterable[int], count: int, kv: list[Any] | None = None) -> tuple[int, ...]:
    """The `count` likeliest next tokens, computed the plain way: the reference for engines."""
    kv = make_prompt_cache(model) if kv is None else kv
    answer: list[int] = []
    pending = list(tokens)
    for _ in range(count):
        logits = model(mx.array(pending)[None], cache=kv)
        pending = [cast("int", mx.argmax(logits[0, -1]).item())]
        answer += pending
    return tuple(answer)


def _weights(model: Any, recipe: Recipe, seed: int) -> list[tuple[str, mx.array]]:
    """Normal weights for every matrix; norms stay 1. Rows of tokens that shall not be said are muted."""
    keys = iter(mx.random.split(mx.random.key(seed), 512))
    weights = []
    for name, old in tree_flatten(model.parameters()):
        scale = recipe.spread * (recipe.attention if name.endswith(_ATTENTION_OUT) else 1.0)
        new = old if old.ndim == 1 else mx.random.normal(old.shape, scale=scale, key=next(keys))
        if name.endswith("embed_tokens.weight"):
            audible = [0x20 <= token < 0x7F for token in range(VOCABULARY)]
            new = mx.where(mx.array(audible)[:, None], new, new * MUTED)
        weights.append((name, new))
    return weights


def _tokenize(text: str) -> Iterator[int]:
    """Token ids of a text without loading the tokenizer that was written."""
    for part in re.split(r"(<\|\w+\|>)", text):
        yield from [token_id(part)] if part in SPECIALS else part.encode()


def _demand_lively(model: Any, kind: Kind, seed: int) -> None:
    answers = {greedy(model, _tokenize(probe), 6) for probe in PROBES}
    if len(answers) < len(PROBES) or any(len(set(answer)) == 1 for answer in answers):
        raise AssertionError(f"a tiny {kind} of seed {seed} gives {answers} to three prompts: take another seed")


def byte_symbols() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character: the GPT-2 table, in byte order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return {chr(byte if byte in printable else next(others)): byte for byte in range(256)}


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
