"""Engine and model, as a worker would find them: a process in a worker's environment looks, and tells."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import psutil

from ..settings import Settings
from .finding import Finding, gib, note, ok, wrong
from .shell import FAILURES, PYTHON, told

COMMAND = (*PYTHON, "stoker.worker.checkup")
TIMEOUT = 120.0
"""Seconds: importing takes one or two, and minutes from a slow disk."""

USABLE = 0.8
"""Share of the machine's memory that the worker allows itself where nothing is configured."""

REINSTALL = "install Stoker again: pip install --force-reinstall stoker"


class Seen(msgspec.Struct, frozen=True):
    """What `stoker.worker.checkup` tells."""

    engine: dict[str, str] = msgspec.field(default_factory=dict)
    engine_problem: str | None = None
    absent: bool = False
    model_bytes: int = 0
    kv_bytes_per_token: int | None = None
    context_tokens: int | None = None
    model_problem: str | None = None
    remedy: str | None = None


def findings(settings: Settings) -> Iterator[Finding]:
    """What is wrong with engine or model, or what they need."""
    try:
        seen = look(settings)
    except FAILURES as error:
        yield wrong("mlx", f"the look at it failed: {error}", REINSTALL)
        return
    yield from of(seen, settings, psutil.virtual_memory().total)


def look(settings: Settings) -> Seen:
    """Run the look.

    Raises:
        OSError, subprocess.SubprocessError, msgspec.MsgspecError: It could not be run, or told nothing.
    """
    return told((*COMMAND, settings.model, str(settings.cache_dir)), Seen, TIMEOUT)


def of(seen: Seen, settings: Settings, memory: int) -> Iterator[Finding]:
    """What the look says, in findings; `memory` is the machine's, in bytes."""
    if seen.engine_problem is not None:
        yield wrong("mlx", f"it can't be imported: {seen.engine_problem}", REINSTALL)
        return
    yield ok("mlx", ", ".join(f"{name} {what}" for name, what in seen.engine.items()))
    if seen.model_problem is not None:
        yield wrong("model", seen.model_problem, seen.remedy or "configure another `model`")
    elif seen.absent:
        yield ok("model", f"{settings.model}, to be fetched or converted at the first start")
    else:
        yield ok("model", f"{settings.model}, {gib(seen.model_bytes)}")
        yield _memory(seen, settings, memory)


def _memory(seen: Seen, settings: Settings, memory: int) -> Finding:
    context = settings.context_tokens or seen.context_tokens
    weights = f"{gib(seen.model_bytes)} weights"
    if not context or seen.kv_bytes_per_token is None:
        return note("memory", f"{weights}; what the KV cache takes is known once it runs")
    limit = settings.memory_limit_bytes or int(memory * USABLE)
    kv = context * seen.kv_bytes_per_token
    words = f"{weights} and {gib(kv)} for a context of {context:,} tokens, of {gib(limit)}"
    if seen.model_bytes > limit:
        return wrong("memory", f"{words}: not even the weights fit", "choose a smaller or more quantized `model`")
    if seen.model_bytes + kv > limit:
        fits = max(0, (limit - seen.model_bytes) // max(1, seen.kv_bytes_per_token))
        return note("memory", f"{words}: long requests will be refused", f"set context_tokens to {fits:,} or less")
    return ok("memory", words)
