"""One system prompt: cold, warm, and restored after the worker was killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ipc.control_messages import PrefixStatus
from .comeback import Comeback, come_back
from .prompts import USERS
from .stopwatch import Answer, ask
from .subject import Subject


@dataclass(frozen=True, slots=True)
class Trial:
    """One system prompt.

    Attributes:
        cold: Never seen before.
        again: The same request, the first one after the rewarm.
        others: Same system prompt, other user texts.
        prefix: What the rewarm reported.
        comeback: After the worker was killed.
    """

    cold: Answer
    again: Answer
    others: tuple[Answer, ...]
    prefix: PrefixStatus
    comeback: Comeback

    @property
    def warm(self) -> tuple[Answer, ...]:
        """All that should have found the prefix that was made warm."""
        return (self.again, *self.others)


def after_cold(
    subject: Subject, url: str, system: str, cold: Answer, *, others: int, tools: Sequence[dict[str, Any]] = ()
) -> Trial:
    """The rest of a trial whose cold request was just answered.

    In an empty worker rewarm and warm; then killed, and restored by its successor. The prompt stays learned.

    Args:
        subject: Asked with this system prompt once.
        url: Of its HTTP API.
        system: The system prompt.
        cold: The answer to the first of the user texts.
        others: How many warm requests with other user texts there are to be.
        tools: Of all requests.
    """
    subject.restart(cold=True)
    prefix = subject.rewarm(system, tools)
    again = ask(url, system, USERS[0], tools=tools)
    warm = tuple(ask(url, system, user, tools=tools) for user in USERS[1 : others + 1])
    return Trial(cold, again, warm, prefix, come_back(subject, url, system, prefix.tokens, tools))
