"""What a worker sent for one request, until it is read.

A mailbox merges what its reader has not taken, so that one slow client neither stalls the others nor grows a queue:
it holds at most one progress, the text not yet read, and the end.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import anyio
import msgspec

from ..ipc.messages import Delta, Progress, Result

Mail: TypeAlias = Progress | Delta | Result


class Mailbox:
    """What came for one request and has not been read yet."""

    def __init__(self, answer: type[Result]) -> None:
        self.answer = answer
        self._mail: deque[Mail] = deque()
        self._end: Exception | None = None
        self._waiting: anyio.Event | None = None

    def put(self, mail: Mail) -> None:
        """Add, or merge with the newest unread."""
        merged = _merge(self._mail[-1], mail) if self._mail else None
        if merged is None:
            self._mail.append(mail)
        else:
            self._mail[-1] = merged
        self._wake()

    def end(self, error: Exception) -> None:
        """Let the reader have what is there, then the error."""
        self._end = error
        self._wake()

    async def get(self) -> Mail:
        """The next mail. Raises what `end` was given once all is read."""
        while not self._mail:
            if self._end is not None:
                raise self._end
            self._waiting = anyio.Event()
            await self._waiting.wait()
        return self._mail.popleft()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None


def _merge(old: Mail, new: Mail) -> Mail | None:
    if isinstance(old, Progress) and isinstance(new, Progress):
        return new
    if isinstance(old, Delta) and isinstance(new, Delta) and old.channel == new.channel and not old.calls:
        # A complete call ends its delta: text that follows it would come before it otherwise.
        return msgspec.structs.replace(
            old,
            tokens=old.tokens + new.tokens,
            text=old.text + new.text,
            calls=new.calls,
            logprobs=old.logprobs + new.logprobs,
        )
    return None
