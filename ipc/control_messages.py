"""The control socket's messages: what the daemon answers; what it may be asked is in `control_requests`.

Same framing as the worker socket. Results are plain objects without a `kind`: whoever asks knows the type, and
`nc -U` users see no noise. Fields are only ever added. Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from .messages import (
    Body,
    CacheFigures,
    KnownPrefix,
    PrefixReport,
    ProvenPrefix,
    SetAside,
    Speed,
    StoredPrefix,
    StoreFigures,
)

Phase: TypeAlias = Literal["down", "starting", "loading", "warming", "ready", "stopping", "backoff", "failed"]
Outcome: TypeAlias = Literal["succeeded", "abandoned", "failed", "disabled"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A result of the control socket."""


class PrefixStatus(Document, frozen=True, kw_only=True):
    """A prefix of the last warmup."""

    name: str
    tokens: int
    tokens_warm: int
    source: str
    seconds: float
    note: str | None = None
    optional: bool = False
    failed: bool = False

    @classmethod
    def of(cls, report: PrefixReport) -> PrefixStatus:
        """The public form of a worker's report."""
        return cls(**{name: getattr(report, name) for name in cls.__struct_fields__})


class WarmupStatus(Document, frozen=True, kw_only=True):
    """How the generation's warmup ended; `outcome` is null while it has not."""

    outcome: Outcome | None
    seconds: float
    prefixes: tuple[PrefixStatus, ...] = ()


class ProgressStatus(Document, frozen=True, kw_only=True):
    """What the worker is busy with on the way to ready."""

    stage: str
    done: int
    total: int
    name: str | None = None


class SuccessorStatus(Document, frozen=True, kw_only=True):
    """A worker that is being prepared beside the one that serves, to take its place."""

    generation: int
    phase: Phase
    since: float
    """When its phase was entered."""
    progress: ProgressStatus | None = None
    reason: str | None = None


class Readiness(Document, frozen=True, kw_only=True):
    """The answer to `ready`: an immutable snapshot of the machine."""

    ready: bool
    phase: Phase
    warm: bool
    reason: str | None
    """Why not warm, or why not ready, in words that a program may compare (`timeout`, `disabled`) or a sentence."""
    generation: int
    since: float
    """When the phase was entered."""
    warmup: WarmupStatus
    progress: ProgressStatus | None = None
    retry_after: float | None = None
    """Seconds until the machine will try again, where it knows."""
    expected: bool = True
    """Ready, or on the way there without anyone's help. False: waiting is in vain until a person acts."""
    successor: SuccessorStatus | None = None
    """The worker that will take this one's place as soon as it is ready."""
    replacement_failed: str | None = None
    """Why the last replacement came to nothing, and the old worker serves on."""
    departures: int = 0
    """Workers that have ended since the daemon's start; so the end of one that was replaced is news, too."""


class Changed(Body, frozen=True, kw_only=True):
    """Notification after `watch`: the snapshot after a transition."""

    METHOD: ClassVar[str] = "changed"

    readiness: Readiness


class WorkerStatus(Document, frozen=True, kw_only=True):
    """The live worker process."""

    pid: int
    uptime: float
    memory_bytes: int


class Departure(Document, frozen=True, kw_only=True):
    """A worker generation that ended."""

    at: float
    generation: int
    cause: str
    expected: bool = False


class RequestCounts(Document, frozen=True, kw_only=True):
    """Requests since the daemon's start, and those in flight."""

    running: int = 0
    waiting: int = 0
    served: int = 0
    resumed: int = 0
    cancelled: int = 0
    failed: int = 0


class Rates(Document, frozen=True, kw_only=True):
    """Tokens per second of the worker's latest work; 0 when none was measured yet."""

    prompt_tps: float = 0.0
    generation_tps: float = 0.0


class ReloadStatus(Document, frozen=True, kw_only=True):
    """What became of the last reload of the configuration."""

    at: float
    outcome: Literal["applied", "refused"]
    message: str
    """What changed and how, or why nothing did."""


class StatusReport(Readiness, frozen=True, kw_only=True):
    """The answer to `status`."""

    model: str | None
    model_path: str
    http: str
    """Base URL of the HTTP API."""
    pid: int
    """The daemon's."""
    uptime: float
    version: str
    worker: WorkerStatus | None
    restarts: tuple[Departure, ...]
    prefixes: tuple[PrefixStatus, ...]
    cache: CacheFigures | None
    store: StoreFigures | None = None
    """Prefixes on disk; null where none are kept."""
    background: str | None = None
    """Name of the prefix that is being warmed in idle time: left by an abandoned warmup, or changed with the date."""
    requests: RequestCounts
    rates: Rates
    last_words: tuple[str, ...]
    """The last log lines of the last worker that died unexpectedly."""
    logs: dict[str, str] = {}
    """Paths of the daemon's and the worker's log."""
    notes: tuple[str, ...] = ()
    """Findings that cost performance, each with its remedy."""
    reload: ReloadStatus | None = None
    """The last reload of the configuration; null while there was none."""


class Accepted(Document, frozen=True, kw_only=True):
    """The daemon will do it."""

    accepted: bool = True


class RewarmReport(Document, frozen=True, kw_only=True):
    """How a rewarm ended."""

    outcome: Outcome
    seconds: float
    reason: str | None
    prefixes: tuple[PrefixStatus, ...]


class PrefixListing(Document, frozen=True, kw_only=True):
    """The configured prefixes in their order, then the learned ones, the most valuable first."""

    prefixes: tuple[KnownPrefix, ...]
    notes: tuple[str, ...] = ()


class Counted(Document, frozen=True, kw_only=True):
    """Carried out for so many prefixes. 0 only where all were to be forgotten: an unknown name is an error."""

    count: int


class StoredListing(Document, frozen=True, kw_only=True):
    """Prefixes on disk, of this model and others, the latest used first."""

    folder: str
    prefixes: tuple[StoredPrefix, ...]
    bytes: int
    """Of all files."""
    budget_bytes: int
    set_aside: tuple[SetAside, ...] = ()
    """What isn't used, or was damaged and deleted; the latest first."""


class Verification(Document, frozen=True, kw_only=True):
    """Stored prefixes after all of each was read; those with a fault are deleted."""

    prefixes: tuple[ProvenPrefix, ...]


class Clearance(Document, frozen=True, kw_only=True):
    """How much was deleted from the disk. 0 only where no name was given: an unknown name is an error."""

    count: int
    bytes: int


class Measurement(Document, frozen=True, kw_only=True):
    """How fast the machine computes for a process, without a model; of use beside that of another process."""

    device: str
    bandwidth: float
    """Bytes per second."""
    flops: float
    """Operations per second."""
    seconds: float

    @classmethod
    def of(cls, speed: Speed) -> Measurement:
        """The public form of a worker's answer."""
        return cls(**{name: getattr(speed, name) for name in cls.__struct_fields__})


class VersionReport(Document, frozen=True, kw_only=True):
    """Versions of the daemon and of what it speaks."""

    version: str
    protocol: int
    python: str
    extra: dict[str, Any] = {}
