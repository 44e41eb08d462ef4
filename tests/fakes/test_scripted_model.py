"""The scripted model says what was written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import mlx_lm
import pytest

from tests.fakes.scripted_model import EXAMPLES, SCRIPTS, WEATHER, Format, cut, write_scripted_model


@pytest.mark.parametrize("tools", get_args(Format))
def test_each_script_is_said(tools: Format, tmp_path: Path) -> None:
    """The last message's words choose the script, and mlx-lm's own generation says it to the letter, then ends."""
    write_scripted_model(tmp_path / "m", tools=tools)
    model, tokenizer = mlx_lm.load(str(tmp_path / "m"))[:2]
    for name, text in EXAMPLES[tools].items():
        messages = [{"role": "user", "content": f"please: {name}."}]
        prompt = tokenizer.apply_chat_template(messages, tools=[WEATHER], add_generation_prompt=True)
        said = list(mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=200))

        assert "".join(response.text for response in said) == text
        assert said[-1].finish_reason == "stop"


@pytest.mark.parametrize("tools", get_args(Format))
def test_mlx_lm_infers_parser_and_reasoning(tools: Format, tmp_path: Path) -> None:
    """The template and the vocabulary tell mlx-lm how tools are called and that the model reasons."""
    write_scripted_model(tmp_path / "m", tools=tools)
    tokenizer = mlx_lm.load(str(tmp_path / "m"))[1]

    assert tokenizer.init_kwargs["tool_parser_type"] == tools
    assert (tokenizer.think_start, tokenizer.think_end) == ("<think>", "</think>")


def test_it_is_made_in_no_time(tmp_path: Path) -> None:
    """Writing takes well under a second."""
    start = time.monotonic()
    write_scripted_model(tmp_path / "m")

    assert time.monotonic() - start < 1.0


def test_every_piece_is_a_token_of_its_own(tmp_path: Path) -> None:
    """No token is in two places, and a text that can't be told from another is refused."""
    vocabulary = write_scripted_model(tmp_path / "m")
    ids = [token for script in vocabulary.scripts.values() for token in script]

    assert len(set(ids)) == len(ids)
    assert vocabulary.text(vocabulary.scripts["two calls"]) == SCRIPTS["two calls"]
    with pytest.raises(ValueError, match="two others"):
        cut("ab", {"a", "ab"})
