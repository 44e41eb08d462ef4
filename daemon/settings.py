"""What can be configured: one struct, whose annotations are the documentation, the checks and the error messages."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
import platformdirs
from msgspec import Meta

from ..ipc.messages import WarmPrefix

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
"""Finite, and over 0."""
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
ApiKey: TypeAlias = Annotated[str, Meta(pattern=r"^[!-~]{8,512}\Z")]
"""What a header carries as it is, and nobody guesses at once."""
Origin: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*://[^/\s*?#@]+\Z")]
"""As browsers send it: scheme, host, and port where it is not the usual one; no path, no pattern."""


def _says(description: str, *, env: str | None = None, default: str | None = None, secret: bool = False) -> Meta:
    """Meaning of a key; its environment variable (empty: none) and its default where they aren't the obvious ones."""
    told = {"env": env, "default": default, "secret": secret or None}
    extra = {name: value for name, value in told.items() if value is not None}
    return Meta(description=description, extra=extra)


def _runtime_dir() -> Path:
    """The platform's place for sockets; without one, a folder of ours in the temporary directory.

    platformdirs would fall back to `/tmp/runtime-UID/stoker`, whose parent anybody could own.
    """
    if sys.platform == "darwin":
        return platformdirs.user_runtime_path("stoker")
    session = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    if session.is_dir() and os.access(session, os.W_OK):
        return session / "stoker"
    return Path(tempfile.gettempdir()) / f"stoker-{os.getuid()}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's configuration, checked. Paths are absolute."""

    model: Annotated[
        Text,
        _says("`embedded` (SmolLM2-135M-Instruct), a directory in mlx-lm's format, or a hub id `ORGANISATION/NAME`."),
    ] = "embedded"
    aliases: Annotated[
        tuple[Text, ...], _says("Further names by which requests may ask for the model. Environment: commas between.")
    ] = ()
    accept_any_model: Annotated[bool, _says("Whether requests may ask for a model by any name.")] = False

    host: Annotated[
        Text, _says("Address of the HTTP API. Anything but loopback is open to the network: set keys.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), _says("Port of the HTTP API; 0 takes any free one.")] = 11500
    socket: Annotated[
        Path | None, _says("Path of the control socket.", default="`control.sock` in `runtime_dir`")
    ] = None

    api_keys: Annotated[
        tuple[ApiKey, ...],
        _says(
            "Requests need one of these keys; none: no key is needed. Each is 8 or more visible ASCII characters. "
            "Environment: commas between.",
            secret=True,
        ),
    ] = ()
    api_key_file: Annotated[
        Path | None, _says("Further keys, one a line, in a file that nobody else may read (0600).", default="none")
    ] = None
    open_endpoints: Annotated[
        tuple[Literal["/readyz", "/metrics"], ...],
        _says("What may be asked without a key where there are keys, beside `/livez`. Environment: commas between."),
    ] = ()
    allowed_origins: Annotated[
        tuple[Origin, ...],
        _says(
            "Origins of web pages that may use the API (CORS), such as `https://chat.example`. "
            "Environment: commas between."
        ),
    ] = ()

    context_tokens: Annotated[
        Count | None, _says("Upper bound on prompt plus answer.", default="the model's own")
    ] = None
    prefix_cache_bytes: Annotated[
        int, Meta(ge=0), _says("Memory for prompt prefixes that are kept warm.", default="2147483648 (2 GiB)")
    ] = 2 << 30
    memory_limit_bytes: Annotated[
        Count | None,
        _says("Requests that would push the worker's memory over this are refused.", default="80 % of the machine"),
    ] = None
    chunk_seconds: Annotated[
        float,
        Meta(ge=0.01, le=60),
        _says("Time budget of one prefill chunk: how long a cancel, or another request's turn, may have to wait."),
    ] = 0.5
    max_batch: Annotated[int, Meta(ge=1, le=1024), _says("Answers decoded together.")] = 16
    worker_command: Annotated[
        tuple[Text, ...],
        _says(
            "Program and arguments of another worker, which speaks docs/protocol.md. Environment: commas between.",
            default="Stoker's",
        ),
    ] = ()
    max_waiting: Annotated[
        int, Meta(ge=0, le=100_000), _says("Requests that may wait for a ready worker; more get a 429.")
    ] = 64
    wait_timeout_sec: Annotated[Seconds, _says("How long a request may wait for a ready worker before a 503.")] = (
        300.0
    )
    resume_attempts: Annotated[
        Count,
        _says("Workers in a row that a request may lose without getting further, before it is given up."),
    ] = 3
    resume_timeout_sec: Annotated[
        Seconds, _says("How long after its arrival a request that lost its worker may still get another.")
    ] = 3600.0

    kv_cache_warmup: Annotated[
        bool, _says("Whether to warm the system prompt before saying ready.", env="KV_CACHE_WARMUP")
    ] = True
    warmup_timeout_sec: Annotated[
        Seconds,
        _says(
            "After this long warmup is abandoned, and the daemon ready all the same. "
            "A bad value of the environment variable is a warning, and 60.",
            env="WARMUP_TIMEOUT_SEC",
        ),
    ] = 60.0
    warmup_system_file: Annotated[
        Path | None,
        _says(
            "UTF-8 file with the system prompt to warm, at most 1 MiB; a bad one is a warning, and the default.",
            env="WARMUP_SYSTEM_FILE",
            default="the built-in prompt",
        ),
    ] = None

    warmup: Annotated[
        tuple[WarmPrefix, ...],
        _says("Prompts to warm, with tools and template arguments: see [Prompts to warm](#prompts-to-warm).", env=""),
    ] = ()
    learned_prefixes: Annotated[
        int,
        Meta(ge=0, le=64),
        _says("How many system prompts learned from requests are warmed at a start; 0 learns nothing."),
    ] = 4
    normalise_prompts: Annotated[
        bool, _says("Whether to take out of prompts what clients change with every request (docs/operations.md).")
    ] = True

    disk_cache_bytes: Annotated[
        int,
        Meta(ge=0),
        _says("Disk for prefixes that outlive the worker; 0 keeps none.", default="8589934592 (8 GiB)"),
    ] = 8 << 30

    hello_timeout_sec: Annotated[Seconds, _says("How long a new worker process may take to say hello.")] = 10.0
    load_stall_timeout_sec: Annotated[
        Seconds, _says("How long loading may go on without any progress before the worker is replaced.")
    ] = 120.0
    first_token_timeout_sec: Annotated[
        Seconds,
        _says(
            "How long a ready worker may be silent while a prompt waits for its first token; "
            "each report of progress begins it anew, so a long prefill is not bounded."
        ),
    ] = 120.0
    next_token_timeout_sec: Annotated[
        Seconds, _says("How long a worker may be silent in the middle of answers before it is replaced.")
    ] = 60.0
    probe_interval_sec: Annotated[
        float,
        Meta(ge=0, le=86400),
        _says("Idle time after which a ready worker is asked for one token, as a sign of life; 0: never."),
    ] = 300.0
    bad_answers_limit: Annotated[
        Count, _says("So many answers in a row that failed or were empty, and the worker is replaced.")
    ] = 5
    memory_ceiling_bytes: Annotated[
        Count | None,
        _says("A worker whose memory grows over this is replaced.", default="90 % of the machine"),
    ] = None
    replacement: Annotated[
        Literal["auto", "beside", "in-place"],
        _says(
            "How a worker is replaced: `beside`, the old one serves until the new one is ready, which takes memory "
            "for two; `in-place`, requests wait; `auto`, beside where memory allows it."
        ),
    ] = "auto"
    drain_timeout_sec: Annotated[
        Seconds, _says("How long running answers may take to end when the worker is restarted or stopped.")
    ] = 30.0
    stop_grace_sec: Annotated[Seconds, _says("Between SIGTERM and SIGKILL for a worker.")] = 5.0
    restart_limit: Annotated[
        Count, _says("Crashes within `restart_period_sec` after which the daemon gives up (`failed`).")
    ] = 5
    restart_period_sec: Annotated[Seconds, _says("The period of `restart_limit`.")] = 300.0
    backoff_base_sec: Annotated[Seconds, _says("First pause before a restart; it doubles with each failure.")] = 1.0
    backoff_cap_sec: Annotated[Seconds, _says("Longest pause before a restart.")] = 60.0

    log_level: Annotated[Literal["debug", "info", "warning", "error"], _says("Least severe events to log.")] = "info"
    runtime_dir: Annotated[
        Path, _says("Sockets and the lock; private (0700).", default="the platform's runtime directory")
    ] = msgspec.field(default_factory=_runtime_dir)
    state_dir: Annotated[
        Path, _says("What is remembered between runs.", default="the platform's state directory")
    ] = msgspec.field(default_factory=lambda: platformdirs.user_state_path("stoker"))
    cache_dir: Annotated[
        Path, _says("Converted models; may be deleted at any time.", default="the platform's cache directory")
    ] = msgspec.field(default_factory=lambda: platformdirs.user_cache_path("stoker"))
    log_dir: Annotated[Path, _says("`daemon.log` and `worker.log`.", default="the platform's log directory")] = (
        msgspec.field(default_factory=lambda: platformdirs.user_log_path("stoker"))
    )

    def __repr__(self) -> str:
        """For logs and tracebacks: without the keys."""
        shown = (f"{name}={getattr(self, name)!r}" for name, key in KEYS.items() if not key.is_secret)
        return f"Settings({', '.join(shown)})"

    @property
    def control_socket(self) -> Path:
        """Where the control socket is: `socket`, or its default in `runtime_dir`."""
        return self.socket or self.runtime_dir / "control.sock"


class Key:
    """One setting, as its annotation tells it."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.name = name
        self.annotation = annotation
        metas = [meta for meta in annotation.__metadata__ if isinstance(meta, Meta)]
        self._extra = next((meta.extra for meta in metas if meta.extra), {})
        self.meaning = next((meta.description for meta in metas if meta.description), "")
        self.env = str(self._extra.get("env", f"STOKER_{name.upper()}"))
        self.allowed = describe(annotation)
        self.is_flag = self.allowed == TRUTH
        self.is_list = self.allowed.startswith("a list")
        self.is_secret = bool(self._extra.get("secret"))

    @property
    def default(self) -> str:
        """The default, in words."""
        words = self._extra.get("default")
        if words:
            return str(words)
        value = _DEFAULTS[self.name]
        return msgspec.json.encode(value).decode() if value != () else "none"


TRUTH = "true or false"
_PLAIN = {
    bool: TRUTH,
    int: "a whole number",
    float: "a number of seconds",
    str: "text",
    Path: "a path",
    WarmPrefix: "tables, `[[warmup]]`",
}


def describe(annotation: Any, metas: tuple[Any, ...] = ()) -> str:
    """What a type allows, in words: `a whole number from 0 to 65535`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        return describe(inner, (*metas, *own))
    if origin in {Union, UnionType}:
        return describe(get_args(annotation)[0], metas)
    if origin is Literal:
        return "one of " + ", ".join(get_args(annotation))
    if origin is tuple:
        return f"a list of {describe(get_args(annotation)[0])}".replace("of one of", "of")
    named = _NAMED.get(next((meta.pattern for meta in metas if isinstance(meta, Meta) and meta.pattern), ""))
    return named or _PLAIN[annotation] + _range([meta for meta in metas if isinstance(meta, Meta)])


def _pattern(alias: Any) -> str:
    return str(get_args(alias)[1].pattern)


_NAMED = {
    _pattern(ApiKey): "keys of 8 to 512 visible ASCII characters",
    _pattern(Origin): "origins such as https://chat.example, without a path or *",
}
"""What a pattern asks for, in words."""


def _range(metas: list[Meta]) -> str:
    bounds = {
        name: value for meta in metas for name in ("gt", "ge", "le") if (value := getattr(meta, name)) is not None
    }
    if bounds.get("le", sys.float_info.max) != sys.float_info.max:
        return f" from {bounds['ge']} to {bounds['le']}"
    if "gt" in bounds:
        return f" over {bounds['gt']}"
    return f" of at least {bounds['ge']}" if "ge" in bounds else ""


KEYS = {name: Key(name, annotation) for name, annotation in get_type_hints(Settings, include_extras=True).items()}
"""All settings by name, in the order of the struct."""

_DEFAULTS: dict[str, Any] = dict(zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True))
