"""How a worker is replaced without a pause, decided purely: a small machine above the two slots.

*Beside*: an heir starts, loads and warms in a slot of its own while the current worker serves. When it is ready the
two change places; the old one gets no new request, ends the running ones within the drain's bound, and goes. What it
could not end moves over by resume. If the heir does not become ready, nothing has happened but that the failure is
told; if the current worker dies meanwhile, the heir takes its place. *In place*: the slot's own machine restarts its
worker, and requests wait; for when there is no room for two. If a new worker in an old one's place is made otherwise
and comes to nothing, one is made again as the old one was.

Each slot is the machine of `machine`; this one only says when which slot exists, and what it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeAlias


class Stage(Enum):
    """How far a replacement has got."""

    SETTLED = "settled"
    """One slot, or two of which nobody is an heir."""
    PREPARING = "preparing"
    """An heir is on its way to ready."""
    DISMISSING = "dismissing"
    """An heir that is not wanted any more is being ended."""
    RETIRING = "retiring"
    """The heir serves; the old worker ends its requests."""
    TRYING = "trying"
    """In the old worker's place, one that is made otherwise is on its way to ready."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A replacement as somebody wants it.

    Attributes:
        cold: The new worker is not warmed.
        why: The cause of the old one's departure; None: a person's restart.
        changed: The new worker is made otherwise than the old one, because the configuration changed.
    """

    cold: bool = False
    why: str | None = None
    changed: Any = None


# -- events ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replacement is wanted; `beside` if there is room for two, and somebody to serve meanwhile.

    `proven` if a worker of this slot has been ready: then there is a way of making one to go back to.
    """

    wish: Wish
    beside: bool
    proven: bool = False


@dataclass(frozen=True, slots=True)
class HeirReady:
    """The heir is ready, warm or not."""


@dataclass(frozen=True, slots=True)
class HeirGone:
    """The heir died, or was ended; `why` it was not to be."""

    why: str


@dataclass(frozen=True, slots=True)
class CurrentGone:
    """The current worker died while the heir was on its way."""


@dataclass(frozen=True, slots=True)
class OldGone:
    """The worker that was replaced has ended."""


@dataclass(frozen=True, slots=True)
class TrialPassed:
    """The worker that was made otherwise is ready."""


@dataclass(frozen=True, slots=True)
class TrialFailed:
    """The worker that was made otherwise died before it was ready; `why`."""

    why: str


SuccessionEvent: TypeAlias = Wanted | HeirReady | HeirGone | CurrentGone | OldGone | TrialPassed | TrialFailed
EVENTS: tuple[type[SuccessionEvent], ...] = (
    Wanted,
    HeirReady,
    HeirGone,
    CurrentGone,
    OldGone,
    TrialPassed,
    TrialFailed,
)


# -- effects -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Raise:
    """Start an heir in a slot of its own."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class InPlace:
    """Have the current slot restart its worker."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class Swap:
    """The heir serves from now on; the old worker is drained and ended. `why`: see `Wish`."""

    why: str | None


@dataclass(frozen=True, slots=True)
class Promote:
    """The heir takes the place of the dead, as far as it has got, and what the dead one leaves: its way back."""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End the heir."""

    why: str


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Put a wish that had to wait, because room and needs may have changed."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class GoBack:
    """Make the current slot's worker as it was made when it last was ready."""


SuccessionEffect: TypeAlias = Raise | InPlace | Swap | Promote | Dismiss | AskAgain | GoBack


# -- deciding ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Succession:
    """What is decided upon; only `step` makes a new one."""

    stage: Stage = Stage.SETTLED
    present: Wish | None = None
    """Is being fulfilled beside the current worker."""
    wish: Wish | None = None
    """Waits until the present replacement has ended."""
    failure: str | None = None
    """Why the last replacement came to nothing; None once another one began."""


Decision: TypeAlias = tuple[Succession, tuple[SuccessionEffect, ...]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What an event does in a stage, and the stages that it may lead to (the diagram is drawn from these)."""

    apply: Callable[[Succession, Any], Decision]
    leads_to: tuple[Stage, ...]


def _begin(state: Succession, event: Wanted) -> Decision:
    if not event.beside:
        otherwise = event.wish.changed is not None and event.proven
        stage = Stage.TRYING if otherwise else Stage.SETTLED
        return replace(state, stage=stage, failure=None), (InPlace(event.wish),)
    return replace(state, stage=Stage.PREPARING, present=event.wish, failure=None), (Raise(event.wish),)


def _supersede(state: Succession, event: Wanted) -> Decision:
    """What is being prepared is not what is wanted now."""
    return replace(state, stage=Stage.DISMISSING, wish=event.wish), (Dismiss("another replacement was wanted"),)


def _put_off(state: Succession, event: Wanted) -> Decision:
    """The last wish is the one that counts, in its time."""
    return replace(state, wish=event.wish), ()


def _swap(state: Succession, _: HeirReady) -> Decision:
    return replace(state, stage=Stage.RETIRING), (Swap(state.present.why if state.present else None),)


def _give_up(state: Succession, event: HeirGone) -> Decision:
    """The old worker serves on."""
    return replace(state, stage=Stage.SETTLED, failure=event.why), ()


def _promote(state: Succession, _: CurrentGone) -> Decision:
    """One that is made otherwise is on trial in its place: the dead one has been ready, which is a way back."""
    otherwise = state.present is not None and state.present.changed is not None
    return replace(state, stage=Stage.TRYING if otherwise else Stage.SETTLED), (Promote(),)


def _settle(state: Succession, _: HeirGone | OldGone) -> Decision:
    again = (AskAgain(state.wish),) if state.wish else ()
    return replace(state, stage=Stage.SETTLED, wish=None), again


def _try_again(state: Succession, event: Wanted) -> Decision:
    """Nobody serves, so there is nobody to be beside; and what there is to go back to is the same."""
    return state, (InPlace(event.wish),)


def _pass(state: Succession, _: TrialPassed) -> Decision:
    return replace(state, stage=Stage.SETTLED), ()


def _go_back(state: Succession, event: TrialFailed) -> Decision:
    return replace(state, stage=Stage.SETTLED, failure=event.why), (GoBack(),)


TABLE: dict[tuple[Stage, type[SuccessionEvent]], Rule] = {
    (Stage.SETTLED, Wanted): Rule(_begin, (Stage.SETTLED, Stage.PREPARING, Stage.TRYING)),
    (Stage.PREPARING, HeirReady): Rule(_swap, (Stage.RETIRING,)),
    (Stage.PREPARING, HeirGone): Rule(_give_up, (Stage.SETTLED,)),
    (Stage.PREPARING, CurrentGone): Rule(_promote, (Stage.SETTLED, Stage.TRYING)),
    (Stage.PREPARING, Wanted): Rule(_supersede, (Stage.DISMISSING,)),
    (Stage.DISMISSING, Wanted): Rule(_put_off, (Stage.DISMISSING,)),
    (Stage.DISMISSING, HeirGone): Rule(_settle, (Stage.SETTLED,)),
    (Stage.RETIRING, Wanted): Rule(_put_off, (Stage.RETIRING,)),
    (Stage.RETIRING, OldGone): Rule(_settle, (Stage.SETTLED,)),
    (Stage.TRYING, Wanted): Rule(_try_again, (Stage.TRYING,)),
    (Stage.TRYING, TrialPassed): Rule(_pass, (Stage.SETTLED,)),
    (Stage.TRYING, TrialFailed): Rule(_go_back, (Stage.SETTLED,)),
}

MEANINGLESS: dict[tuple[Stage, type[SuccessionEvent]], str] = {
    **{(Stage.SETTLED, event): "nobody is being replaced" for event in (HeirReady, HeirGone, OldGone)},
    (Stage.SETTLED, CurrentGone): "its slot's own machine brings it back",
    (Stage.PREPARING, OldGone): "nobody is retiring",
    (Stage.DISMISSING, HeirReady): "it was ended before it heard",
    (Stage.DISMISSING, CurrentGone): "its slot's own machine brings it back",
    (Stage.DISMISSING, OldGone): "nobody is retiring",
    (Stage.RETIRING, HeirReady): "the heir is the current worker now",
    (Stage.RETIRING, HeirGone): "the heir is the current worker now",
    (Stage.RETIRING, CurrentGone): "its slot's own machine brings it back",
    **{(Stage.TRYING, event): "there is one slot" for event in (HeirReady, HeirGone, OldGone)},
    (Stage.TRYING, CurrentGone): "its slot's own machine brings it back",
    **{
        (stage, event): "nothing is being tried"
        for stage in (Stage.SETTLED, Stage.PREPARING, Stage.DISMISSING, Stage.RETIRING)
        for event in (TrialPassed, TrialFailed)
    },
}


def decide(state: Succession, event: SuccessionEvent) -> Decision:
    """The state after the event, and what is to be done about it, in order."""
    rule = TABLE.get((state.stage, type(event)))
    return rule.apply(state, event) if rule else (state, ())


def mermaid() -> str:
    """The second diagram of `docs/design.md`: the table's edges between different stages, events joined."""
    labels: dict[tuple[Stage, Stage], list[str]] = {}
    for (stage, event), rule in TABLE.items():
        for target in rule.leads_to:
            if target is not stage:
                labels.setdefault((stage, target), []).append(event.__name__)
    edges = (f"    {a.value} --> {b.value}: {', '.join(names)}" for (a, b), names in labels.items())
    return "\n".join(["stateDiagram-v2", "    [*] --> settled", *edges])
