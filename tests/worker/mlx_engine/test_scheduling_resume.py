"""Answers that another worker began."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import Sampling
from tests.fakes.driven_core import DrivenCore, ask, chat, seeded
from tests.fakes.tiny_models import PROBES, Kind

SYSTEM = "You tend the fire, read before you write, and never guess. " * 6

Kinds = Callable[[Kind], Path]
each_kind = pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])


@each_kind
@pytest.mark.parametrize("sampling", [Sampling(), seeded(11)], ids=["greedy", "seeded"])
def test_resumed_answer_goes_on_exactly(tiny_model: Kinds, kind: Kind, sampling: Sampling) -> None:
    """Cut anywhere, an answer resumed by another worker has the tokens and the text of the undisturbed one."""
    body = chat(SYSTEM, "tell me", 14, sampling=sampling)
    whole = DrivenCore(tiny_model(kind)).generate(body)
    successor = DrivenCore(tiny_model(kind))
    for cut in range(1, 15):
        resumed = successor.generate(chat(SYSTEM, "tell me", 14, sampling=sampling, emitted=whole.tokens[:cut]))

        assert whole.tokens[:cut] + resumed.tokens == whole.tokens
        assert _text_of(whole, cut) + resumed.text == whole.text
        assert resumed.finished.reason == whole.finished.reason
        assert resumed.finished.usage.prompt_tokens == whole.finished.usage.prompt_tokens
        assert resumed.finished.usage.completion_tokens == 14


def _text_of(answer: Any, tokens: int) -> str:
    """What a client had seen after so many tokens: each delta of these tests has one."""
    return "".join(delta.text for delta in answer.deltas[:tokens])


def test_resume_inside_a_stop_string(tiny_llama: Path) -> None:
    """Cut inside a stop string, the resumed answer stops where the undisturbed one does, and shows no part of it."""
    whole = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12))
    stop = whole.text[4:8]
    stopped = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12, stop=(stop,)))
    for cut in range(1, 9):
        resumed = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12, stop=(stop,), emitted=whole.tokens[:cut]))

        assert _text_of(stopped, cut) + resumed.text == whole.text[:4]
        assert resumed.finished.reason == "stop"
        assert resumed.finished.usage.completion_tokens == 8


def test_resume_inside_a_character(tiny_llama: Path) -> None:
    """Cut inside a character, its rest completes it."""
    core = DrivenCore(tiny_llama)
    fire = "🔥".encode()
    resumed = core.generate(ask("x", 6, emitted=tuple(fire[:2])))
    bytes_after = bytes(resumed.tokens)

    assert resumed.text == (fire[:2] + bytes_after).decode(errors="replace")


def test_resume_of_an_answer_that_was_complete(tiny_llama: Path) -> None:
    """If only the result was missing, it comes without computing anything."""
    core = DrivenCore(tiny_llama)
    whole = core.generate(ask(PROBES[0], 12))
    resumed = core.generate(ask(PROBES[0], 12, emitted=whole.tokens))

    assert (resumed.tokens, resumed.text, resumed.finished.reason) == ((), "", "length")
    assert resumed.progress == []
