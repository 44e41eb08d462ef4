"""The real engine core on this thread, turned by the test: every order of events is the test's own choice."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stoker.ipc.framing import ErrorResponse, Frame, Notification, Response
from stoker.ipc.messages import (
    ChatPrompt,
    Delta,
    Finished,
    Generate,
    Job,
    Load,
    Loaded,
    Progress,
    Sampling,
    Step,
    TextPrompt,
    Warm,
    Warmed,
    WarmPrefix,
)
from stoker.worker.errors import WorkerError
from stoker.worker.mlx_engine.core import MlxCore
from stoker.worker.mlx_engine.scheduling import Scheduler

CHUNKED = {"chunk_seconds": 1e-9}
"""Limits under which a turn computes the smallest chunk of one prompt."""
LONG = "a long prompt that takes many chunks; " * 12

MOST_TURNS = 5000
"""Turns after which an answer that has not come never will."""


@dataclass
class Answer:
    """What came for one generation; what the result held back is among the deltas."""

    deltas: list[Delta] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    result: Any = None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for delta in self.deltas for token in delta.tokens)

    @property
    def text(self) -> str:
        held = self.result.text if isinstance(self.result, Finished) else ""
        return "".join(delta.text for delta in self.deltas) + held

    @property
    def finished(self) -> Finished:
        assert isinstance(self.result, Finished), self.result
        return self.result

    @property
    def error(self) -> ErrorResponse:
        assert isinstance(self.result, ErrorResponse), self.result
        return self.result


class DrivenCore:
    """A core, what it emitted, and shorthands.

    Args:
        model: Directory of a model.
        limits: Fields of `Load`.
    """

    def __init__(self, model: Path | str, **limits: Any) -> None:
        self.frames: list[Frame] = []
        self.core = MlxCore(self.frames.append)
        self._ids = itertools.count(1)
        load = Load(model=str(model), cache_dir="/nonexistent", **limits)
        self.loading = self.finish(self.submit(load))

    @property
    def loaded(self) -> Loaded:
        assert isinstance(self.loading.result, Loaded), self.loading.result
        return self.loading.result

    @property
    def scheduler(self) -> Scheduler:
        assert self.core._scheduler is not None
        return self.core._scheduler

    @property
    def steps(self) -> list[Step]:
        """Those told until now."""
        return [
            frame.body for frame in self.frames if isinstance(frame, Notification) and isinstance(frame.body, Step)
        ]

    def submit(self, body: Job) -> int:
        request_id = next(self._ids)
        try:
            self.core.handle(request_id, body, time.perf_counter())
        except WorkerError as error:
            self.frames.append(error.response(request_id))
        return request_id

    def answer(self, request_id: int) -> Answer:
        """What has come for a request until now."""
        answer = Answer()
        for frame in self.frames:
            match frame:
                case Notification(body=Step(deltas=deltas)):
                    answer.deltas += [delta for delta in deltas if delta.target == request_id]
                case Notification(body=Progress(target=target) as progress) if target == request_id:
                    answer.progress.append(progress)
                case Response(id=target, result=result) if target == request_id:
                    answer.result = result
                    answer.deltas += getattr(result, "held", ())
                case ErrorResponse(id=target) if target == request_id:
                    answer.result = frame
                case _:
                    pass
        return answer

    def turn_until(self, done: Callable[[], bool]) -> None:
        for _ in range(MOST_TURNS):
            if done():
                return
            self.core.turn()
        raise AssertionError(f"not done after {MOST_TURNS} turns")

    def finish(self, request_id: int) -> Answer:
        self.turn_until(lambda: self.answer(request_id).result is not None)
        return self.answer(request_id)

    def generate(self, body: Generate) -> Answer:
        return self.finish(self.submit(body))

    def warm(self, *prefixes: WarmPrefix, learned: bool = False) -> Warmed:
        result = self.finish(self.submit(Warm(prefixes=prefixes, learned=learned))).result
        assert isinstance(result, Warmed)
        return result


def ask(text: str, most: int = 12, **how: Any) -> Generate:
    """A plain text prompt."""
    return Generate(prompt=TextPrompt(text=text), max_tokens=most, **how)


def chat(system: str, user: str, most: int = 12, **how: Any) -> Generate:
    """A chat of one turn."""
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return Generate(prompt=ChatPrompt(messages=messages), max_tokens=most, **how)


def seeded(seed: int, temperature: float = 1.0, top_p: float = 0.95) -> Sampling:
    return Sampling(temperature=temperature, top_p=top_p, seed=seed)


def joined_text(answers: Sequence[Answer]) -> str:
    return "".join(answer.text for answer in answers)
