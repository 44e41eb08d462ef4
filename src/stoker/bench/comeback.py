"""What is left of a warm prefix after kill -9: the next worker restores it from disk, and a request finds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ipc.control_messages import PrefixStatus
from .prompts import USERS
from .stopwatch import Answer, ask
from .subject import Subject

NEW_USER = USERS[6]
"""Asked by nobody before, and as long as the others."""


@dataclass(frozen=True, slots=True)
class Comeback:
    """A worker that was killed when its prefix was on disk, and its successor.

    Attributes:
        report: What the successor's warmup says of the prefix; None where it did not warm it.
        first: Its first request, with a user text that was not asked before.
        again: The cold request once more.
        seconds: From the kill until it was ready.
    """

    report: PrefixStatus | None
    first: Answer
    again: Answer
    seconds: float

    @property
    def answers(self) -> tuple[Answer, ...]:
        """All that should have found the prefix."""
        return (self.first, self.again)

    @property
    def restored(self) -> bool:
        """Whether the whole prefix came from disk, before anyone asked for it."""
        return self.report is not None and is_restored(self.report)


def come_back(subject: Subject, url: str, system: str, tokens: int, tools: Sequence[dict[str, Any]] = ()) -> Comeback:
    """Wait until the prefix is on disk, kill the worker, wait for the next one to be ready, and ask it.

    Args:
        subject: Its live worker has warmed this prefix and no other, and was asked with it more than once.
        url: Of its HTTP API.
        system: The system prompt.
        tokens: Of the prefix that requests with it share.
        tools: Of all requests.
    """
    subject.wait_saved()
    course = subject.kill_worker()
    first = ask(url, system, NEW_USER, tools=tools)
    again = ask(url, system, USERS[0], tools=tools)
    return Comeback(report_of(tokens, course.ready.warmup.prefixes), first, again, course.seconds)


def is_restored(report: PrefixStatus) -> bool:
    """Whether the whole prefix came from disk."""
    return report.source == "restored" and report.tokens_warm == report.tokens


def report_of(tokens: int, prefixes: Iterable[PrefixStatus]) -> PrefixStatus | None:
    """The learned prefix of so many tokens: its name is of the daemon's choosing, its length is known."""
    return next((each for each in prefixes if each.tokens == tokens and each.name.startswith("learned-")), None)
