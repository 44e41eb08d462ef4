"""What a session needs of an engine, and what an engine's thread needs of the code that computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, get_args

from ..ipc.framing import Frame
from ..ipc.messages import Id, Job

JOBS: tuple[type[Job], ...] = get_args(Job)
"""Bodies of requests, for those who look at types."""

Emit: TypeAlias = Callable[[Frame], None]
"""Takes a frame for the daemon, from any thread but the main one. It may hold that thread up while the daemon reads
slower than the engine writes: the engine stops instead of filling the memory."""


class Engine(Protocol):
    """Computes on a thread of its own; every submitted request is answered once, by a result or an error.

    All methods return at once, whatever is being computed.
    """

    def submit(self, request_id: Id, body: Job) -> None:
        """Take a request; it is answered through `Emit` under this id, which must not be in use."""

    def cancel(self, target: Id) -> None:
        """Give up a request between two chunks or steps. It is still answered; one already answered is ignored."""

    def close(self) -> None:
        """Stop after the chunk or step under way; requests still open stay unanswered."""


class Core(Protocol):
    """The engine proper: all its methods are called on one thread, which owns every array."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute until the next request."""

    @property
    def due(self) -> float | None:
        """Seconds after which a turn is wanted even if it is idle; None: not before the next request."""

    def handle(self, request_id: Id, body: Job, submitted: float) -> None:
        """Begin a request, or answer it at once. `submitted` is on the clock of `time.perf_counter`.

        Raises:
            WorkerError: The request is refused; the caller answers it.
        """

    def cancel(self, target: Id) -> None:
        """Give up a request, and answer it."""

    def turn(self) -> None:
        """Compute a little: one decoding step and one chunk of prefill at most."""

    def close(self, seconds: float) -> None:
        """The process ends: write down what should outlive it, in this time at most. Called on any thread."""
