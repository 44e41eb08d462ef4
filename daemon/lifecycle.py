"""The vocabulary of a worker's life: phases, events, effects, state and policy. Data only.

`machine` decides with these, `supervisor` acts on them. One machine describes one worker *slot*: at any time at
most one worker, its generation counting up. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ..ipc.messages import PrefixReport, WarmPrefix


class Phase(Enum):
    """Where the slot is. `phase` says what is; `State.wanted` says what the operator wants."""

    DOWN = "down"
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class StopStep(Enum):
    """How far a stop has got; needed because the one deadline means something else in each."""

    DRAINING = "draining"
    TERMINATING = "terminating"
    KILLING = "killing"


class Outcome(Enum):
    """How a generation's warmup ended."""

    SUCCEEDED = "succeeded"
    ABANDONED = "abandoned"
    FAILED = "failed"
    DISABLED = "disabled"


# -- events ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The operator wants the worker up."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The operator wants it down. Said twice, it drains no longer. `why` becomes the cause of its departure."""

    why: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """A new generation is wanted; `cold` skips its warmup. `why` becomes the cause of the old one's departure."""

    cold: bool = False
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Rewarm:
    """The operator wants prefixes warmed on the live worker; `ticket` names the request, from 1 up."""

    ticket: int
    prefixes: tuple[WarmPrefix, ...] = ()


@dataclass(frozen=True, slots=True)
class Outnumbered:
    """Another slot has given its worker this generation number; ours go on after it."""

    generation: int


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """`State.deadline` is over. Stale if the deadline has moved meanwhile."""


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """News of one generation; dropped if it is not the living one."""

    generation: int


@dataclass(frozen=True, slots=True)
class Greeted(WorkerEvent):
    """The worker connected and said hello in our protocol version."""


@dataclass(frozen=True, slots=True)
class LoadAdvanced(WorkerEvent):
    """Loading made progress."""


@dataclass(frozen=True, slots=True)
class Loaded(WorkerEvent):
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class LoadFailed(WorkerEvent):
    """The worker refused the model; `fatal` if a restart won't help."""

    why: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class WarmupEnded(WorkerEvent):
    """The worker answered a warmup. `ticket` 0 is the generation's own, else the rewarm's."""

    outcome: Outcome
    reason: str | None = None
    seconds: float = 0.0
    prefixes: tuple[PrefixReport, ...] = ()
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class WarmedLater(WorkerEvent):
    """The worker warmed prefixes in idle time, unasked: what an abandoned warmup had left, or a new day changed."""

    prefixes: tuple[PrefixReport, ...]


@dataclass(frozen=True, slots=True)
class LinkLost(WorkerEvent):
    """The worker's connection ended, or broke the protocol, while its process lives.

    `fatal` if it speaks another version of the protocol: its successor will too.
    """

    why: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Unfit(WorkerEvent):
    """A loaded worker is of no use any more, though its process and its connection live: silent, or poisoned."""

    why: str


@dataclass(frozen=True, slots=True)
class Drained(WorkerEvent):
    """No request runs on the worker any more."""


@dataclass(frozen=True, slots=True)
class Exited(WorkerEvent):
    """The process is gone and reaped, or could not be spawned.

    `luck` in [0, 1) spreads the backoff; `fatal` if it said by its exit code that a restart won't help; `transient`
    if it could not be spawned for want of something that everybody shares, which is nobody's fault.
    """

    cause: str
    luck: float = 0.0
    fatal: bool = False
    transient: bool = False


Event: TypeAlias = (
    Start
    | Stop
    | Restart
    | Rewarm
    | Outnumbered
    | DeadlinePassed
    | Greeted
    | LoadAdvanced
    | Loaded
    | LoadFailed
    | WarmupEnded
    | WarmedLater
    | LinkLost
    | Unfit
    | Drained
    | Exited
)
EVENTS: tuple[type[Event], ...] = (
    Start,
    Stop,
    Restart,
    Rewarm,
    Outnumbered,
    DeadlinePassed,
    Greeted,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    WarmupEnded,
    WarmedLater,
    LinkLost,
    Unfit,
    Drained,
    Exited,
)


# -- state and policy --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Warmup:
    """The generation's warmup; `outcome` is None until it ended."""

    outcome: Outcome | None = None
    seconds: float = 0.0
    prefixes: tuple[PrefixReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Departure:
    """A generation that ended; `expected` if we had asked it to, `transient` if it was never spawned."""

    at: float
    generation: int
    cause: str
    expected: bool
    transient: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is decided upon. Only `machine.step` makes a new one."""

    phase: Phase = Phase.DOWN
    wanted: bool = False
    generation: int = 0
    taken: int = 0
    """Highest generation number that another slot has given away."""
    alive: bool = False
    """A process of this generation was ordered, and its `Exited` has not come."""
    since: float = 0.0
    """When the phase was entered."""
    deadline: float | None = None
    warm: bool = False
    reason: str | None = None
    """Why not warm, or why not ready."""
    warmup: Warmup = Warmup()
    cold: bool = False
    """The next generation skips warmup, because the operator said so."""
    rewarming: int = 0
    """Ticket of the rewarm under way; 0 if none."""
    stop_step: StopStep | None = None
    doom: str | None = None
    """Why we are killing this generation; it becomes the cause of its departure."""
    fatal: bool = False
    """The doom is one that a restart won't mend."""
    errand: str | None = None
    """Why it is asked to end, if there is more to say than that it was."""
    failures: int = 0
    """Newborn deaths in a row: the exponent of the backoff."""
    warmup_crashes: int = 0
    """Deaths during warmup in a row."""
    deaths: tuple[float, ...] = ()
    """Unexpected deaths within the policy's period."""
    departures: tuple[Departure, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers. Durations in seconds; `docs/configuration.md` says how to set them."""

    hello_timeout: float = 10.0
    load_stall_timeout: float = 120.0
    """Loading may take as long as it likes, if it shows progress this often."""
    warmup_enabled: bool = True
    warmup_timeout: float = 60.0
    restore_crash_limit: int = 2
    """Crashes during warmup in a row, after which a generation restores nothing from disk. After the first one the
    worker itself leaves out the prefix that it was restoring."""
    warmup_crash_limit: int = 3
    """Crashes during warmup in a row, after which a generation starts without it."""
    drain_timeout: float = 30.0
    stop_grace: float = 5.0
    kill_interval: float = 2.0
    """A process that survived KILL sits in the kernel; it is told again this often, for the log's sake."""
    healthy_after: float = 30.0
    """A worker that was ready for this long restarts at once; a younger one waits."""
    backoff_base: float = 1.0
    backoff_cap: float = 60.0
    backoff_jitter: float = 0.2
    """Fraction of the delay that chance adds, so that several daemons don't march in step."""
    restart_limit: int = 5
    restart_period: float = 300.0
    """More than `restart_limit` unexpected deaths within it, and the slot is `failed`."""
    departures_kept: int = 32
