"""From a generation's outputs to a whole answer, and what whole answers and streams have in common; no I/O."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from .... import __version__
from ....ipc.messages import Delta, Finished, TokenLogprob, ToolCall
from ..errors import SERVER, ApiError
from ..merging import Indexed, Merged
from .logprobs import ChatLogprobs, chat_logprobs


class PromptDetails(msgspec.Struct, frozen=True):
    """Prompt tokens that needed no prefill."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct, frozen=True):
    """Tokens of the answer that were reasoning."""

    reasoning_tokens: int


class TokenUsage(msgspec.Struct, frozen=True):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class CalledFunction(msgspec.Struct, frozen=True):
    """What is called; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The model's message; `refusal` is always null, and must be there. `content` is null beside calls only."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: tuple[Call, ...] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that does not stream."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: TokenUsage
    system_fingerprint: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "stoker"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]


class Label(msgspec.Struct, frozen=True):
    """What all chunks of an answer, and a whole answer, carry."""

    id: str
    created: int
    model: str
    system_fingerprint: str


def new_label(kind: Literal["chatcmpl", "cmpl"], model: str, model_id: str) -> Label:
    """A label for a new answer. `model` is echoed as the client wrote it."""
    return Label(f"{kind}-{secrets.token_hex(14)}", int(time.time()), model, _fingerprint(model_id))


def _fingerprint(model_id: str) -> str:
    # What an answer with a fixed seed depends on, as far as the daemon knows it.
    return f"fp_{hashlib.sha256(f'{__version__} {model_id}'.encode()).hexdigest()[:10]}"


def new_call_id() -> str:
    """An id for a tool call: the model gives none."""
    return f"call_{secrets.token_hex(12)}"


def total_usage(endings: Sequence[Finished], reasoning_tokens: int, *, n: int) -> TokenUsage:
    """The token counts of a request: each prompt once, though `n` answers in a row share it, and all answers.

    Of a prompt's tokens, those count as cached that none of its answers had to prefill.
    """
    usages = [ending.usage for ending in endings]
    prompt = sum(usage.prompt_tokens for usage in usages[::n])
    completion = sum(usage.completion_tokens for usage in usages)
    cached = sum(
        min(usage.cached_tokens for usage in usages[first : first + n]) for first in range(0, len(usages), n)
    )
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached),
        completion_tokens_details=CompletionDetails(reasoning_tokens),
    )


def finish_reason(finished: Finished, *, called: bool = False) -> str:
    """OpenAI's word for how the answer ended.

    Args:
        finished: The end.
        called: Whether the answer has called a tool.

    Raises:
        ApiError: 503, if it was given up by the server's side: that is no answer.
    """
    if finished.reason == "cancelled":
        raise ApiError(
            503, "The server gave up this answer; try again.", kind=SERVER, code="cancelled", retry_after=1
        )
    return "tool_calls" if called and finished.reason == "stop" else finished.reason


class WholeChat:
    """A whole answer in the making.

    Args:
        label: Its identity.
        choices: How many.
        logprobs: Whether log probabilities were asked for.
    """

    def __init__(self, label: Label, *, choices: int, logprobs: bool) -> None:
        self._label = label
        self._choices = [_WholeChoice(logprobs=logprobs) for _ in range(choices)]

    @property
    def complete(self) -> bool:
        """Whether every choice has come to its end."""
        return all(choice.finished is not None for choice in self._choices)

    def add(self, output: Merged) -> None:
        """Take an output."""
        if isinstance(output, Indexed):
            self._choices[output.index].add(output.output)
        else:
            self._choices[0].add(output)

    def document(self) -> ChatCompletion:
        """The answer, once complete.

        Raises:
            ApiError: If this was no proper end.
        """
        endings = [choice.finished for choice in self._choices if choice.finished is not None]
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        return ChatCompletion(
            **msgspec.structs.asdict(self._label),
            choices=tuple(
                choice.document(index, ending)
                for index, (choice, ending) in enumerate(zip(self._choices, endings, strict=True))
            ),
            usage=total_usage(endings, reasoning, n=len(endings)),
        )


class _WholeChoice:
    def __init__(self, *, logprobs: bool) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[TokenLogprob] | None = [] if logprobs else None
        self.reasoning_tokens = 0
        self.finished: Finished | None = None

    def add(self, output: object) -> None:
        if isinstance(output, Delta):
            self._say(output.text, output.channel)
            self._calls += output.calls
            if output.channel == "reasoning":
                self.reasoning_tokens += len(output.tokens)
            elif self._logprobs is not None:
                self._logprobs += output.logprobs
        elif isinstance(output, Finished):
            self._say(output.text, output.channel)
            self.finished = output

    def _say(self, text: str, channel: str) -> None:
        (self._reasoning if channel == "reasoning" else self._content).append(text)

    def document(self, index: int, finished: Finished) -> Choice:
        return Choice(
            index=index,
            message=self._message(),
            logprobs=None if self._logprobs is None else chat_logprobs(self._logprobs),
            finish_reason=finish_reason(finished, called=bool(self._calls)),
        )

    def _message(self) -> AnswerMessage:
        content = "".join(self._content)
        calls = tuple(
            Call(id=new_call_id(), function=CalledFunction(call.name, call.arguments)) for call in self._calls
        )
        return AnswerMessage(
            content=None if calls and not content else content,
            reasoning_content="".join(self._reasoning) or msgspec.UNSET,
            tool_calls=calls or msgspec.UNSET,
        )
