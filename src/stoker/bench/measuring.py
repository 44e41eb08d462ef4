"""`stoker bench`, from a daemon that is started to figures: which trials, how many, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from subprocess import SubprocessError

import psutil

from ..ipc.control import ClientError
from . import subject
from .children import BenchmarkError
from .findings import Findings
from .pace import in_words, seconds_left
from .progress import Say
from .prompts import USERS, system_prompt, user_text
from .stopwatch import Answer, StreamClient, ask, chat
from .subject import Course, Subject
from .trials import Trial, after_cold

FAILURES = (BenchmarkError, ClientError, OSError, HTTPException, SubprocessError, psutil.Error)
"""What keeps something from being measured: processes that don't come up, die, or don't answer in time."""

NO_PAUSE = 0.01
"""Seconds before a killed worker is replaced, as after one that had been ready for long. Those here are young, which
would mean a second that has nothing to do with the machine."""

SETTINGS = subject.SETTINGS | {"STOKER_BACKOFF_BASE_SEC": str(NO_PAUSE), "STOKER_BACKOFF_CAP_SEC": str(NO_PAUSE)}
"""What differs from the defaults, beside the model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked.

    Attributes:
        sizes: Tokens of system prompt, about.
        repeats: Trials of each.
        others: Warm requests with other user texts in each trial.
        answer: Tokens of the answers whose speed is taken.
    """

    sizes: tuple[int, ...]
    repeats: int
    others: int = 3
    answer: int = 64


@dataclass(frozen=True, slots=True)
class Round:
    """A trial, and what is measured beside it.

    Attributes:
        size: Of its prompt.
        trial: The prompt's.
        story: A longer answer.
        restart: The worker replaced in an orderly way, with the same prompt learned.
    """

    size: int
    trial: Trial
    story: Answer
    restart: Course


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything, in the order in which it was measured; at least one round."""

    rounds: tuple[Round, ...]

    @property
    def findings(self) -> tuple[Findings, ...]:
        """The trials of each size."""
        sizes = dict.fromkeys(each.size for each in self.rounds)
        return tuple(Findings(size, [each.trial for each in self.rounds if each.size == size]) for size in sizes)


def measure(home: Path, settings: Mapping[str, str], plan: Plan, say: Say) -> Measured:
    """Start a daemon, measure, end it.

    Args:
        home: A private folder with a short path.
        settings: Environment variables of the daemon: its model above all.
        plan: How much.
        say: Told what is done now.

    Raises:
        BenchmarkError: It could not be measured, as any other of `FAILURES` says.
    """
    say("starting a daemon of its own, and loading the model")
    with subject.running(home, {**settings, **SETTINGS}) as daemon:
        daemon.wait_ready()
        url = daemon.status().http
        return Measured(tuple(_rounds(daemon, url, plan, say)))


def _rounds(daemon: Subject, url: str, plan: Plan, say: Say) -> Iterator[Round]:
    ahead = [size for size in plan.sizes for _ in range(plan.repeats)]
    colds: dict[int, float] = {}
    while ahead:
        size = ahead[0]
        number = plan.repeats - ahead.count(size) + 1
        which = f"{size:,} tokens, {number} of {plan.repeats}"
        system = system_prompt(size, f"{size} tokens, repeat {number}")
        say(f"cold: {which}")
        ask(url, None, USERS[0])  # the first request of a process pays for what only it pays for
        cold = ask(url, system, USERS[0])
        if size not in colds:
            colds[size] = cold.first
            left = in_words(seconds_left(colds, ahead))
            say(f"the first token of {size:,} tokens took {cold.first:.1f} s; {left} left")
        say(f"warm, then restored after kill -9: {which}")
        trial = after_cold(daemon, url, system, cold, others=plan.others)
        say(f"generation and restart: {which}")
        yield Round(size, trial, _story(url, f"{size} tokens, repeat {number}", plan.answer), daemon.restart())
        daemon.forget_learned()  # or the next workers would restore this prompt too, in their restarts' time
        ahead.pop(0)


def _story(url: str, name: str, tokens: int) -> Answer:
    client = StreamClient(url)
    try:
        return client.ask(chat(None, user_text(name), tokens))
    finally:
        client.close()
