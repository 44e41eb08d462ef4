"""A backend without a worker: it plays a script of outputs and remembers what was asked and how it ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import anyio

from stoker.daemon.dispatch import Output, Started
from stoker.daemon.gateway.keys import Access
from stoker.daemon.insight import Insight
from stoker.daemon.readiness import Board
from stoker.daemon.records import Records
from stoker.ipc.control_messages import Rates, Readiness, RequestCounts, RewarmReport, StatusReport, WarmupStatus
from stoker.ipc.messages import CountTokens, Delta, Finished, Generate, Usage, WarmPrefix

STARTED = Started(cached_tokens=7, prompt_tokens=9)
USAGE = Usage(prompt_tokens=9, completion_tokens=3, cached_tokens=7)
FINISHED = Finished(reason="stop", usage=USAGE)

READY = Readiness(
    ready=True,
    phase="ready",
    warm=True,
    reason=None,
    generation=3,
    since=1.0,
    warmup=WarmupStatus(outcome="succeeded", seconds=1.9),
)


class Hold:
    """A place in a script where nothing more happens until the client leaves, or a test lets go."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.let_go = anyio.Event()


Step: TypeAlias = Output | Exception | Hold


def delta(
    text: str, channel: Literal["normal", "reasoning", "tool"] = "normal", tokens: tuple[int, ...] = (1,)
) -> Delta:
    """A step of the answer."""
    return Delta(target=1, tokens=tokens, text=text, channel=channel)


def answer(*texts: str) -> tuple[Step, ...]:
    """The script of a good answer."""
    return (STARTED, *map(delta, texts), FINISHED)


class FakeDispatch:
    """Plays `script` for each request."""

    def __init__(self, script: Iterable[Step]) -> None:
        self.script: Iterable[Step] = script
        self.bodies: list[Generate] = []
        self.counted: list[CountTokens] = []
        self.finished = 0
        self.left_early = anyio.Event()

    @asynccontextmanager
    async def generate(self, body: Generate) -> AsyncIterator[AsyncIterator[Output]]:
        """Serve the script."""
        self.bodies.append(body)
        before = self.finished
        try:
            yield self._play()
        finally:
            if self.finished == before:
                self.left_early.set()

    async def count_tokens(self, body: CountTokens) -> int:
        """Count as many as the next step of the script says, or fail like it."""
        self.counted.append(body)
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Started):
                return step.prompt_tokens
        return 0

    async def _play(self) -> AsyncIterator[Output]:
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Hold):
                step.reached.set()
                await step.let_go.wait()
                continue
            self.finished += isinstance(step, Finished)
            yield step


@dataclass
class FakeModels:
    id: str = "models/SmolLM2-135M-Instruct"
    aliases: tuple[str, ...] = ("gpt-4o",)
    accept_any: bool = False


@dataclass
class FakeBoard:
    current: Readiness = READY

    async def watch(self) -> AsyncIterator[Readiness]:
        """This snapshot, and never another."""
        yield self.current
        await anyio.sleep_forever()


def observing(readiness: Readiness) -> Insight:
    """The insight of a daemon that nothing happens to."""
    return Insight.over(Board(readiness, time.monotonic), Records())


@dataclass
class FakeBackend:
    """All that the gateway needs; change a field and serve it."""

    dispatch: FakeDispatch = field(default_factory=lambda: FakeDispatch(answer("Hello", " there")))
    board: FakeBoard = field(default_factory=FakeBoard)
    models: FakeModels = field(default_factory=FakeModels)
    host: str = "127.0.0.1"
    access: Access = field(default_factory=Access)
    insight: Insight = field(default_factory=lambda: observing(READY))
    restarts: list[bool] = field(default_factory=list)
    rewarms: int = 0

    async def restart(self, *, cold: bool) -> None:
        """Remember it."""
        self.restarts.append(cold)

    async def rewarm(self, prompts: tuple[WarmPrefix, ...]) -> RewarmReport:
        """Remember it, and say that it went well."""
        self.rewarms += 1
        return RewarmReport(
            outcome="succeeded", seconds=0.4, reason=None, prefixes=self.board.current.warmup.prefixes
        )

    async def status(self) -> StatusReport:
        """A report with the board's snapshot in it."""
        snapshot = {name: getattr(self.board.current, name) for name in Readiness.__struct_fields__}
        return StatusReport(
            **snapshot,
            model=self.models.id,
            model_path="embedded",
            http="http://127.0.0.1:11500",
            pid=1,
            uptime=2.0,
            version="0",
            worker=None,
            restarts=(),
            prefixes=(),
            cache=None,
            requests=RequestCounts(),
            rates=Rates(),
            last_words=(),
        )


def playing(*script: Step) -> FakeBackend:
    """A backend whose every answer is `script`."""
    return FakeBackend(dispatch=FakeDispatch(script))
