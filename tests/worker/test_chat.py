"""Prompts to token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from stoker.ipc.messages import ChatPrompt, TextPrompt, TokenPrompt
from stoker.worker.chat import chat_tokens, flattened, prompt_tokens
from stoker.worker.errors import InvalidPrompt


class Tokenizer:
    """Renders `role:content;` and encodes characters as numbers."""

    has_chat_template = True

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def apply_chat_template(self, messages: list[dict[str, Any]], **arguments: Any) -> list[int]:
        self.arguments = arguments
        if any(message["role"] == "martian" for message in messages):
            raise ValueError("unknown role martian")
        return self.encode("".join(f"{message['role']}:{message['content']};" for message in messages))


def message(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def test_chat_goes_through_the_template() -> None:
    """A chat is rendered with its tools and template arguments, up to where the answer begins."""
    tokenizer = Tokenizer()
    prompt = ChatPrompt(messages=(message("hi"),), tools=({"name": "f"},), template_args={"enable_thinking": False})

    assert prompt_tokens(tokenizer, prompt) == tokenizer.encode("user:hi;")
    assert tokenizer.arguments == {"tools": [{"name": "f"}], "add_generation_prompt": True, "enable_thinking": False}


def test_template_gets_texts() -> None:
    """Content in parts reaches the template as one text."""
    prompt = ChatPrompt(messages=(message([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]),))

    assert prompt_tokens(Tokenizer(), prompt) == Tokenizer().encode("user:hi;")


def test_text_and_tokens_need_no_template() -> None:
    """Text is encoded as it is, token ids are taken as they are."""
    assert prompt_tokens(Tokenizer(), TextPrompt(text="ab")) == [97, 98]
    assert prompt_tokens(Tokenizer(), TokenPrompt(tokens=(5, 6))) == [5, 6]


@pytest.mark.parametrize("prompt", [TextPrompt(text=""), TokenPrompt(tokens=())], ids=["text", "tokens"])
def test_empty_prompt_is_refused(prompt: TextPrompt | TokenPrompt) -> None:
    """A prompt of no tokens is invalid."""
    with pytest.raises(InvalidPrompt, match="at least one token"):
        prompt_tokens(Tokenizer(), prompt)


def test_no_messages_are_refused() -> None:
    """A chat without messages is invalid, whatever the template would make of it."""
    with pytest.raises(InvalidPrompt, match="messages is empty"):
        chat_tokens(Tokenizer(), ())


def test_template_speaks_for_itself() -> None:
    """When the template refuses, its own words reach the client."""
    with pytest.raises(InvalidPrompt, match="unknown role martian"):
        chat_tokens(Tokenizer(), [message("hi", role="martian")])


def test_model_without_template() -> None:
    """A chat with a base model is invalid, and the remedy says what is possible."""
    tokenizer = Tokenizer()
    tokenizer.has_chat_template = False

    with pytest.raises(InvalidPrompt, match="no chat template") as refusal:
        chat_tokens(tokenizer, [message("hi")])

    assert "text prompt" in str(refusal.value.data.remedy)


def test_template_args_cannot_change_the_result_type() -> None:
    """Template arguments that would make the template return something else than ids are refused by name."""
    with pytest.raises(InvalidPrompt, match="return_dict, tokenize"):
        chat_tokens(Tokenizer(), [message("hi")], (), {"tokenize": False, "return_dict": True})


def test_text_parts_are_joined() -> None:
    """A list of text parts becomes one text, and the message's other fields stay."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    assert flattened({**message(parts), "name": "n"}) == {"role": "user", "content": "ab", "name": "n"}


@pytest.mark.parametrize("content", ["plain", None], ids=["text", "null"])
def test_other_content_is_left_to_the_template(content: str | None) -> None:
    """Text stays as it is, and so does null, which assistants' tool calls come with."""
    assert flattened(message(content)) == message(content)


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {}}, {"type": "text"}, {"no": "type"}, 7], ids=str
)
def test_part_that_is_no_text_is_refused(part: Any) -> None:
    """A part that isn't text is refused, with its type named."""
    kind = part.get("type") if isinstance(part, dict) else "int"

    with pytest.raises(InvalidPrompt, match=f"type {kind!r}"):
        flattened(message([{"type": "text", "text": "look:"}, part]))


@pytest.mark.parametrize("name", ["tools", "chat_template", "tokenize", "messages", "truncation"])
def test_arguments_of_the_renderer_are_refused(name: str) -> None:
    """Arguments that would change how the template is rendered, or which one, are refused by name."""
    with pytest.raises(InvalidPrompt, match=name):
        prompt_tokens(Tokenizer(), ChatPrompt(messages=(message("hi"),), template_args={name: "x"}))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({}, "True:"),
        ({"enable_thinking": False}, "False:"),
        ({"enable_thinking": True, "reasoning_effort": "low"}, "True:low"),
    ],
)
def test_template_arguments_reach_the_template(scripted_model: Path, arguments: dict[str, Any], shown: str) -> None:
    """Through mlx-lm's wrapper, which passes `enable_thinking` itself, a request's arguments win."""
    tokenizer = load_tokenizer(scripted_model)
    tokenizer.chat_template = "{{ enable_thinking }}:{{ reasoning_effort }}"

    assert tokenizer.decode(chat_tokens(tokenizer, [message("hi")], (), arguments)) == shown
