"""The fields that chat completions and completions share, and what they mean for the worker."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from ....ipc.messages import Generate, Sampling

DEFAULT_TEMPERATURE = 0.0
"""Greedy, as in mlx-lm's own server. OpenAI's default is 1, at which a small model's answer is noise."""

MAX_CHOICES = 16
"""Answers to one request: each is a generation of its own, and counts against the room for waiting ones."""

_LARGEST_ID = (1 << 31) - 1
_SEED_MASK = (1 << 63) - 1  # seeds may be negative; the worker's generator wants none of that

TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=_LARGEST_ID)]
TokenLimit: TypeAlias = Annotated[int, Meta(ge=1, le=_LARGEST_ID)]
Bias: TypeAlias = Annotated[float, Meta(ge=-100, le=100)]
StopWord: TypeAlias = Annotated[str, Meta(min_length=1)]
StopWords: TypeAlias = Annotated[tuple[StopWord, ...], Meta(max_length=4)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream. Obfuscation pads events against eavesdroppers; it has no use on a loopback."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request may say about how its answer is made and sent."""

    model: Annotated[str, Meta(description="required")]
    stream: bool | None = None
    stream_options: (
        Annotated[
            StreamOptions,
            Meta(description="`include_usage`; `include_obfuscation` is accepted, and nothing is padded"),
        ]
        | None
    ) = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES, description="answers made at once; default 1")] | None = None
    temperature: (
        Annotated[float, Meta(ge=0, le=2, description="default 0, which is greedy (OpenAI's default is 1)")] | None
    ) = None
    top_p: Annotated[float, Meta(ge=0, le=1, description="default 1; 0 is greedy")] | None = None
    top_k: (
        Annotated[int, Meta(ge=-1, le=_LARGEST_ID, description="not OpenAI's; 0 and -1: all tokens, the default")]
        | None
    ) = None
    min_p: Annotated[float, Meta(ge=0, le=1, description="not OpenAI's; default 0")] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: (
        Annotated[float, Meta(gt=0, le=2, description="not OpenAI's; default 1, which is none")] | None
    ) = None
    logit_bias: (
        Annotated[dict[TokenId, Bias], Meta(max_length=1024, description="token ids of this model, -100 to 100 each")]
        | None
    ) = None
    seed: Annotated[int, Meta(description="the answer of index i is drawn with seed + i")] | None = None
    stop: Annotated[StopWord | StopWords, Meta(description="a non-empty string, or up to 4 of them")] | None = None
    user: str | None = None


def sampling(fields: SamplingFields) -> Sampling:
    """How tokens are chosen, in the worker's terms."""
    temperature = DEFAULT_TEMPERATURE if fields.temperature is None else fields.temperature
    top_p = 1.0 if fields.top_p is None else fields.top_p
    # With top_p 0 nothing but the likeliest token is left; samplers take 0 for "no limit".
    greedy = top_p == 0
    return Sampling(
        temperature=0.0 if greedy else temperature,
        top_p=1.0 if greedy else top_p,
        seed=None if fields.seed is None else fields.seed & _SEED_MASK,
        top_k=max(0, fields.top_k or 0),
        min_p=fields.min_p or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        repetition_penalty=1.0 if fields.repetition_penalty is None else fields.repetition_penalty,
        logit_bias=fields.logit_bias or {},
    )


def stop_words(fields: SamplingFields) -> tuple[str, ...]:
    """What ends the answer."""
    return (fields.stop,) if isinstance(fields.stop, str) else fields.stop or ()


def wants_usage(fields: SamplingFields) -> bool:
    """Whether a stream is to end with the token counts."""
    return bool(fields.stream_options and fields.stream_options.include_usage)


def repeated(body: Generate, times: int) -> tuple[Generate, ...]:
    """The same request `times` times, each with a seed of its own if it has one."""
    return tuple(_reseeded(body, index) for index in range(times))


def _reseeded(body: Generate, index: int) -> Generate:
    seed = body.sampling.seed
    if seed is None or index == 0:
        return body
    return msgspec.structs.replace(
        body, sampling=msgspec.structs.replace(body.sampling, seed=(seed + index) & _SEED_MASK)
    )
