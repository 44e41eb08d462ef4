"""Trials of a benchmark as they should be, to be spoilt in one point by a test; and a report."""

from __future__ import annotations

from stoker.bench.comeback import Comeback
from stoker.bench.measuring import Round
from stoker.bench.report import Check, Json, Report, Section
from stoker.bench.stopwatch import Answer
from stoker.bench.subject import Course, Transition
from stoker.bench.trials import Trial
from stoker.ipc.control_messages import PrefixStatus, Readiness, WarmupStatus


def answer(first: float, cached: int = 0, text: str = "Paris", prompt: int = 2012) -> Answer:
    """The answer to a request that reused so much; 64 tokens, one each 20 ms."""
    return Answer(first, first + 2, text, prompt, cached, 64, first + 63 * 0.02)


def prefix(
    name: str = "bench", source: str = "prefilled", *, tokens: int = 2000, warm: int | None = None
) -> PrefixStatus:
    """What a warmup reports of a prefix."""
    whole = tokens if warm is None else warm
    seconds = 0.1 if source == "restored" else 14.0
    return PrefixStatus(name=name, tokens=tokens, tokens_warm=whole, source=source, seconds=seconds)


LEARNED = prefix("learned-1a2b3c4d", "restored")
COMEBACK = Comeback(LEARNED, answer(0.35, 2000, "Red"), answer(0.28, 2000), 1.75)
GOOD = Trial(
    cold=answer(14.0),
    again=answer(0.28, 2000),
    others=(answer(0.25, 2000, "Red"), answer(0.27, 2000, "Seven")),
    prefix=prefix(),
    comeback=COMEBACK,
)
"""2,000 tokens."""


def trial_of(size: int, *, cold: float) -> Trial:
    """A trial of another size."""
    one = answer(cold, prompt=size)
    warm = answer(0.25, size, prompt=size)
    learned = prefix("learned-1a2b3c4d", "restored", tokens=size)
    return Trial(
        one,
        warm,
        (answer(0.2, size, prompt=size),),
        prefix(tokens=size),
        Comeback(learned, answer(0.3, size), warm, 1.75),
    )


def restart(seconds: float = 1.5, report: PrefixStatus = LEARNED) -> Course:
    """An orderly one, after which this was reported of the learned prefix."""
    warmup = WarmupStatus(outcome="succeeded", seconds=0.1, prefixes=(prefix("system", tokens=229), report))
    ready = Readiness(ready=True, phase="ready", warm=True, reason=None, generation=2, since=0.0, warmup=warmup)
    return Course((Transition(0.0, "ready", 1), Transition(seconds, "ready", 2)), ready)


ROUND = Round(2000, GOOD, answer(0.1), restart())


def report(*, quiet: bool = True, **facts: object) -> Report:
    """Of a machine that was quiet or not: one check failed, one target was missed."""
    machine: Json = {
        "cpu": "A CPU",
        "cores": 2,
        "memory_gib": 24,
        "system": "Linux x86_64",
        "load_before": "0.10 0.20 0.30",
        "busy_before_percent": 3.0,
        "quiet": quiet,
        "openblas": "not found",
    }
    checks = (Check("warm text is the cold text", "differs", ok=False), Check("30x", "29x", ok=False, target=True))
    section = Section("a", "A title", "A method.", ("what", "[s]"), (("cold", "1.98 s"),), {}, checks)
    return Report("make bench", {"machine": machine, "versions": {"stoker": "0.1.0"}, **facts}, [section])
