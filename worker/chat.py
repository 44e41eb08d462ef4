"""Prompts to token ids, through the model's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ipc.messages import ChatPrompt, Prompt, TextPrompt
from .errors import InvalidPrompt

RESERVED = frozenset(
    {
        *("conversation", "messages", "tools", "tokenize", "return_dict", "return_tensors"),
        *("padding", "truncation", "max_length", "tokenizer_kwargs", "return_assistant_tokens_mask"),
    }
)
"""Arguments of the renderer, not of the template."""


def prompt_tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt; ids given as such are returned unchecked.

    Raises:
        InvalidPrompt: The messages can't be rendered, or nothing is left of the prompt.
    """
    match prompt:
        case ChatPrompt():
            if "chat_template" in prompt.template_args:  # ours to give, when a prefix is looked for
                raise InvalidPrompt("template_args may not set chat_template", field="template_args")
            tokens = chat_tokens(tokenizer, prompt.messages, prompt.tools, prompt.template_args)
        case TextPrompt(text=text):
            tokens = list(tokenizer.encode(text))
        case _:
            tokens = list(prompt.tokens)
    if not tokens:
        raise InvalidPrompt("the prompt is empty; at least one token is needed", field="prompt")
    return tokens


def chat_tokens(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    template_args: Mapping[str, Any] | None = None,
) -> list[int]:
    """Token ids of a conversation as the chat template renders it, up to where the assistant's answer begins.

    Raises:
        InvalidPrompt: There is no template, or it refuses the messages; the message is the template's own.
    """
    if not messages:
        raise InvalidPrompt("messages is empty; at least one is needed", field="messages")
    if not tokenizer.has_chat_template:
        raise InvalidPrompt(
            "this model has no chat template", remedy="send a text prompt, or configure an instruct model"
        )
    plain = [flattened(message) for message in messages]
    arguments = dict(template_args or {})
    clash = arguments.keys() & RESERVED
    if clash:
        raise InvalidPrompt(f"template_args may not set {', '.join(sorted(clash))}", field="template_args")
    arguments.setdefault("add_generation_prompt", True)
    try:
        return list(tokenizer.apply_chat_template(plain, tools=list(tools) or None, **arguments))
    except Exception as error:
        # A template is the model's own program and may raise anything: jinja's errors, TypeError, its own refusal.
        raise InvalidPrompt(f"the chat template refuses the messages: {error}", field="messages") from error


def flattened(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose content is a text, where it came as a list of text parts: templates expect a text.

    Raises:
        InvalidPrompt: A part is no text.
    """
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return dict(message)
    return {**message, "content": "".join(_part_text(part) for part in content)}


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise InvalidPrompt(
        f"content part of type {kind!r} is not supported; this model takes text parts only", field="messages"
    )
