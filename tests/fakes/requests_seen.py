"""Requests, and ledgers that have seen them."""

from __future__ import annotations

from typing import Any

from stoker.ipc.messages import ChatPrompt
from stoker.worker.learning import MOST_LEARNED, Ledger, Opening

NOW = 1_800_000_000.0
DAY = 86400.0


def chat(system: str = "You keep the fire.", user: str = "hello", **more: Any) -> ChatPrompt:
    return ChatPrompt(messages=({"role": "system", "content": system}, {"role": "user", "content": user}), **more)


def tokens_of(opening: Opening) -> int:
    """A prefix has as many tokens as its first message says in front, else 500."""
    word = opening.messages[0]["content"].split()[0] if opening.messages else ""
    return int(word) if word.isdigit() else 500


def observe(ledger: Ledger, *prompts: ChatPrompt, at: float = NOW, times: int = 2) -> None:
    for prompt in prompts:
        for _ in range(times):
            ledger.observe(prompt, at, tokens_of)


def systems(ledger: Ledger, now: float = NOW, count: int = MOST_LEARNED) -> list[str]:
    return [entry.opening.messages[0]["content"] for entry in ledger.best(count, now)]
