"""What the engine does with what it learns: counts each request's opening, and says which ones to warm."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from pathlib import Path

from ...ipc.messages import KnownPrefix, Prompt
from ..learned_file import LearnedFile
from ..learning import Learned, Opening
from ..prefix import SharedPrefix, chat_prefix
from .loading import LoadedModel

NEW = 2
"""Requests up to which a prefix counts as just learned."""
FOLDER = "learned"
"""Below the state directory; nothing else is in it."""


class Learner:
    """Learns from the requests of one model. All methods run on the engine's thread, but `close`.

    Args:
        state_dir: Where the file is kept.
        loaded: The model.
        count: How many learned prefixes are warmed, beside pinned ones.
        clock: Unix seconds.
    """

    def __init__(
        self, state_dir: Path, loaded: LoadedModel, count: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._loaded = loaded
        self._count = count
        self._clock = clock
        template = str(getattr(loaded.tokenizer, "chat_template", ""))
        digest = hashlib.sha256(template.encode()).hexdigest()
        self._file = LearnedFile(state_dir / FOLDER, loaded.name, digest, clock=clock)

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong with the file."""
        return tuple(note for note in (self._file.put_aside, self._file.unwritten) if note)

    def observe(self, prompt: Prompt, *, keep: bool = False) -> None:
        """Count a request, as it goes to the template. To learn its opening costs some milliseconds.

        Args:
            prompt: The request's.
            keep: Learn it at first sight.
        """
        learned = self._file.ledger.observe(prompt, self._clock(), self._length, keep=keep)
        self._file.changed(urgent=learned is not None and learned.seen <= NEW)

    def _length(self, opening: Opening) -> int:
        return len(self.prefix(opening).tokens)

    def prefix(self, opening: Opening) -> SharedPrefix:
        """What all chats with this opening share."""
        tokenizer, exact = self._loaded.tokenizer, not self._loaded.trimmable
        return chat_prefix(tokenizer, opening.messages, opening.tools, opening.template_args, exact=exact)

    def best(self, besides: Collection[str]) -> tuple[Learned, ...]:
        """What to warm at a start; `besides` are keys of what is warmed anyway."""
        return self._file.ledger.best(self._count, self._clock(), besides=besides)

    def known(self, resident: Callable[[str], int]) -> tuple[KnownPrefix, ...]:
        """All that was learned, the most valuable first; `resident` tells how many tokens of a name are warm."""
        return tuple(
            KnownPrefix(
                name=entry.name,
                origin="learned",
                tokens=entry.tokens,
                tokens_warm=resident(entry.name),
                pinned=entry.pinned,
                seen=entry.seen,
                tokens_saved=entry.tokens_saved,
                last_used=entry.last,
            )
            for entry in self._file.ledger.listing(self._clock())
        )

    def pin(self, name: str, *, pinned: bool) -> int:
        """Warm it at every start, or no longer; returns how many have that name."""
        found = self._file.ledger.pin(name, pinned=pinned)
        self._file.changed()
        return int(found)

    def forget(self, name: str | None) -> int:
        """Forget one, or without a name all of every model; returns how many of this one."""
        if name is None:
            return self._file.clear()
        found = self._file.ledger.forget(name, self._clock())
        self._file.changed()
        return int(found)

    def close(self, seconds: float) -> None:
        """Write what is unwritten, in this time at most. Any thread."""
        self._file.close(seconds)
