"""The worker socket's messages: frozen, typed, in one union for each direction.

A *request* is answered once, under its id, by one of its results or by an error; a *notification* is not
answered. On the wire both are JSON-RPC 2.0 (see `framing`): a body's `METHOD` is the method's name, its fields
are the params; a result carries its type's name in `kind`, so that a line can be read without knowing what was
asked. Unknown fields are ignored, fields are only ever added, and every added field has a default.

Units: seconds, bytes, tokens. Token ids are the model's vocabulary indices.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

PROTOCOL_VERSION = 1
"""Version of the worker protocol; both ends must say the same one."""

Id: TypeAlias = int | str
"""A JSON-RPC request id. The daemon counts up integers; null is not an id here."""


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Params of a request or a notification."""

    METHOD: ClassVar[str]


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """The answer to a request; `kind` on the wire is the class name in lower case."""


class ErrorCode(IntEnum):
    """JSON-RPC error codes: the reserved ones (spec, section 5.1) and ours, from -32000 to -32099."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603

    UNSUPPORTED_PROTOCOL = -32001
    """The other end speaks another protocol version."""
    NOT_LOADED = -32002
    """A request that needs the model came before `load` succeeded."""
    MODEL_UNUSABLE = -32010
    """The model can't be loaded, and a restart won't help. Fatal."""
    INVALID_PROMPT = -32011
    """Empty prompt, token id outside the vocabulary, or messages that the chat template refuses."""
    CONTEXT_EXCEEDED = -32012
    """Prompt and answer don't fit the model's context."""
    INSUFFICIENT_MEMORY = -32013
    """The request's KV cache doesn't fit the memory limit now; it may later."""
    GENERATION_FAILED = -32014
    """The engine failed under the request, by no fault of its own; the same request may succeed elsewhere."""
    UNSUPPORTED = -32015
    """The request asks for what this model or engine can't do."""

    NOT_READY = -32020
    """The daemon has no ready worker, and won't have one within the request's deadline."""
    REFUSED = -32021
    """The daemon understood, and says no; the message says why."""


RETRYABLE = frozenset({ErrorCode.INSUFFICIENT_MEMORY, ErrorCode.GENERATION_FAILED})
"""Worker errors that the same request may escape on another try."""

FATAL = frozenset({ErrorCode.MODEL_UNUSABLE, ErrorCode.UNSUPPORTED_PROTOCOL})
"""Worker errors that a restart won't mend."""


# -- what a prompt is --------------------------------------------------------------------------------------


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="chat", omit_defaults=True):
    """A conversation, rendered by the model's own chat template in the worker."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    template_args: dict[str, Any] = {}


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Plain text, tokenized as it is, without a template."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tokens"):
    """Token ids, used as they are."""

    tokens: tuple[int, ...]


Prompt: TypeAlias = ChatPrompt | TextPrompt | TokenPrompt


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. Temperature 0 is greedy; then nothing else here matters."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


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


class Warm(Body, frozen=True, kw_only=True):
    """Make prefixes resident, in order; answered by `Warmed`, also after a `Cancel`. Progress stage: `warm`."""

    METHOD: ClassVar[str] = "warm"

    prefixes: tuple[WarmPrefix, ...]


class Generate(Body, frozen=True, kw_only=True):
    """Answer a prompt; deltas come in `Step`s, then `Finished`. Progress stage: `prefill`.

    `emitted` are tokens that an earlier worker already produced for this request: they are taken as part of the
    prompt, their text is not sent again, and they count towards `max_tokens`.
    """

    METHOD: ClassVar[str] = "generate"

    prompt: Prompt
    max_tokens: int | None = None
    """None: up to the end of the context."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    emitted: tuple[int, ...] = ()


class Statistics(Body, frozen=True, kw_only=True):
    """Ask for memory and cache figures; answered by `Figures`."""

    METHOD: ClassVar[str] = "statistics"


class Cancel(Body, frozen=True, kw_only=True):
    """Notification: give up the request `target`, which is still answered (`Warmed` or `Finished`)."""

    METHOD: ClassVar[str] = "cancel"

    target: Id


class Welcome(Result, frozen=True, kw_only=True):
    """The daemon's answer to `Hello`."""

    protocol: int
    generation: int


ToWorker: TypeAlias = Load | Warm | Generate | Statistics | Cancel


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


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one decoding step added to request `target`.

    `text` may be empty while `tokens` is not: half a character, or the beginning of a stop word.
    """

    target: Id
    tokens: tuple[int, ...]
    text: str = ""
    channel: Literal["normal", "reasoning", "tool"] = "normal"


class Step(Body, frozen=True, kw_only=True):
    """Notification: one decoding step, with the deltas of all running sequences."""

    METHOD: ClassVar[str] = "step"

    deltas: tuple[Delta, ...]


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
    engine: dict[str, str] = {}
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


class Warmed(Result, frozen=True, kw_only=True):
    """The warmup ended. `abandoned` keeps, and reports, what was computed until then."""

    outcome: Literal["succeeded", "abandoned", "failed"]
    prefixes: tuple[PrefixReport, ...]
    seconds: float
    reason: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one generation. `cached_tokens` of the prompt needed no prefill."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Finished(Result, frozen=True, kw_only=True):
    """The generation ended; `text` is what was held back until now."""

    reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    text: str = ""
    channel: Literal["normal", "reasoning", "tool"] = "normal"
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


class CacheFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the resident prefix cache since the worker's start."""

    entries: int
    pinned: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    evictions: int


class Figures(Result, frozen=True, kw_only=True):
    """Memory and cache of the worker now."""

    memory_bytes: int
    cache: CacheFigures
    running: int
    prompt_tps: float = 0.0
    generation_tps: float = 0.0


FromWorker: TypeAlias = Hello | Progress | Step | Loaded | Warmed | Finished | Figures
WorkerResult: TypeAlias = Loaded | Warmed | Finished | Figures


class ErrorData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`data` of an error: what to do about it, for a program and for a person."""

    retryable: bool = False
    remedy: str | None = None
    field: str | None = None
