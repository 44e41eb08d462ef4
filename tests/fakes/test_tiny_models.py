"""The tiny models are what the tests that use them believe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import mlx.core as mx
import mlx_lm
import pytest

from tests.fakes import tiny_models
from tests.fakes.tiny_models import PROBES, VOCABULARY, Kind, greedy, token_id, write_tiny_model

KINDS = get_args(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_three_prompts_get_three_answers(kind: Kind, tmp_path: Path) -> None:
    """A tiny model answers different prompts differently, in printable characters, in under a second."""
    start = time.monotonic()
    model, tokenizer = mlx_lm.load(str(write_tiny_model(kind, tmp_path / kind)))[:2]
    answers = [greedy(model, tokenizer.encode(probe), 8) for probe in PROBES]
    elapsed = time.monotonic() - start

    assert len(set(answers)) == len(PROBES)
    assert all(tokenizer.decode(list(answer)).isprintable() for answer in answers)
    assert elapsed < 1.0 + 4.0 * (kind == KINDS[0])  # the first one pays for mlx-lm's imports


def test_a_seed_names_one_model(tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed others."""
    first, again = (write_tiny_model("llama", tmp_path / name, seed=7) for name in ("a", "b"))
    other = write_tiny_model("llama", tmp_path / "c", seed=8)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]

    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_token_is_a_byte(tiny_llama: Path) -> None:
    """Any UTF-8 text is as many tokens as bytes, survives the way back, and special tokens are one each."""
    tokenizer = mlx_lm.load(str(tiny_llama))[1]
    text = "héllo\n\t日本 \x00 <|im_end|>"
    tokens = tokenizer.encode(text, add_special_tokens=False)

    assert len(tokens) == len(text.encode()) - len("<|im_end|>") + 1
    assert tokens[-1] == token_id("<|im_end|>")
    assert tokenizer.decode(tokens) == text
    assert max(tokens) < VOCABULARY


def test_the_template_knows_tools_and_refuses_unknown_roles(tiny_llama: Path) -> None:
    """Tools are rendered after the system text, calls are parsed from JSON, an unknown role raises."""
    tokenizer = mlx_lm.load(str(tiny_llama))[1]
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    rendered = tokenizer.apply_chat_template(messages, tools=[tool], tokenize=False, add_generation_prompt=True)

    assert rendered.index("Be kind.") < rendered.index('"look"') < rendered.index("<|im_start|>user")
    assert rendered.endswith("<|im_start|>assistant\n")
    assert tokenizer.has_tool_calling
    with pytest.raises(Exception, match="unknown role"):
        tokenizer.apply_chat_template([{"role": "wizard", "content": "x"}])


def test_a_dull_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that answer every prompt alike are an error, so that no test of equality is empty."""
    monkeypatch.setattr(tiny_models, "greedy", lambda *_: (1, 1, 1))
    with pytest.raises(AssertionError, match="three prompts"):
        write_tiny_model("llama", tmp_path / "dull")


def test_extra_end_tokens_are_known_to_the_tokenizer(tmp_path: Path) -> None:
    """`eos` adds ordinary tokens that end a text."""
    model, tokenizer = mlx_lm.load(str(write_tiny_model("llama", tmp_path / "short", eos=(65,))))[:2]

    assert {65, token_id("<|im_end|>"), token_id("<|endoftext|>")} <= tokenizer.eos_token_ids
    assert mx.all(mx.isfinite(model(mx.array([[1, 2]])))).item()
