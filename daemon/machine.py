"""The worker's lifecycle, decided purely: no await, no clock, no log, no process.

`step` looks the rule up by (phase, event type) and applies it; every pair is either in `TABLE` or named in
`MEANINGLESS`. What governs all rules:

* News of a generation that is not the living one changes nothing. One guard at the top of `step` sees to it, so
  that no rule has to think of late messages.
* A doomed generation, one that was sent KILL, has nothing more to say: only its exit counts. The second guard.
* `Kill` never changes the phase; only `Exited` does. There is one road out of a life, and no death is counted
  twice.
* The deadline is state. The shell sleeps until then and says `DeadlinePassed`; if the deadline moved meanwhile,
  the event is stale and dropped.
* Intent (`wanted`) and fact (`phase`) are separate. Stop-then-start while stopping flips only the intent.
* No rule is triggered by a client's request: one that retries could otherwise defeat the restart limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import rules, rules_of_dying, rules_of_stopping
from .lifecycle import (
    DeadlinePassed,
    Drained,
    Event,
    Exited,
    Greeted,
    LinkLost,
    LoadAdvanced,
    Loaded,
    LoadFailed,
    Outnumbered,
    Phase,
    Policy,
    Restart,
    Rewarm,
    Start,
    State,
    Stop,
    Unfit,
    WarmedLater,
    WarmupEnded,
    WorkerEvent,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an event does in a phase, and the phases that it may lead to (the diagram is drawn from these)."""

    apply: rules.RuleFunction
    leads_to: frozenset[Phase]


def _rule(apply: rules.RuleFunction, *leads_to: Phase) -> Rule:
    return Rule(apply, frozenset(leads_to))


_DEATH = (Phase.BACKOFF, Phase.FAILED)

TABLE: dict[tuple[Phase, type[Event]], Rule] = {
    (Phase.DOWN, Start): _rule(rules.start, Phase.STARTING),
    (Phase.DOWN, Restart): _rule(rules.restart_from_rest, Phase.STARTING),
    (Phase.DOWN, Rewarm): _rule(rules.refuse_rewarm, Phase.DOWN),
    (Phase.STARTING, Greeted): _rule(rules.load, Phase.LOADING),
    (Phase.STARTING, DeadlinePassed): _rule(rules_of_dying.kill_mute, Phase.STARTING),
    (Phase.STARTING, LinkLost): _rule(rules_of_dying.kill_unlinked, Phase.STARTING),
    (Phase.STARTING, Exited): _rule(rules_of_dying.die, *_DEATH),
    (Phase.STARTING, Stop): _rule(rules_of_stopping.stop_early, Phase.STOPPING),
    (Phase.STARTING, Restart): _rule(rules_of_stopping.restart_early, Phase.STOPPING),
    (Phase.STARTING, Rewarm): _rule(rules.refuse_rewarm, Phase.STARTING),
    (Phase.LOADING, LoadAdvanced): _rule(rules.extend_load, Phase.LOADING),
    (Phase.LOADING, Loaded): _rule(rules.warm_up, Phase.WARMING, Phase.READY),
    (Phase.LOADING, LoadFailed): _rule(rules_of_dying.kill_refused, Phase.LOADING),
    (Phase.LOADING, DeadlinePassed): _rule(rules_of_dying.kill_stalled, Phase.LOADING),
    (Phase.LOADING, LinkLost): _rule(rules_of_dying.kill_unlinked, Phase.LOADING),
    (Phase.LOADING, Exited): _rule(rules_of_dying.die, *_DEATH),
    (Phase.LOADING, Stop): _rule(rules_of_stopping.stop_early, Phase.STOPPING),
    (Phase.LOADING, Restart): _rule(rules_of_stopping.restart_early, Phase.STOPPING),
    (Phase.LOADING, Rewarm): _rule(rules.refuse_rewarm, Phase.LOADING),
    (Phase.WARMING, WarmupEnded): _rule(rules.finish_warmup, Phase.READY),
    (Phase.WARMING, DeadlinePassed): _rule(rules.abandon_warmup, Phase.READY),
    (Phase.WARMING, LinkLost): _rule(rules_of_dying.kill_unlinked, Phase.WARMING),
    (Phase.WARMING, Unfit): _rule(rules_of_dying.kill_unfit, Phase.WARMING),
    (Phase.WARMING, Exited): _rule(rules_of_dying.die, *_DEATH),
    (Phase.WARMING, Stop): _rule(rules_of_stopping.stop_early, Phase.STOPPING),
    (Phase.WARMING, Restart): _rule(rules_of_stopping.restart_early, Phase.STOPPING),
    (Phase.WARMING, Rewarm): _rule(rules.refuse_rewarm, Phase.WARMING),
    (Phase.READY, WarmupEnded): _rule(rules.finish_rewarm, Phase.READY),
    (Phase.READY, WarmedLater): _rule(rules.warmed_later, Phase.READY),
    (Phase.READY, Rewarm): _rule(rules.rewarm, Phase.READY),
    (Phase.READY, DeadlinePassed): _rule(rules.abandon_rewarm, Phase.READY),
    (Phase.READY, LinkLost): _rule(rules_of_dying.kill_unlinked, Phase.READY),
    (Phase.READY, Unfit): _rule(rules_of_dying.kill_unfit, Phase.READY),
    (Phase.READY, Exited): _rule(rules_of_dying.die, Phase.STARTING, *_DEATH),
    (Phase.READY, Stop): _rule(rules_of_stopping.stop_gently, Phase.STOPPING),
    (Phase.READY, Restart): _rule(rules_of_stopping.restart_gently, Phase.STOPPING),
    (Phase.STOPPING, Drained): _rule(rules_of_stopping.end_drain, Phase.STOPPING),
    (Phase.STOPPING, LinkLost): _rule(rules_of_stopping.end_drain, Phase.STOPPING),
    (Phase.STOPPING, Unfit): _rule(rules_of_stopping.end_drain, Phase.STOPPING),
    (Phase.STOPPING, DeadlinePassed): _rule(rules_of_stopping.escalate_stop, Phase.STOPPING),
    (Phase.STOPPING, Exited): _rule(rules_of_stopping.finish_stop, Phase.STARTING, Phase.DOWN),
    (Phase.STOPPING, Stop): _rule(rules_of_stopping.stop_sooner, Phase.STOPPING),
    (Phase.STOPPING, Start): _rule(rules_of_stopping.start_after_stop, Phase.STOPPING),
    (Phase.STOPPING, Restart): _rule(rules_of_stopping.restart_after_stop, Phase.STOPPING),
    (Phase.STOPPING, Rewarm): _rule(rules.refuse_rewarm, Phase.STOPPING),
    (Phase.BACKOFF, DeadlinePassed): _rule(rules.retry, Phase.STARTING),
    (Phase.BACKOFF, Start): _rule(rules.start, Phase.STARTING),
    (Phase.BACKOFF, Restart): _rule(rules.restart_from_rest, Phase.STARTING),
    (Phase.BACKOFF, Stop): _rule(rules_of_stopping.stop_at_rest, Phase.DOWN),
    (Phase.BACKOFF, Rewarm): _rule(rules.refuse_rewarm, Phase.BACKOFF),
    (Phase.FAILED, Start): _rule(rules.start, Phase.STARTING),
    (Phase.FAILED, Restart): _rule(rules.restart_from_rest, Phase.STARTING),
    (Phase.FAILED, Stop): _rule(rules_of_stopping.stop_at_rest, Phase.DOWN),
    (Phase.FAILED, Rewarm): _rule(rules.refuse_rewarm, Phase.FAILED),
    **{(phase, Outnumbered): _rule(rules.count_on, phase) for phase in Phase},
}

_NEWS: tuple[type[Event], ...] = (
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
_AT_REST = (Phase.DOWN, Phase.BACKOFF, Phase.FAILED)

MEANINGLESS: dict[tuple[Phase, type[Event]], str] = {
    **{(phase, event): "no generation is alive" for phase in _AT_REST for event in _NEWS},
    (Phase.DOWN, Stop): "nothing runs, nothing is planned",
    (Phase.DOWN, DeadlinePassed): "waits for a person, not for time",
    (Phase.FAILED, DeadlinePassed): "waits for a person, not for time",
    (Phase.STARTING, Start): "already wanted",
    (Phase.LOADING, Start): "already wanted",
    (Phase.WARMING, Start): "already wanted",
    (Phase.READY, Start): "already wanted",
    **{
        (Phase.STARTING, event): "before hello, a worker has nothing to say"
        for event in (LoadAdvanced, Loaded, LoadFailed, WarmupEnded, WarmedLater)
    },
    (Phase.LOADING, Greeted): "hello is said once; the link refuses a second",
    (Phase.WARMING, Greeted): "hello is said once; the link refuses a second",
    (Phase.READY, Greeted): "hello is said once; the link refuses a second",
    (Phase.STARTING, Unfit): "watched over from `Loaded` on",
    (Phase.LOADING, Unfit): "watched over from `Loaded` on",
    (Phase.LOADING, WarmupEnded): "no warmup was asked for yet",
    (Phase.LOADING, WarmedLater): "no warmup was asked for yet",
    (Phase.WARMING, WarmedLater): "idle time begins after the warmup",
    **{
        (phase, event): "load is asked for once, and was answered"
        for phase in (Phase.WARMING, Phase.READY)
        for event in (LoadAdvanced, Loaded, LoadFailed)
    },
    **{
        (phase, Drained): "only a stop drains"
        for phase in (Phase.STARTING, Phase.LOADING, Phase.WARMING, Phase.READY)
    },
    **{
        (Phase.STOPPING, event): "said before the worker heard that it is to stop"
        for event in (Greeted, LoadAdvanced, Loaded, LoadFailed, WarmupEnded, WarmedLater)
    },
}


def step(state: State, event: Event, now: float, policy: Policy) -> rules.Step:
    """The state after the event, and what is to be done about it, in order."""
    if isinstance(event, WorkerEvent) and (event.generation != state.generation or not state.alive):
        return state, ()
    if isinstance(event, DeadlinePassed) and (state.deadline is None or now < state.deadline):
        return state, ()
    if state.doom is not None and state.phase is not Phase.STOPPING:
        if isinstance(event, DeadlinePassed):
            return rules_of_dying.kill_again(state, now, policy)
        if isinstance(event, WorkerEvent) and not isinstance(event, Exited):
            return state, ()
    rule = TABLE.get((state.phase, type(event)))
    return rule.apply(state, event, now, policy) if rule else (state, ())


def mermaid() -> str:
    """The state diagram of `docs/design.md`: the table's edges between different phases, events joined."""
    labels: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, event), rule in TABLE.items():
        for target in sorted(rule.leads_to - {phase}, key=list(Phase).index):
            labels.setdefault((phase, target), []).append(event.__name__)
    edges = (f"    {a.value} --> {b.value}: {', '.join(names)}" for (a, b), names in labels.items())
    return "\n".join(["stateDiagram-v2", "    [*] --> down", *edges])
