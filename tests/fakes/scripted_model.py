"""A real model, in mlx-lm's format, that says what a test wrote: for parsers, tools and SDKs.

The model is a llama whose attention and MLP add nothing. So the next token depends on the last one only, and the
output layer is a chain: each token of a script leads to the one after it. A prompt's last token names the script: the
template ends with `<|script:NAME|>`, the first script whose name the last message contains; else the first of all.
Sampling at ordinary temperatures says the same.

Each piece of a script is a token of its own, and no two scripts share a token; so a text is cut into short pieces
that are all unlike. Prompts are bytes, as in the tiny models.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.fakes.tiny_models import byte_symbols, write_json

Format: TypeAlias = Literal["json_tools", "mistral", "qwen3_coder"]
"""A tool parser of mlx-lm, which it infers from the chat template."""

CONTEXT = 8192
IM_START, IM_END, THINK, END_OF_THINK = "<|im_start|>", "<|im_end|>", "<think>", "</think>"
USUAL_PIECE = 6
"""Characters of a piece, where nothing speaks against it."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
"""The tool that the scripts call."""


def call(name: str, arguments: str) -> str:
    """A call as Hermes and Qwen write it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


SCRIPTS: dict[str, str] = {
    "plain": "The fire is warm, and it stays so: it was lit at dawn.",
    "reasoned": "<think>Is it warm? I look.</think>\n\nYes, quite warm today.",
    "opened": "So the user greets me.</think>\n\nGood evening, dear friend!",
    "one call": call("get_weather", '{"city": "Paris"}'),
    "two calls": call("get_weather", '{"city": "Rome"}') + "\n" + call("get_weather", '{"days": 2, "city": "Oslo"}'),
    "text then call": "Let me see. " + call("get_weather", '{"city": "Bern"}'),
    "thought then call": "<think>Ask the service.</think>\n" + call("get_weather", '{"city": "Wien"}'),
    "broken call": 'Hm. <tool_call>\n{"name": "get_weather", "arguments": {"city": Lima}\n</tool_call> Sorry.',
    "odd call": "<tool_call>\n[1, 2, 3]\n</tool_call> was odd",
    "open call": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Kyiv"}}',
    "fire": "🔥 brûle 日本, naïf",
}
"""Of format `json_tools`. `opened` begins inside the reasoning, as if the template had opened it."""

MISTRAL_SCRIPTS: dict[str, str] = {
    "plain": "The fire is warm.",
    "one call": 'Well: [TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]',
    "two calls": '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}get_weather[ARGS]{"city": "Oslo", "days": 2}',
    "broken call": '[TOOL_CALLS][{"name": "get_weather", "argu',
}
"""Of format `mistral`, whose calls have no end mark."""

XML_SCRIPTS: dict[str, str] = {
    "plain": "The fire is warm.",
    "one call": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
}
"""Of format `qwen3_coder`: arguments are no JSON."""

EXAMPLES: dict[Format, dict[str, str]] = {
    "json_tools": SCRIPTS,
    "mistral": MISTRAL_SCRIPTS,
    "qwen3_coder": XML_SCRIPTS,
}

_SHOWN: dict[Format, str] = {
    "json_tools": "<tool_call>{{ tool_call.name }} {{ tool_call.arguments | tojson }}</tool_call>",
    "mistral": "[TOOL_CALLS]{{ tool_call.name }} {{ tool_call.arguments | tojson }}",
    "qwen3_coder": "<tool_call>\n<function={{ tool_call.name }}>{{ tool_call.arguments | tojson }}</tool_call>",
}
"""How the template shows calls of earlier turns; mlx-lm infers the parser from it."""

_TEMPLATE = """\
{%%- if tools %%}{{ '<|im_start|>system\n' }}{%% for tool in tools %%}{{ tool | tojson }}{%% endfor %%}\
{{ '<|im_end|>\n' }}{%% endif %%}
{%%- for message in messages %%}{{ '<|im_start|>' + message.role + '\n' }}
{%%- if message.content %%}{{ message.content }}{%% endif %%}
{%%- for tool_call in message.tool_calls or [] %%}
{%%- if tool_call.function %%}{%% set tool_call = tool_call.function %%}{%% endif %%}%(shown)s{%% endfor %%}
{{- '<|im_end|>\n' }}{%% endfor %%}
{%%- if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}
{%%- set chosen = namespace(name=%(first)r) %%}
{%%- for name in %(names)r if name in (messages[-1].content or '') %%}
{%%- if loop.first %%}{%% set chosen.name = name %%}{%% endif %%}{%% endfor %%}
{%%- if chosen.name == 'opened' or prompt_thinks %%}{{ '<think>\n' }}{%% endif %%}
{{- '<|script:' + chosen.name + '|>' }}{%% endif %%}"""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ids of a scripted model: bytes, special tokens, then the pieces of each script in order."""

    specials: tuple[str, ...]
    scripts: dict[str, tuple[int, ...]]
    pieces: tuple[str, ...]

    @property
    def size(self) -> int:
        return 256 + len(self.specials) + len(self.pieces)

    def special(self, name: str) -> int:
        return 256 + self.specials.index(name)

    def text(self, ids: tuple[int, ...]) -> str:
        """What tokens of scripts say."""
        first = 256 + len(self.specials)
        return "".join(self.pieces[token - first] for token in ids)


def write_scripted_model(
    folder: Path, scripts: Mapping[str, str] | None = None, *, tools: Format = "json_tools"
) -> Vocabulary:
    """Write a model into `folder`, which is made; returns which tokens it says.

    Args:
        folder: Where; its name is the model's id.
        scripts: Text of each script by name; None takes the examples of this file for the format.
        tools: Format of its tool calls.
    """
    scripts = EXAMPLES[tools] if scripts is None else scripts
    vocabulary = _vocabulary(scripts)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(vocabulary)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    mx.save_safetensors(str(folder / "model.safetensors"), _weights(config, vocabulary), {"format": "mlx"})
    _write_tokenizer(folder, vocabulary, list(scripts), tools)
    return vocabulary


def cut(text: str, taken: Collection[str]) -> list[str]:
    """Cut a text into short pieces, none of which is in `taken`, and no two alike.

    Raises:
        ValueError: There is no such way: make the text say something else.
    """
    pieces = _cut(text, frozenset(taken))
    if pieces is None:
        raise ValueError(f"{text!r} can't be cut into new tokens, and a token can't lead to two others")
    return pieces


def _cut(text: str, taken: frozenset[str]) -> list[str] | None:
    if not text:
        return []
    usual = min(USUAL_PIECE, len(text))
    for size in (*range(usual, len(text) + 1), *range(usual - 1, 0, -1)):
        piece = text[:size]
        if piece not in taken and (rest := _cut(text[size:], taken | {piece})) is not None:
            return [piece, *rest]
    return None


def _vocabulary(scripts: Mapping[str, str]) -> Vocabulary:
    specials = (IM_START, IM_END, THINK, END_OF_THINK, *(f"<|script:{name}|>" for name in scripts))
    bytes_alone = {chr(byte) for byte in range(256)}
    pieces: list[str] = []
    ids = {}
    for name, text in scripts.items():
        first = 256 + len(specials) + len(pieces)
        pieces += cut(text, {*specials, *bytes_alone, *pieces})
        ids[name] = tuple(range(first, 256 + len(specials) + len(pieces)))
    return Vocabulary(specials, ids, tuple(pieces))


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary.size,
        "hidden_size": vocabulary.size,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "eos_token_id": [vocabulary.special(IM_END)],
    }


def _weights(config: dict[str, Any], vocabulary: Vocabulary) -> dict[str, mx.array]:
    """Zero but for norms, one-hot embeddings, and the chain."""
    module = importlib.import_module("mlx_lm.models.llama")
    model = module.Model(module.ModelArgs.from_dict(config))
    end = vocabulary.special(IM_END)
    after = mx.full((vocabulary.size,), end, dtype=mx.int32)
    for name, ids in vocabulary.scripts.items():
        for token, following in zip((vocabulary.special(f"<|script:{name}|>"), *ids), (*ids, end), strict=True):
            after[token] = following
    one = mx.eye(vocabulary.size)
    weights = {
        name: mx.ones_like(w) if w.ndim == 1 else mx.zeros_like(w) for name, w in tree_flatten(model.parameters())
    }
    weights["model.embed_tokens.weight"] = one
    weights["lm_head.weight"] = one[after].T
    model.update(tree_unflatten(list(weights.items())))
    mx.eval(weights)
    return weights


def _write_tokenizer(folder: Path, vocabulary: Vocabulary, names: list[str], tools: Format) -> None:
    symbols = {byte: symbol for symbol, byte in byte_symbols().items()}
    ids = {symbol: byte for byte, symbol in symbols.items()}
    first = 256 + len(vocabulary.specials)
    # Between bytes and pieces the special tokens have their places; `Tokenizer` takes added tokens that are there.
    ids |= {name: 256 + place for place, name in enumerate(vocabulary.specials)}
    for place, piece in enumerate(vocabulary.pieces):
        ids["".join(symbols[byte] for byte in piece.encode())] = first + place
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in vocabulary.specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = _TEMPLATE % {"shown": _SHOWN[tools], "first": names[0], "names": names}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": IM_START,
        "eos_token": IM_END,
        "pad_token": IM_END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }
    write_json(folder / "tokenizer_config.json", config)
