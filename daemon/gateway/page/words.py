"""A snapshot in the words of the status page's headline."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ....ipc.control_messages import Readiness

Tone: TypeAlias = Literal["good", "busy", "care", "bad", "idle"]


class Headline(msgspec.Struct, frozen=True):
    """What is, and a sentence about it."""

    title: str
    detail: str
    tone: Tone


PHASES: dict[str, Headline] = {
    "down": Headline("No worker", "It was stopped; requests are refused.", "idle"),
    "starting": Headline("Starting a worker", "Requests wait.", "busy"),
    "loading": Headline("Loading the model", "Requests wait.", "busy"),
    "warming": Headline("Warming", "Requests wait until the system prompts are in the cache.", "busy"),
    "stopping": Headline("Stopping the worker", "Running requests end first.", "idle"),
    "backoff": Headline("Waiting before the next try", "Requests wait.", "care"),
    "failed": Headline("Failed", "Requests are refused until a restart.", "bad"),
    "ready": Headline("Replacing the worker", "Requests wait.", "care"),
}
"""Of a snapshot that is not ready; in the phase `ready`, that is a worker which is being ended for a fault."""

COLD = {
    "timeout": "Warmup took longer than it may; the rest is warmed in idle time.",
    "disabled": "Warmup is switched off (KV_CACHE_WARMUP=0).",
    "cold restart": "The last restart was a cold one; a rewarm mends that.",
}
"""Reasons that are words for programs."""


def headline(now: Readiness) -> Headline:
    """What the page says first."""
    if now.ready and now.warm:
        return Headline("Ready and warm", _warmth(now), "good")
    if now.ready:
        reason = now.reason or now.warmup.outcome or "no reason is known"
        return Headline("Ready, not warm", COLD.get(reason, _sentence(reason)), "care")
    words = PHASES[now.phase]
    detail = f"{_sentence(now.reason)} {words.detail}" if now.reason else words.detail
    return Headline(words.title, detail, words.tone)


def _warmth(now: Readiness) -> str:
    prefixes = now.warmup.prefixes
    if not prefixes:
        return "There are no prefixes to warm."
    tokens = sum(prefix.tokens_warm for prefix in prefixes)
    what = "1 prefix" if len(prefixes) == 1 else f"{len(prefixes)} prefixes"
    return f"{what} of {tokens:,} tokens, in the cache after {now.warmup.seconds:.1f} s of warmup."


def _sentence(reason: str) -> str:
    return reason[0].upper() + reason[1:] + ("" if reason.endswith((".", "!", "?")) else ".")
