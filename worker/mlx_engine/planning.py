"""Which prefixes a warmup makes resident: what was asked for, then what was learned, rendered and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ipc.messages import ChatPrompt, Warm, WarmPrefix
from ..errors import ContextExceeded, InsufficientMemory, InvalidPrompt, WorkerError
from ..learning import Opening, key_of, opening_of
from ..normalise import normalised
from ..prefix import SharedPrefix, chat_prefix
from ..prefix_cache import PrefixCache
from ..warmup import get_standard_system_prompt, problem, prompt_in
from .admission import check_ids
from .learner import Learner
from .loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Plan:
    """A prefix to be made warm.

    Attributes:
        name: Under which it is kept and reported.
        opening: What it is rendered from; None where that could not be read.
        prefix: Its tokens; none where there is a fault.
        fault: Why it can't be computed.
        optional: That it can't be is no failure of the warmup, only worth a note.
    """

    name: str
    opening: Opening | None
    prefix: SharedPrefix
    fault: str | None = None
    optional: bool = False


class Planner:
    """Makes plans for one model.

    Args:
        loaded: The model.
        cache: Where the prefixes shall go; its limit is theirs.
        normalise: Openings are normalised, as requests are.
    """

    def __init__(self, loaded: LoadedModel, cache: PrefixCache, *, normalise: bool) -> None:
        self._loaded = loaded
        self._cache = cache
        self._normalise = normalise

    def plans(self, body: Warm, learner: Learner | None) -> list[Plan]:
        """What a warmup is to do, in order. Each prefix is rendered some times, which takes milliseconds."""
        plans = [self._asked_for(prefix) for prefix in body.prefixes]
        if body.learned and learner is not None:
            known = {key_of(plan.opening) for plan in plans if plan.opening is not None}
            plans += [self.plan(one.name, one.opening, optional=True) for one in learner.best(besides=known)]
        return plans

    def plan(self, name: str, opening: Opening, *, optional: bool = False) -> Plan:
        """What all chats with this opening share, as of now: templates may tell the date."""
        tokenizer, exact = self._loaded.tokenizer, not self._loaded.trimmable
        try:
            shared = chat_prefix(tokenizer, opening.messages, opening.tools, opening.template_args, exact=exact)
            self._check(shared)
        except WorkerError as error:
            return Plan(name, opening, SharedPrefix((), 0), error.message, optional)
        return Plan(name, opening, shared, optional=optional)

    def _asked_for(self, prefix: WarmPrefix) -> Plan:
        try:
            opening = self._opening(prefix)
        except WorkerError as error:
            return Plan(prefix.name, None, SharedPrefix((), 0), error.message)
        return self.plan(prefix.name, opening)

    def _opening(self, prefix: WarmPrefix) -> Opening:
        messages: Sequence[dict[str, str]] = ({"role": "system", "content": _system(prefix)},)
        prompt = ChatPrompt(messages=tuple(messages), tools=prefix.tools, template_args=prefix.template_args)
        plain = normalised(prompt, normalise=self._normalise)
        return (opening_of(plain) if isinstance(plain, ChatPrompt) else None) or Opening()

    def _check(self, prefix: SharedPrefix) -> None:
        size, limit = len(prefix.tokens), self._cache.statistics().limit_bytes
        check_ids(prefix.tokens, self._loaded.vocabulary, "prefixes")
        if size >= self._loaded.context:
            raise ContextExceeded(f"the prefix has {size} tokens; the context takes {self._loaded.context}")
        if self._loaded.cost.bytes(size) > limit:
            raise InsufficientMemory(
                f"the prefix needs {self._loaded.cost.bytes(size) >> 20} MiB; the prefix cache takes "
                f"{limit >> 20} MiB: raise prefix_cache_bytes"
            )


def _system(prefix: WarmPrefix) -> str:
    if prefix.system is not None:
        return prefix.system
    if not (prefix.strict and prefix.file):
        return get_standard_system_prompt(prefix.file)
    try:
        return prompt_in(prefix.file)
    except (OSError, ValueError) as error:
        raise InvalidPrompt(f"its file {prefix.file} can't be used: {problem(error)}") from error
