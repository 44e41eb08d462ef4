"""What is refused before it is computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Generate, Sampling, TextPrompt, TokenPrompt
from stoker.worker.errors import InsufficientMemory
from stoker.worker.mlx_engine.admission import USUAL_ANSWER, Admitted, MemoryGuard, planned_length
from stoker.worker.mlx_engine.kv import KvCost
from tests.fakes.driven_core import DrivenCore, ask, chat
from tests.fakes.tiny_models import CONTEXT, VOCABULARY

COST = KvCost(0, ((10, None),))


@pytest.fixture(scope="module")
def core(tiny_llama: Path) -> DrivenCore:
    return DrivenCore(tiny_llama, context_tokens=100)


def tokens(*ids: int, **how: Any) -> Generate:
    return Generate(prompt=TokenPrompt(tokens=ids), **{"max_tokens": 3, **how})


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (tokens(), ErrorCode.INVALID_PROMPT, "empty"),
        (ask(""), ErrorCode.INVALID_PROMPT, "empty"),
        (tokens(65, VOCABULARY), ErrorCode.INVALID_PROMPT, f"token id {VOCABULARY} .* 0 to {VOCABULARY - 1}"),
        (tokens(65, 1 << 70), ErrorCode.INVALID_PROMPT, "outside the vocabulary"),
        (tokens(-1, 65), ErrorCode.INVALID_PROMPT, "token id -1 "),
        (tokens(65, emitted=(999,)), ErrorCode.INVALID_PROMPT, "token id 999 "),
        (chat("s", "u", sampling=Sampling(temperature=-1)), ErrorCode.INVALID_PARAMS, "temperature"),
        (chat("s", "u", sampling=Sampling(top_p=2)), ErrorCode.INVALID_PARAMS, "top_p"),
        (ask("x", 0), ErrorCode.INVALID_PARAMS, "max_tokens is 0"),
        (ask("x", -5), ErrorCode.INVALID_PARAMS, "max_tokens is -5"),
        (ask("x" * 100), ErrorCode.CONTEXT_EXCEEDED, "has 100 tokens; the context takes 100"),
        (ask("x" * 5000), ErrorCode.CONTEXT_EXCEEDED, "has 5000 tokens"),
    ],
    ids=lambda value: getattr(value, "name", None) or (value if isinstance(value, str) else "body"),
)
def test_bad_request_is_refused_and_survived(core: DrivenCore, body: Generate, code: ErrorCode, words: str) -> None:
    """A request that would fail or kill the process is refused with its reason, and the next one is served."""
    error = core.generate(body).error

    assert error.code == code
    assert not error.data.retryable
    assert re.search(words, error.message)
    assert core.generate(ask("ok", 2)).finished.usage.completion_tokens == 2


@pytest.mark.parametrize(("most", "answer"), [(5, 5), (None, 90), (500, 90)])
def test_answer_is_clipped_to_the_context(core: DrivenCore, most: int | None, answer: int) -> None:
    """The answer ends at max_tokens, or where the context does."""
    finished = core.generate(Generate(prompt=TextPrompt(text="x" * 10), max_tokens=most)).finished

    assert finished.usage.completion_tokens == answer
    assert finished.reason == "length"


def test_huge_max_tokens_is_no_memory_question(tiny_llama: Path) -> None:
    """Memory is set aside for what the context allows, not for what a client dreams of."""
    core = DrivenCore(tiny_llama)
    request = core.submit(Generate(prompt=TextPrompt(text="x"), max_tokens=10**12))

    assert core.scheduler._waiting[request].planned == CONTEXT
    core.core.cancel(request)


# -- memory ------------------------------------------------------------------------------------------------


def guard(limit: int, active: int = 0) -> MemoryGuard:
    return MemoryGuard(limit, COST, active=lambda: active)


def none(size: int) -> int:
    """Nothing to evict."""
    return 0


def test_what_fits_is_let_through() -> None:
    """Sequences fit when the longest times their number, beside what is in use, is under the limit."""
    guard(2600, active=600).demand([50, 100], 0, none)
    with pytest.raises(InsufficientMemory):
        guard(2599, active=600).demand([50, 100], 0, none)


def test_what_runs_is_not_counted_twice() -> None:
    """Bytes that running sequences hold already are part of what they were planned to take."""
    guard(2600, active=1400).demand([50, 100], 800, none)


def test_cached_prefixes_go_first() -> None:
    """Unpinned prefixes are evicted, as much as is lacking, before a request is refused."""
    wanted: list[int] = []

    def evict(size: int) -> int:
        wanted.append(size)
        return size

    guard(1000, active=700).demand([50], 0, evict)

    assert wanted == [200]


@pytest.mark.parametrize(("lengths", "retryable"), [([100], False), ([30, 100], True)])
def test_refusal_is_retryable_if_others_are_in_the_way(lengths: list[int], retryable: bool) -> None:
    """A request that can't fit alone isn't worth another try; one that others leave no room for is."""
    with pytest.raises(InsufficientMemory, match="over the limit") as refusal:
        guard(900).demand(lengths, 0, none)

    assert refusal.value.data.retryable is retryable
    assert refusal.value.data.remedy


def test_default_limit_leaves_memory_to_the_user() -> None:
    """Without a configured limit, it is a share of the machine's memory."""
    assert 1 << 28 < MemoryGuard(None, COST).limit < 1 << 50


def test_answer_without_limit_is_planned_modestly() -> None:
    """Without max_tokens, memory is set aside for a usual answer, not for the rest of the context."""
    admitted = Admitted([1] * 10, [2] * 5, 100_000, chat=False)

    assert planned_length(admitted, asked=None) == 15 + USUAL_ANSWER
    assert planned_length(admitted, asked=100_000) == 100_010


def test_request_over_the_memory_limit_is_refused(tiny_llama: Path) -> None:
    """With a limit below what is in use, a request is refused as a matter of memory, and the worker lives."""
    core = DrivenCore(tiny_llama, memory_limit_bytes=1)
    error = core.generate(ask("x")).error

    assert error.code == ErrorCode.INSUFFICIENT_MEMORY
    assert core.core.idle
