"""The agent's request: its model and its tools."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_lm.utils import load_tokenizer

from bench.agent import agent_tools, anthropic, model_with_tools
from stoker.worker.prefix import chat_prefix
from tests.fakes.agent_tools import AGENT_TOOLS

SYSTEM = [{"role": "system", "content": "You are an agent."}]


def test_the_copy_prints_tools_behind_the_system_text(tiny_llama: Path, tmp_path: Path) -> None:
    """With the copy's template all chats share system text, then tools; the weights are the same file."""
    model = model_with_tools(tiny_llama, tmp_path / "copy")
    tokenizer = load_tokenizer(model)
    shared = chat_prefix(tokenizer, SYSTEM, agent_tools(2), exact=False)
    text = tokenizer.decode(list(shared.tokens))

    assert text.index("You are an agent.") < text.index(AGENT_TOOLS[0]["function"]["name"])
    assert not shared.without_tools
    assert shared.note is None
    assert (model / "model.safetensors").samefile(tiny_llama / "model.safetensors")


def test_a_chat_without_tools_or_system_text_is_rendered(tiny_llama: Path, tmp_path: Path) -> None:
    """The first request of each process has neither."""
    tokenizer = load_tokenizer(model_with_tools(tiny_llama, tmp_path / "copy"))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False
    )

    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_tools_are_whole_but_shorter() -> None:
    """All twenty, each with its name, description and parameters; only what describes parameters is left out."""
    tools = agent_tools()

    assert [tool["function"]["name"] for tool in tools] == [tool["function"]["name"] for tool in AGENT_TOOLS]
    assert all(
        set(short["function"]["parameters"]["properties"]) == set(whole["function"]["parameters"]["properties"])
        for short, whole in zip(tools, AGENT_TOOLS, strict=True)
    )
    assert len(json.dumps(tools)) < 0.75 * len(json.dumps(AGENT_TOOLS))


def test_the_same_tools_in_anthropic_s_form() -> None:
    """Name, description and schema are those of the other form."""
    (tool,) = agent_tools(1)

    assert anthropic([tool]) == [
        {
            "name": tool["function"]["name"],
            "description": tool["function"]["description"],
            "input_schema": tool["function"]["parameters"],
        }
    ]
