"""What the settings mean to the parts of the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..ipc.messages import Load
from .attention import Attention
from .dispatch import Limits
from .environment import worker_environment
from .life import Launch
from .lifecycle import Policy
from .memory import SHARE_OF_MACHINE, has_room, machine_memory
from .model_path import EMBEDDED
from .process import LineSink
from .pulse import Budgets
from .settings import Settings
from .warmups import in_order

EMBEDDED_ID = "SmolLM2-135M-Instruct"


@dataclass(frozen=True, slots=True)
class Models:
    """The names under which the model may be asked for."""

    id: str
    aliases: tuple[str, ...]
    accept_any: bool


def models(settings: Settings, model: str | None = None) -> Models:
    """Names of the model; `model` is another one than configured, where that is what is served."""
    path = model or settings.model
    return Models(EMBEDDED_ID if path == EMBEDDED else Path(path).name, settings.aliases, settings.accept_any_model)


def limits(settings: Settings) -> Limits:
    """Bounds of waiting."""
    return Limits(
        max_waiting=settings.max_waiting,
        wait_timeout=settings.wait_timeout_sec,
        attempts=settings.resume_attempts,
        resume_timeout=settings.resume_timeout_sec,
    )


def policy(settings: Settings) -> Policy:
    """The machine's numbers."""
    return Policy(
        hello_timeout=settings.hello_timeout_sec,
        load_stall_timeout=settings.load_stall_timeout_sec,
        warmup_enabled=settings.kv_cache_warmup,
        warmup_timeout=settings.warmup_timeout_sec,
        drain_timeout=settings.drain_timeout_sec,
        stop_grace=settings.stop_grace_sec,
        backoff_base=settings.backoff_base_sec,
        backoff_cap=settings.backoff_cap_sec,
        restart_limit=settings.restart_limit,
        restart_period=settings.restart_period_sec,
    )


def budgets(settings: Settings) -> Budgets:
    """How long a loaded worker may be silent."""
    return Budgets(
        first_token=settings.first_token_timeout_sec,
        next_token=settings.next_token_timeout_sec,
        probe_interval=settings.probe_interval_sec,
        bad_answers=settings.bad_answers_limit,
    )


def ceiling(settings: Settings) -> int:
    """Bytes over which a worker is replaced."""
    return settings.memory_ceiling_bytes or int(machine_memory()[0] * SHARE_OF_MACHINE)


def is_room(settings: Settings, occupied: int | None) -> bool:
    """Whether a worker is to be replaced beside the one that occupies so many bytes."""
    if settings.replacement != "auto":
        return settings.replacement == "beside"
    return occupied is not None and has_room(max(occupied, weights(settings.model)), *machine_memory())


def weights(model: str) -> int:
    """Bytes of the weights of a model in a directory: the least that a worker of it occupies."""
    try:
        return sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    except OSError:
        return 0  # not a directory, or not readable: the worker will tell


def launch(
    settings: Settings,
    *,
    command: Sequence[str],
    sink: LineSink,
    openblas: Path | None,
    attention: Attention,
    in_force: Callable[[], Budgets],
) -> Launch:
    """What it takes to start workers; budgets are those `in_force` when they are looked at."""
    load = Load(
        model=settings.model,
        cache_dir=str(settings.cache_dir),
        context_tokens=settings.context_tokens,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        memory_limit_bytes=settings.memory_limit_bytes,
        chunk_seconds=settings.chunk_seconds,
        max_batch=settings.max_batch,
        normalise=settings.normalise_prompts,
        learn=settings.learned_prefixes,
        state_dir=str(settings.state_dir),
        store_dir=str(settings.cache_dir / "prefixes"),
        store_bytes=settings.disk_cache_bytes,
    )
    return Launch(
        command=command,
        environ=lambda generation: worker_environment(os.environ, generation, openblas),
        socket_dir=settings.runtime_dir,
        load=load,
        prefixes=in_order(settings.warmup, settings.warmup_system_file),
        sink=sink,
        budgets=in_force,
        attention=attention,
    )
