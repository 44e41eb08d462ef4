"""A worker process that speaks the real protocol and misbehaves as told: no model, no mlx, up in 0.1 s.

    python tests/fakes/fake_worker.py --socket PATH [--scenario JSON_OR_FILE]

The scenario (without the option: env `FAKE_WORKER`) is JSON text, or the path of a file that holds it: see
`fake_scenario`. A file is read anew by each process, so a test can change it between generations. The generation
is `STOKER_GENERATION` until `Welcome` says it.

Answers depend on prompt and sampling alone, so a resumed generation goes on exactly: `answer` says what comes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import msgspec

from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.framing import (
    Dialect,
    ErrorResponse,
    Frame,
    FrameDecoder,
    Malformed,
    Notification,
    ProtocolError,
    Request,
    Response,
)
from stoker.ipc.messages import (
    Body,
    CacheFigures,
    Cancel,
    ChatPrompt,
    CountTokens,
    Delta,
    Figures,
    Finished,
    Forget,
    Generate,
    Hello,
    Id,
    Load,
    Loaded,
    Measure,
    Pin,
    Prefixes,
    PrefixReport,
    Progress,
    Prompt,
    Speed,
    Stage,
    Statistics,
    Step,
    TextPrompt,
    TokenCount,
    Usage,
    Warm,
    Warmed,
    Welcome,
)

# Run as a script, Python knows this folder but not the root that tests import from.
sys.path[0] = str(Path(__file__).parents[2])

from tests.fakes.fake_batch import Batch, Sequence  # noqa: E402 - after the line above
from tests.fakes.fake_faults import Link, commit, log  # noqa: E402
from tests.fakes.fake_known import Known  # noqa: E402
from tests.fakes.fake_scenario import (  # noqa: E402
    DEFAULT_TOKENS,
    Fault,
    Point,
    Refusal,
    WorkPlan,
    answer,
    read_scenario,
    text_of,
)


@dataclass(frozen=True)
class Job:
    """A request being worked on."""

    id: Id = 0
    body: Body = field(default_factory=Statistics)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def pause(self, seconds: float) -> bool:
        """Take so long, or less if cancelled; say whether it was."""
        return self.cancelled.wait(seconds) if seconds > 0 else self.cancelled.is_set()


class FakeWorker:
    """One process's worth of worker: the main thread reads, a thread for each request answers."""

    def __init__(self, link: Link, plan: str) -> None:
        self._link = link
        self._plan = plan
        self._jobs: dict[Id, Job] = {}
        self._warm: dict[str, int] = {}
        self._become(int(os.environ.get("STOKER_GENERATION", "0")))

    def _become(self, generation: int) -> None:
        self._scenario = read_scenario(self._plan, generation)
        self._known = Known(self._scenario.known.learned)
        plan = self._scenario.generate.batch
        self._batch = Batch(self._link.emit, plan.steps_per_second, plan.wait_for) if plan else None
        self._link.stays = self._scenario.ignore_eof
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self._scenario.ignore_term else _leave)

    def run(self) -> NoReturn:
        """Serve until the daemon leaves."""
        self._reach("start", Job())
        Job().pause(self._scenario.hello.delay)
        hello = Hello(protocol=self._scenario.hello.protocol, pid=os.getpid(), stoker="fake", python="fake")
        self._link.emit(Request(0, hello))
        self._reach("hello", Job())
        requests = (Load, Warm, Generate, CountTokens, Statistics, Prefixes, Pin, Forget, Measure)
        decoder = FrameDecoder(Dialect(requests=requests, notifications=(Cancel,), results=Welcome))
        while True:
            for frame in decoder.feed(self._link.receive()):
                self._handle(frame)

    def _handle(self, frame: Frame | Malformed) -> None:
        match frame:
            case Response(result=Welcome(generation=generation)):
                self._become(generation)
                log(f"fake worker of generation {generation}, pid {os.getpid()}")
                self._reach("welcome", Job())
            case Request(id=request_id, body=body):
                job = self._jobs[request_id] = Job(request_id, body)
                threading.Thread(target=self._serve, args=(job,), daemon=True).start()
            case Notification(body=Cancel(target=target)):
                self._cancel(target)
            case ErrorResponse(message=message):
                log(f"fatal: refused by the daemon: {message}")
                os._exit(78)
            case _:
                log(f"fatal: the daemon sent {frame}")
                os._exit(70)

    def _cancel(self, target: Id) -> None:
        job = self._jobs.get(target)
        plans = {Warm: self._scenario.warm.ignore_cancel, Generate: self._scenario.generate.ignore_cancel}
        if job is not None and not plans.get(type(job.body), True):
            job.cancelled.set()

    # -- work ----------------------------------------------------------------------------------------------

    def _serve(self, job: Job) -> None:
        match job.body:
            case Load() as body:
                self._load(job, body)
            case Warm() as body:
                self._warm_up(job, body)
            case Generate() as body:
                self._generate(job, body)
            case CountTokens(prompt=prompt):
                self._link.emit(Response(job.id, TokenCount(tokens=self._prompt_size(prompt)[0])))
            case Prefixes() | Pin() | Forget() as body:
                self._about_known(job, body)
            case Measure():
                self._measure(job)
            case _:
                self._link.emit(Response(job.id, self._figures()))
        self._jobs.pop(job.id, None)

    def _steps(self, job: Job, at: Point, plan: WorkPlan) -> Iterator[int]:
        """Do the work of a plan; yields the number of steps done, up to where it was cancelled."""
        count = max(plan.steps, 1)
        for index in range(count):
            self._reach(at, job, index)
            if job.pause(plan.seconds / count):
                return
            if plan.steps:
                yield index + 1

    def _progress(self, job: Job, stage: Stage, done: int, total: int, **more: Any) -> None:
        self._link.emit(Notification(Progress(target=job.id, stage=stage, done=done, total=total, **more)))

    def _refuse(self, job: Job, error: Refusal) -> None:
        data = ErrorData(retryable=error.retryable, remedy=error.remedy)
        self._link.emit(ErrorResponse(job.id, error.code, error.message, data))

    def _load(self, job: Job, body: Load) -> None:
        plan = self._scenario.load
        for done in self._steps(job, "load", plan):
            self._progress(job, "load", done, plan.steps)
        if plan.error:
            return self._refuse(job, plan.error)
        figures = {
            "kind": "loaded",
            "model": body.model.rpartition("/")[2],
            "context_tokens": body.context_tokens or 8192,
            "vocabulary": 256,
            "kv_bytes_per_token": 1024,
            "memory_bytes": self._scenario.memory_bytes,
            "seconds": plan.seconds,
            "prefix_reuse": "trimmable",
        }
        self._link.emit(Response(job.id, msgspec.convert(figures | plan.loaded, Loaded)))
        return self._reach("loaded", job)

    def _warm_up(self, job: Job, body: Warm) -> None:
        plan = self._scenario.warm
        reports = []
        for prefix in body.prefixes:
            total = _size(prefix.system or "fallback")
            done = 0 if plan.steps else total
            for step in self._steps(job, "warm", plan):
                done = total * step // plan.steps
                self._progress(job, "warm", done, total, name=prefix.name)
            done = 0 if job.cancelled.is_set() and not plan.steps else done
            self._warm[prefix.system or "fallback"] = done
            figures = {"tokens": total, "tokens_warm": done, "source": "prefilled", "seconds": plan.seconds}
            reports.append(msgspec.convert({"name": prefix.name, **figures}, PrefixReport))
        self._known.warmed(reports)
        if plan.error:
            return self._refuse(job, plan.error)
        if cancelled := job.cancelled.is_set():
            threading.Event().wait(plan.late)
        outcome = "abandoned" if cancelled else plan.outcome
        reason = "cancelled" if cancelled else plan.reason
        seconds = plan.seconds * len(reports)
        warmed = Warmed(outcome=outcome, prefixes=tuple(reports), seconds=seconds, reason=reason)
        self._link.emit(Response(job.id, warmed))
        return self._reach("warmed", job)

    def _generate(self, job: Job, body: Generate) -> None:
        plan = self._scenario.generate
        if plan.error:
            return self._refuse(job, plan.error)
        total, cached = self._prompt_size(body.prompt)
        self._progress(job, "prefill", cached, total, cached=cached)
        for step in self._steps(job, "prefill", plan.prefill):
            done = cached + (total - cached) * step // plan.prefill.steps
            self._progress(job, "prefill", done, total, cached=cached)
        wanted = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        count = wanted if plan.tokens is None else min(wanted, plan.tokens)
        sent = self._decode(job, body, count)
        full: Literal["stop", "length"] = "length" if count == body.max_tokens else "stop"
        usage = Usage(prompt_tokens=total, completion_tokens=sent, cached_tokens=cached)
        self._link.emit(Response(job.id, Finished(reason="cancelled" if sent < count else full, usage=usage)))
        return self._reach("finished", job)

    def _decode(self, job: Job, body: Generate, count: int) -> int:
        """Send the tokens that were not emitted before; the number that the answer has now."""
        if self._batch is not None:
            emitted = len(body.emitted)
            tokens = iter(answer(body, count)[emitted:])
            return emitted + self._batch.run(Sequence(job.id, tokens, job.cancelled))
        rate = self._scenario.generate.tokens_per_second
        for index, token in enumerate(answer(body, count)):
            if index < len(body.emitted):
                continue
            self._reach("generate", job, index)
            if job.pause(1 / rate if rate else 0):
                return index
            delta = Delta(target=job.id, tokens=(token,), text=text_of((token,)))
            self._link.emit(Notification(Step(deltas=(delta,))))
        return max(count, len(body.emitted))

    def _prompt_size(self, prompt: Prompt) -> tuple[int, int]:
        """Tokens of a prompt, and how many of them are warm: a word is a token."""
        match prompt:
            case ChatPrompt(messages=messages):
                texts = [str(message.get("content")) for message in messages]
                total = sum(map(_size, texts))
                return total, min(max((self._warm.get(text, 0) for text in texts), default=0), total - 1)
            case TextPrompt(text=text):
                return _size(text), 0
        return len(prompt.tokens), 0

    def _about_known(self, job: Job, body: Prefixes | Pin | Forget) -> None:
        if error := self._scenario.known.error:
            return self._refuse(job, error)
        return self._link.emit(Response(job.id, self._known.answer(body)))

    def _measure(self, job: Job) -> None:
        if any(isinstance(one.body, Generate | Warm) for one in list(self._jobs.values())):
            return self._refuse(job, Refusal(code=ErrorCode.BUSY, message="something is computed"))
        plan = self._scenario.speed
        speed = Speed(device="cpu", bandwidth=plan.bandwidth, flops=plan.flops, seconds=0.1)
        return self._link.emit(Response(job.id, speed))

    def _figures(self) -> Figures:
        cache = CacheFigures(
            entries=len(self._warm), pinned=len(self._warm), bytes=1024 * sum(self._warm.values()),
            limit_bytes=2 << 30, hits=0, misses=0, evictions=0,
        )  # fmt: skip
        running = sum(isinstance(job.body, Generate) for job in list(self._jobs.values()))
        return Figures(memory_bytes=self._scenario.memory_bytes, cache=cache, running=running)

    # -- faults --------------------------------------------------------------------------------------------

    def _reach(self, at: Point, job: Job, step: int = 0) -> None:
        for fault in self._scenario.faults:
            if (fault.at, fault.step) != (at, step) or not _concerns(fault, job):
                continue
            if fault.delay:
                timer = threading.Timer(fault.delay, commit, (self._link, fault, job.id))
                timer.daemon = True
                timer.start()
            else:
                commit(self._link, fault, job.id)


def _concerns(fault: Fault, job: Job) -> bool:
    return fault.containing.encode() in msgspec.json.encode(job.body)


def _size(text: str) -> int:
    return max(len(text.split()), 1)


def _die(trouble: threading.ExceptHookArgs) -> None:
    """A mistake of ours must not look like a hang on purpose."""
    threading.__excepthook__(trouble)
    os._exit(70)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(0)


def main() -> NoReturn:
    """Connect to the daemon and serve it."""
    threading.excepthook = _die
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    try:
        FakeWorker(Link(options["--socket"]), options.get("--scenario", os.environ.get("FAKE_WORKER", ""))).run()
    except ProtocolError as error:
        log(f"fatal: the daemon broke the protocol: {error}")
        os._exit(70)


if __name__ == "__main__":
    main()
