"""What a fake worker does: a scenario is JSON, and every key has a default that behaves.

    {"load": {"seconds": 2, "steps": 20},
     "faults": [{"at": "generate", "step": 5, "do": "exit", "code": 3}]}

It may differ by generation: `{"1": {…}, "default": {…}}`.
"""

from __future__ import annotations

import signal
import sys
import zlib
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from stoker.ipc.messages import PROTOCOL_VERSION, Generate

COMMAND: Final = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
"""What to spawn in place of `python -m stoker.worker`."""

Point: TypeAlias = Literal[
    "start", "hello", "welcome", "load", "loaded", "warm", "warmed", "prefill", "generate", "finished"
]
"""Where a fault strikes: before the hello, after it, at a step of the work, after an answer."""

Action: TypeAlias = Literal[
    "exit",
    "signal",
    "hang",
    "stall",
    "deaf",
    "close",
    "garbage",
    "half_frame",
    "raw",
    "oversize",
    "flood",
    "stderr",
    "grandchild",
    "zombies",
    "allocate",
]


class _Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of a scenario; a misspelt key is an error."""


class Fault(_Plan, frozen=True):
    """One misbehaviour: do `do` at point `at`; several at one point happen in their order.

    * exit (`code`); signal (`signal`, to itself)
    * hang: the compute thread falls silent for good, while the socket is still read; stall: this request only
    * deaf: reads no more; close: shuts the socket down, and lives on
    * garbage; half_frame; raw: `text` as Latin-1, no newline added; oversize: a line over the limit
    * flood: `count` valid frames; stderr: `count` bytes, in lines unless `newline` is false
    * grandchild: it holds the socket and stderr for a minute, in its own session with `setsid`
    * zombies: `count` of them; allocate: `count` bytes, touched
    """

    at: Point
    do: Action
    step: int = 0
    """Before this step of load, warm or prefill; before this token of generate, emitted ones counted."""
    delay: float = 0.0
    """Seconds after the point, without holding up what comes there."""
    containing: str = ""
    """Only for a request whose body holds this text."""
    code: int = 1
    signal: int = signal.SIGKILL
    count: int = 10_000
    text: str = ""
    newline: bool = True
    setsid: bool = False


class Refusal(_Plan, frozen=True):
    """An error instead of an answer."""

    code: int
    message: str
    remedy: str | None = None
    retryable: bool = False


class HelloPlan(_Plan, frozen=True):
    """How the worker introduces itself; to keep silent, hang at `start`."""

    delay: float = 0.0
    protocol: int = PROTOCOL_VERSION


class WorkPlan(_Plan, frozen=True):
    """Work of `seconds` that reports `steps` times; with 0 steps it reports nothing until it is done."""

    seconds: float = 0.0
    steps: int = 2


class LoadPlan(WorkPlan, frozen=True):
    """How the model is loaded; `loaded` overrides fields of the answer."""

    error: Refusal | None = None
    loaded: dict[str, Any] = {}


class WarmPlan(WorkPlan, frozen=True):
    """How each prefix is warmed; after a cancel the answer comes `late` seconds later."""

    error: Refusal | None = None
    outcome: Literal["succeeded", "failed"] = "succeeded"
    reason: str | None = None
    ignore_cancel: bool = False
    late: float = 0.0


class BatchPlan(_Plan, frozen=True):
    """Answers advance together, one `Step` for all; the first one is sent once `wait_for` of them have come."""

    steps_per_second: float
    wait_for: int = 1


class GeneratePlan(_Plan, frozen=True):
    """How prompts are answered; `tokens` caps each answer (0: empty answers)."""

    prefill: WorkPlan = WorkPlan()
    tokens: int | None = None
    tokens_per_second: float | None = None
    batch: BatchPlan | None = None
    error: Refusal | None = None
    ignore_cancel: bool = False


class KnownPlan(_Plan, frozen=True):
    """Names of what was learned before this worker; asking for it, pinning and forgetting can be refused."""

    learned: tuple[str, ...] = ()
    error: Refusal | None = None


class SpeedPlan(_Plan, frozen=True):
    """What it measures, in bytes and operations per second."""

    bandwidth: float = 8e9
    flops: float = 60e9


class Scenario(_Plan, frozen=True):
    """Everything a fake worker does; the default one behaves."""

    hello: HelloPlan = HelloPlan()
    load: LoadPlan = LoadPlan()
    warm: WarmPlan = WarmPlan()
    generate: GeneratePlan = GeneratePlan()
    known: KnownPlan = KnownPlan()
    speed: SpeedPlan = SpeedPlan()
    faults: tuple[Fault, ...] = ()
    ignore_term: bool = False
    ignore_eof: bool = False
    memory_bytes: int = 100 << 20


DEFAULT_TOKENS: Final = 16
"""Length of an answer whose request sets no limit."""


def answer(body: Generate, count: int = DEFAULT_TOKENS) -> tuple[int, ...]:
    """The token ids with which every fake worker answers this prompt under this sampling."""
    key = msgspec.json.encode((body.prompt, body.sampling))
    return tuple(zlib.crc32(b"%d" % index, zlib.crc32(key)) % 256 for index in range(count))


def text_of(tokens: tuple[int, ...]) -> str:
    """The text of these tokens."""
    return "".join(f"w{token} " for token in tokens)


def read_scenario(given: str, generation: int) -> Scenario:
    """The scenario of a generation, out of JSON text or a file's path; empty text is the well-behaved one."""
    is_file = given and not given.lstrip().startswith("{")
    text = Path(given).read_text(encoding="utf-8") if is_file else given
    plan: dict[str, Any] = msgspec.json.decode(text or "{}")
    if "default" in plan or any(key.isdigit() for key in plan):
        plan = plan.get(str(generation), plan.get("default", {}))
    return msgspec.convert(plan, Scenario)
