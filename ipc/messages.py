"""The worker socket's messages: frozen, typed, in one union for each direction.

Those of answers are in `generation`, those about prefixes in `prefix_messages`.

A *request* is answered once, under its id, by one of its results or by an error; a *notification* is not
answered. On the wire both are JSON-RPC 2.0 (see `framing`): a body's `METHOD` is the method's name, its fields
are the params; a result carries its type's name in `kind`, so that a line can be read without knowing what was
asked. Unknown fields are ignored, fields are only ever added, and every added field has a default.

Units: seconds, bytes, tokens. Token ids are the model's vocabulary indices.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from .body import Body, Id, Result
from .generation import (
    ChatPrompt,
    Constraint,
    CountTokens,
    Delta,
    Finished,
    Generate,
    JsonConstraint,
    Likely,
    Prompt,
    Sampling,
    Step,
    TextPrompt,
    TokenCount,
    TokenLogprob,
    TokenPrompt,
    ToolCall,
    ToolConstraint,
    Usage,
)
from .prefix_messages import (
    CacheClear,
    CacheFigures,
    CacheList,
    CacheVerify,
    Cleared,
    Forget,
    KnownPrefix,
    Noted,
    Pin,
    Prefixes,
    PrefixList,
    Proven,
    ProvenPrefix,
    SetAside,
    StoredList,
    StoredPrefix,
    StoreFigures,
)

__all__ = [
    "PROTOCOL_VERSION",
    "Body",
    "CacheClear",
    "CacheFigures",
    "CacheList",
    "CacheVerify",
    "Cancel",
    "ChatPrompt",
    "Cleared",
    "Constraint",
    "CountTokens",
    "Delta",
    "Figures",
    "Finished",
    "Forget",
    "FromWorker",
    "Generate",
    "Hello",
    "Id",
    "Job",
    "JsonConstraint",
    "KnownPrefix",
    "Likely",
    "Load",
    "Loaded",
    "Measure",
    "Noted",
    "Pin",
    "PrefixList",
    "PrefixReport",
    "Prefixes",
    "Progress",
    "Prompt",
    "Proven",
    "ProvenPrefix",
    "Result",
    "Sampling",
    "SetAside",
    "Speed",
    "Stage",
    "Statistics",
    "Step",
    "StoreFigures",
    "StoredList",
    "StoredPrefix",
    "TextPrompt",
    "ToWorker",
    "TokenCount",
    "TokenLogprob",
    "TokenPrompt",
    "ToolCall",
    "ToolConstraint",
    "Usage",
    "Warm",
    "WarmPrefix",
    "Warmed",
    "WarmedLater",
    "Welcome",
    "WorkerResult",
]

PROTOCOL_VERSION = 1
"""Version of the worker protocol; both ends must say the same one."""


class WarmPrefix(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prefix to be made warm: what every request with this system prompt and these tools shares.

    With `system` the text is given; else the worker reads `file` (a path on its machine), and where that is
    missing or unusable falls back to the built-in prompt, as `WARMUP_SYSTEM_FILE` promises.
    """

    name: str
    system: str | None = None
    file: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    template_args: dict[str, Any] = {}
    strict: bool = False
    """A `file` that can't be used fails this prefix, instead of the built-in prompt taking its place."""


# -- to the worker -----------------------------------------------------------------------------------------


class Load(Body, frozen=True, kw_only=True):
    """Load a model; answered by `Loaded`. `Progress` with stage `convert`, `download` or `load` comes meanwhile."""

    METHOD: ClassVar[str] = "load"

    model: str
    """A directory, a hub id in mlx-lm's format, or `embedded` for the embedded default model."""
    cache_dir: str
    """Directory for converted models; the worker makes it when it is missing."""
    context_tokens: int | None = None
    """Upper bound on prompt plus answer; None takes the model's own."""
    prefix_cache_bytes: int = 2 << 30
    memory_limit_bytes: int | None = None
    """Admission refuses requests whose KV would push the process over this; None takes 80 % of the machine."""
    chunk_seconds: float = 0.5
    """Time budget of one prefill chunk: how long a cancel, or another request's turn, may have to wait."""
    max_batch: int = 16
    """Sequences decoded together."""
    normalise: bool = True
    """Take out of prompts what clients change with every request, before the template sees it."""
    learn: int = 4
    """How many prefixes learned from requests are warmed at a start, beside the pinned ones; 0 learns nothing."""
    state_dir: str | None = None
    """Directory for what is learned; None remembers nothing between two workers."""
    store_dir: str | None = None
    """Directory for prefixes on disk; None keeps none."""
    store_bytes: int = 8 << 30
    """Most bytes of all files in it."""


class Warm(Body, frozen=True, kw_only=True):
    """Make prefixes resident, in order; answered by `Warmed`, also after a `Cancel`. Progress stage: `warm`."""

    METHOD: ClassVar[str] = "warm"

    prefixes: tuple[WarmPrefix, ...]
    learned: bool = False
    """After these, the ones learned from requests."""
    restore: bool = True
    """Whether prefixes may be read from disk; off after a worker died of it."""
    finish: bool = False
    """What is unfinished when this is cancelled is finished later, while there is nothing else to compute."""


class Statistics(Body, frozen=True, kw_only=True):
    """Ask for memory and cache figures; answered by `Figures`."""

    METHOD: ClassVar[str] = "statistics"


class Measure(Body, frozen=True, kw_only=True):
    """Ask how fast the machine computes for this process; answered by `Speed`, or by `BUSY` at once."""

    METHOD: ClassVar[str] = "measure"


class Cancel(Body, frozen=True, kw_only=True):
    """Notification: give up the request `target`, which is still answered (`Warmed` or `Finished`)."""

    METHOD: ClassVar[str] = "cancel"

    target: Id


class Welcome(Result, frozen=True, kw_only=True):
    """The daemon's answer to `Hello`."""

    protocol: int
    generation: int


Job: TypeAlias = (
    Load
    | Warm
    | Generate
    | CountTokens
    | Statistics
    | Prefixes
    | Pin
    | Forget
    | CacheList
    | CacheVerify
    | CacheClear
    | Measure
)
"""A request's body."""
ToWorker: TypeAlias = Job | Cancel


# -- from the worker ---------------------------------------------------------------------------------------


class Hello(Body, frozen=True, kw_only=True):
    """The worker's first message, a request, sent before it imports any engine; answered by `Welcome`."""

    METHOD: ClassVar[str] = "hello"

    protocol: int
    pid: int
    stoker: str
    python: str


Stage: TypeAlias = Literal["convert", "download", "load", "warm", "prefill"]


class Progress(Body, frozen=True, kw_only=True):
    """Notification: work on request `target` advanced to `done` of `total` units of the stage.

    Units are tokens for `warm` and `prefill`, bytes for `download`, and steps for `convert` and `load`. It comes
    from the compute thread, so it proves life. `cached` counts the prompt tokens that needed no prefill.
    """

    METHOD: ClassVar[str] = "progress"

    target: Id
    stage: Stage
    done: int
    total: int
    name: str | None = None
    cached: int = 0


class Loaded(Result, frozen=True, kw_only=True):
    """The model is loaded and passed its self-test."""

    model: str
    """Id that clients may use: the last part of the path or hub id."""
    context_tokens: int
    vocabulary: int
    kv_bytes_per_token: int
    memory_bytes: int
    seconds: float
    prefix_reuse: Literal["trimmable", "exact"]
    """`trimmable`: any common prefix is reused. `exact`: only a whole stored prefix (recurrent, sliding window)."""
    engine: dict[str, str] = msgspec.field(default_factory=dict)
    """Names and versions: mlx, mlx_lm, device."""


class PrefixReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prefix after a warmup."""

    name: str
    tokens: int
    """Length of the whole prefix."""
    tokens_warm: int
    """How many of them are resident now."""
    source: Literal["prefilled", "resident", "restored", "none"]
    seconds: float
    note: str | None = None
    optional: bool = False
    """A warmup succeeds without it: it was learned, not configured."""
    failed: bool = False
    """It can't be computed; the note says why."""


class Warmed(Result, frozen=True, kw_only=True):
    """The warmup ended. `abandoned` keeps, and reports, what was computed until then."""

    outcome: Literal["succeeded", "abandoned", "failed"]
    prefixes: tuple[PrefixReport, ...]
    seconds: float
    reason: str | None = None


class WarmedLater(Body, frozen=True, kw_only=True):
    """Notification: prefixes that an abandoned warmup had left, or a new day changed, were warmed in idle time."""

    METHOD: ClassVar[str] = "warmed_later"

    prefixes: tuple[PrefixReport, ...]


class Figures(Result, frozen=True, kw_only=True):
    """Memory and cache of the worker now."""

    memory_bytes: int
    cache: CacheFigures
    running: int
    prompt_tps: float = 0.0
    generation_tps: float = 0.0
    store: StoreFigures | None = None
    background: str | None = None
    """Name of the prefix that is being warmed in idle time."""
    prefixes: tuple[PrefixReport, ...] = ()
    """What was warmed in idle time, which nobody waited for; each takes the place of an older report of its name."""


class Speed(Result, frozen=True, kw_only=True):
    """What a fixed piece of work, the same for every model, showed of the machine."""

    device: str
    """`cpu` or `gpu`."""
    bandwidth: float
    """Bytes of weights per second through products of matrix and vector: what decoding is bound by."""
    flops: float
    """Floating-point operations per second in products of matrices: what prefill is bound by."""
    seconds: float
    """How long it took."""


WorkerResult: TypeAlias = (
    Loaded | Warmed | Finished | TokenCount | Figures | PrefixList | Noted | StoredList | Proven | Cleared | Speed
)
FromWorker: TypeAlias = Hello | Progress | Step | WarmedLater | WorkerResult
