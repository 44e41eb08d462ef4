"""The control socket's requests: what the CLI and other programs may ask the daemon.

Same framing as the worker socket, and requests that the daemon passes on to the worker are the worker's own. What is
answered is in `control_messages`.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias, get_args

from .messages import Body, CacheClear, CacheList, CacheVerify, Measure, WarmPrefix


class Ready(Body, frozen=True, kw_only=True):
    """Is the service ready? Answered at once by `Readiness`."""

    METHOD: ClassVar[str] = "ready"


class WaitReady(Body, frozen=True, kw_only=True):
    """Wait until ready or failed, at most `timeout` seconds; answered by `Readiness` either way."""

    METHOD: ClassVar[str] = "wait_ready"

    timeout: float = 60.0


class Status(Body, frozen=True, kw_only=True):
    """Everything the daemon knows; answered by `StatusReport`."""

    METHOD: ClassVar[str] = "status"


class Watch(Body, frozen=True, kw_only=True):
    """Answered by `Readiness` now; then a `Changed` notification at each transition, until the client leaves."""

    METHOD: ClassVar[str] = "watch"


class Restart(Body, frozen=True, kw_only=True):
    """Replace the worker; answered by `Accepted` once it is under way. `cold` skips warmup."""

    METHOD: ClassVar[str] = "restart"

    cold: bool = False


class Rewarm(Body, frozen=True, kw_only=True):
    """Warm again without restarting, the standard prompts or these; answered by `RewarmReport` when done."""

    METHOD: ClassVar[str] = "rewarm"

    prompts: tuple[WarmPrefix, ...] = ()


class WarmList(Body, frozen=True, kw_only=True):
    """Which prefixes are warm or learned; answered by `PrefixListing`."""

    METHOD: ClassVar[str] = "warm_list"


class WarmPin(Body, frozen=True, kw_only=True):
    """Warm a learned prefix at every start, or no longer; answered by `Counted`."""

    METHOD: ClassVar[str] = "warm_pin"

    name: str
    pinned: bool = True


class WarmForget(Body, frozen=True, kw_only=True):
    """Forget a learned prefix; without a name, all of every model. Answered by `Counted`."""

    METHOD: ClassVar[str] = "warm_forget"

    name: str | None = None


class Stop(Body, frozen=True, kw_only=True):
    """Stop worker and daemon; answered by `Accepted`, then the connection ends when the daemon has."""

    METHOD: ClassVar[str] = "stop"


class Version(Body, frozen=True, kw_only=True):
    """Answered by `VersionReport`."""

    METHOD: ClassVar[str] = "version"


ControlRequest: TypeAlias = (
    Ready
    | WaitReady
    | Status
    | Watch
    | Restart
    | Rewarm
    | WarmList
    | WarmPin
    | WarmForget
    | CacheList
    | CacheVerify
    | CacheClear
    | Measure
    | Stop
    | Version
)
CONTROL_REQUESTS: tuple[type[ControlRequest], ...] = get_args(ControlRequest)
