"""Chat templates and tokenizers of the kinds that real models have, small enough to be made in milliseconds.

The templates are our own, each with one trait of a family; the tokenizers are trained on their output, so that their
merges run across every boundary that a template has.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "[INST]", "[/INST]", "[TOOLS]", "[/TOOLS]")

_TURNS = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

TEMPLATES = {
    "tools after the system text": """\
{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{{- '# Tools\\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}
{%- endif %}"""
    + _TURNS,
    "tools before the system text": """\
{%- if tools %}{{ '<|im_start|>tools\\n' }}
{%- for tool in tools %}{{ tool | tojson(indent=2) }}{{ '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}"""
    + _TURNS,
    "newlines before each text, and the date": """\
{{- '<s>' }}
{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}
{%- endif %}
{{- '<|head|>system<|/head|>\\n\\nToday: ' + date_string + '\\n\\n' }}
{%- for tool in tools or [] %}{{ tool | tojson(indent=4) + '\\n\\n' }}{% endfor %}
{{- system + '<|im_end|>' }}
{%- for message in messages %}
{{- '<|head|>' + message.role + '<|/head|>\\n\\n' + message.content | trim + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}""",
    "tools and system text in the last message": """\
{{- '<s>' }}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if loop.last and tools %}{{ '[TOOLS] ' + (tools | tojson) + '[/TOOLS]' }}{% endif %}
{{- '[INST] ' }}{% if loop.last and system %}{{ system + '\\n\\n' }}{% endif %}{{ message.content + '[/INST]' }}
{%- else %}{{ ' ' + message.content + '<|im_end|>' }}
{%- endif %}
{%- endfor %}""",
    "a thinking switch": """\
{{- '<|im_start|>system\\n' }}
{%- if enable_thinking is defined and enable_thinking %}{{ 'Think first.\\n' }}{% endif %}
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}"""
    + _TURNS
    + "{%- if add_generation_prompt and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    "plain words only": """\
{%- for tool in tools or [] %}{{ tool | tojson + '\\n' }}{% endfor %}
{%- for message in messages %}{{ '### ' + message.role | capitalize + ': ' + message.content + '\\n\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '### Assistant:' }}{% endif %}""",
}

_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def _gpt2(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _llama3(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _composing(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()
    _llama3(tokenizer)


def _unsplit(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)


def _newlines(tokenizer: Tokenizer) -> None:
    _metaspace(tokenizer)
    tokenizer.add_tokens([AddedToken("\n" * count, normalized=False) for count in (1, 2, 3)])


TOKENIZERS = {
    "gpt2: a space belongs to the word behind it": _gpt2,
    "llama3: newlines belong together": _llama3,
    "qwen: text is composed first": _composing,
    "bytes: nothing is split, merges run everywhere": _unsplit,
    "metaspace: spaces are letters": _metaspace,
    "gemma: each number of newlines is a token": _newlines,
}


@dataclass(frozen=True)
class Family:
    """One template with one tokenizer.

    Attributes:
        template: A key of `TEMPLATES`.
        tokenizer: A key of `TOKENIZERS`.
        special: Whether the template's markers are tokens of their own, or ordinary text.
    """

    template: str
    tokenizer: str
    special: bool = True

    def load(self) -> Any:
        """The tokenizer with its template, as mlx-lm wraps it."""
        return _load(self)


FAMILIES = tuple(
    Family(template, tokenizer, special)
    for template in TEMPLATES
    for tokenizer in TOKENIZERS
    for special in (True, False)
)

_CORPUS = [
    f"{before}{text}{after}"
    for before in ("user\n", "\n\n", "[INST] ", "### User: ", "<|im_start|>user\n", "<|/head|>\n\n", "</think>\n\n")
    for text in ("x", " x", "1", "12", "\nx", "\n\nx", "'s", "-", "<", "{", "be kind", "the fire", "é", "日本", "a")
    for after in ("\n\n", "<|im_end|>\n", "[/INST]", "\n")
] * 2


@functools.cache
def _load(family: Family) -> Any:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    TOKENIZERS[family.tokenizer](tokenizer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    corpus = [*_CORPUS, json.dumps({"name": "poke", "description": "Poke the fire."})]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    if family.special:
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.chat_template = TEMPLATES[family.template]
    return TokenizerWrapper(fast)
