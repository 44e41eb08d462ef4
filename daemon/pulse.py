"""A loaded worker's pulse: what it owes, when it last proved that it computes, and when its silence is too long.

Proof of life is what only the thread that computes can send: progress, decoding steps, and the results of
generations and warmups. A socket that is alive proves nothing, and neither do answers that need no computing. Work on
one request proves life for all: a batch that decodes lets a prefill wait.

Data and arithmetic only: `link` feeds it, `life` sleeps until what is due.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..ipc.messages import Body, Delta, Finished, Generate, Id, Result, Warm, Warmed


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long a worker may be silent, in seconds. Each is measured from the last proof of life."""

    first_token: float = 120.0
    """While a prompt waits for its first token, or a warmup runs; each report of progress begins it anew."""
    next_token: float = 60.0
    """While answers are decoded, and nothing else."""
    probe_interval: float = 300.0
    """Idle time after which the worker is asked for a token; 0: never."""
    bad_answers: int = 5
    """So many answers in a row that failed or were empty are a worker that computes nothing sensible."""


class Kind(Enum):
    """What is due when the time comes."""

    SILENT = "silent"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Due:
    """What will have to be done at a time, if nothing is heard until then."""

    at: float
    kind: Kind
    why: str = ""


@dataclass(slots=True)
class Pulse:
    """Begins when the model is loaded. Times are seconds of one monotonic clock."""

    proved: float = 0.0
    """When the worker last proved that it computes."""
    owes_since: float = 0.0
    """When it last began to owe something; before that, silence was no fault."""
    probed: float = 0.0
    """When the last probe ended, however it did."""
    bad: int = 0
    """Answers in a row that failed or were empty."""
    _computing: set[Id] = field(default_factory=set)
    _other: set[Id] = field(default_factory=set)
    _decoding: set[Id] = field(default_factory=set)
    _probes: set[Id] = field(default_factory=set)

    def asked(self, request_id: Id, body: Body, now: float) -> None:
        """A request was sent. What the worker owes is counted from the first one that it owes."""
        if not (self._computing or self._other):
            self.owes_since = now
        if isinstance(body, Generate | Warm):
            self._computing.add(request_id)
        else:
            self._other.add(request_id)
        if isinstance(body, Generate) and body.probe:
            self._probes.add(request_id)

    def heard(self, now: float) -> None:
        """It reported progress."""
        self.proved = now

    def stepped(self, deltas: tuple[Delta, ...], now: float) -> None:
        """It decoded a token of each of these."""
        self.proved = now
        self._decoding.update(delta.target for delta in deltas if delta.target in self._computing)

    def answered(self, request_id: Id, result: Result, now: float) -> None:
        """It answered; called before `closed`."""
        if isinstance(result, Finished | Warmed):
            self.proved = now
        if not isinstance(result, Finished) or result.reason == "cancelled":
            return
        if request_id in self._computing - self._probes:  # a probe's token may well be the end of an answer
            self.bad = 0 if result.usage.completion_tokens else self.bad + 1

    def failed(self) -> None:
        """It failed under a generation, by no fault of the request."""
        self.bad += 1

    def closed(self, request_id: Id) -> None:
        """The request is answered, or was given up."""
        for owed in (self._computing, self._other, self._decoding, self._probes):
            owed.discard(request_id)

    def due(self, budgets: Budgets) -> Due | None:
        """What is to be done next, and when; None: nothing, whatever the time."""
        if self._computing or self._other:
            return self._silence(budgets)
        if not budgets.probe_interval:
            return None
        return Due(max(self.proved, self.probed) + budgets.probe_interval, Kind.PROBE)

    def poisoned(self, budgets: Budgets) -> str | None:
        """Why its answers say that it is of no use any more; None: they don't."""
        if self.bad < budgets.bad_answers:
            return None
        return f"poisoned: {self.bad} answers in a row were empty or failed"

    def _silence(self, budgets: Budgets) -> Due:
        began = max(self.proved, self.owes_since)
        if self._computing and self._computing <= self._decoding:
            why = f"silent: no token for {budgets.next_token:g} s in the middle of an answer"
            return Due(began + budgets.next_token, Kind.SILENT, why)
        what = "when it was probed" if self._probes and self._probes == self._computing else "with work to do"
        why = f"silent: no token and no progress for {budgets.first_token:g} s {what}"
        return Due(began + budgets.first_token, Kind.SILENT, why)
