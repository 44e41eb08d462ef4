"""The headline of the status page."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from stoker.daemon.gateway.page.words import COLD, headline
from stoker.ipc.control_messages import Phase, PrefixStatus, WarmupStatus
from tests.fakes.fake_dispatch import READY

PREFIX = PrefixStatus(name="system", tokens=1832, tokens_warm=1832, source="restored", seconds=0.04)


def test_warm_says_what_is_warm() -> None:
    """A warm daemon says how many tokens of how many prefixes wait in the cache."""
    warmup = WarmupStatus(outcome="succeeded", seconds=1.93, prefixes=(PREFIX,))
    words = headline(msgspec.structs.replace(READY, warmup=warmup))

    assert (words.title, words.tone) == ("Ready and warm", "good")
    assert words.detail == "1 prefix of 1,832 tokens, in the cache after 1.9 s of warmup."


@pytest.mark.parametrize("reason", [*COLD, "no such tool in the template"])
def test_not_warm_says_why(reason: str) -> None:
    """Ready but not warm is told apart, with a sentence for each reason."""
    words = headline(msgspec.structs.replace(READY, warm=False, reason=reason))

    assert (words.title, words.tone) == ("Ready, not warm", "care")
    assert words.detail == COLD.get(reason, "No such tool in the template.")


@pytest.mark.parametrize("phase", get_args(Phase))
def test_each_phase_has_words(phase: Phase) -> None:
    """Whatever the phase, a daemon that is not ready says what it does, and why if it knows."""
    now = msgspec.structs.replace(READY, ready=False, warm=False, phase=phase, reason="crashed with SIGABRT")
    words = headline(now)

    assert "ready" not in words.title.lower()
    assert words.detail.startswith("Crashed with SIGABRT. ")
