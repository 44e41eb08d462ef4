"""Whether a request can be served: everything that would fail, or kill the process, later is refused here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import psutil

from ...ipc.messages import ChatPrompt, Generate
from ..chat import prompt_tokens
from ..errors import ContextExceeded, InsufficientMemory, InvalidPrompt, InvalidRequest
from . import sampling
from .kv import KvCost
from .loading import LoadedModel

USUAL_ANSWER = 2048
"""Tokens that memory is set aside for where a request names no `max_tokens`. The rest of a long context would refuse
nearly every such request, and answers of this length are already rare."""
SHARE_OF_MACHINE = 0.8
"""Default memory limit as a share of all memory, like mlx's own: the rest is the user's."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request found good.

    Attributes:
        prompt: The request's own prompt.
        emitted: What earlier workers answered.
        limit: Most tokens of the answer, `emitted` included.
        chat: The prompt is a conversation.
        tools: Those of a conversation.
    """

    prompt: list[int]
    emitted: list[int]
    limit: int
    chat: bool
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def tokens(self) -> list[int]:
        """What is to be prefilled."""
        return self.prompt + self.emitted


def admit(loaded: LoadedModel, body: Generate) -> Admitted:
    """Check and tokenize a request.

    Raises:
        InvalidRequest, InvalidPrompt, ContextExceeded: It is refused.
    """
    sampling.check(body.sampling)
    if body.max_tokens is not None and body.max_tokens <= 0:
        raise InvalidRequest(f"max_tokens is {body.max_tokens}; give at least 1, or none", field="max_tokens")
    prompt = prompt_tokens(loaded.tokenizer, body.prompt)
    check_ids(prompt, loaded.vocabulary, "prompt")
    check_ids(body.emitted, loaded.vocabulary, "emitted")
    room = loaded.context - len(prompt)
    if room < 1:
        raise ContextExceeded(
            f"the prompt has {len(prompt)} tokens; the context takes {loaded.context}, the answer included",
            remedy="shorten the prompt, or raise context_tokens if the model allows it",
            field="prompt",
        )
    limit = room if body.max_tokens is None else min(body.max_tokens, room)
    tools = body.prompt.tools if isinstance(body.prompt, ChatPrompt) else ()
    return Admitted(prompt, list(body.emitted), limit, isinstance(body.prompt, ChatPrompt), tools)


def check_ids(tokens: Sequence[int], vocabulary: int, field: str) -> None:
    """Raise InvalidPrompt for an id outside the vocabulary: mlx reads beyond the embedding then, and dies of it."""
    wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise InvalidPrompt(f"token id {wrong} is outside the vocabulary: 0 to {vocabulary - 1}", field=field)


class MemoryGuard:
    """Keeps the KV caches of all requests together under the memory limit, in advance.

    mlx enforces no limit on a CPU, and a failed allocation kills the process.

    Args:
        limit_bytes: For the whole process; None takes 80 % of the machine.
        cost: What a sequence's KV costs.
        active: Bytes in use now.
    """

    def __init__(
        self, limit_bytes: int | None, cost: KvCost, active: Callable[[], int] = mx.get_active_memory
    ) -> None:
        self.limit = limit_bytes or int(psutil.virtual_memory().total * SHARE_OF_MACHINE)
        self._cost = cost
        self._active = active

    def demand(self, lengths: Sequence[int], held: int, evict: Callable[[int], int]) -> None:
        """Make sure that sequences of these final lengths fit, the newest last.

        Args:
            lengths: Of all sequences running, waiting and new. In a batch each one occupies as much as the longest.
            held: Bytes that those running occupy already.
            evict: Frees at least so many bytes of what is only cached, if it can; returns how many.

        Raises:
            InsufficientMemory: Even then they don't.
        """
        planned = len(lengths) * self._cost.bytes(max(lengths))
        lacking = self._active() + planned - held - self.limit
        if lacking > 0:
            lacking -= evict(lacking)
        if lacking > 0:
            alone = len(lengths) == 1
            raise InsufficientMemory(
                f"the KV cache of {lengths[-1]} tokens takes {self._cost.bytes(lengths[-1]) >> 20} MiB; with what is "
                f"in use that is {-(-lacking >> 20)} MiB over the limit of {self.limit >> 20} MiB",
                remedy="lower max_tokens or raise memory_limit_bytes" if alone else "try again when others are done",
                retryable=not alone,
            )


def planned_length(admitted: Admitted, *, asked: int | None) -> int:
    """Length of the sequence for which memory is set aside."""
    answer = admitted.limit if asked is not None else min(admitted.limit, USUAL_ANSWER + len(admitted.emitted))
    return len(admitted.prompt) + answer
