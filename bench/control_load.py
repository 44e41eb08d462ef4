"""Many clients of the control socket, on raw sockets: the daemon and the kernel are timed, not a client library."""

from __future__ import annotations

import json
import resource
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from stoker.bench.children import BenchmarkError

READY = b'{"jsonrpc":"2.0","id":1,"method":"ready"}\n'
WATCH = b'{"jsonrpc":"2.0","id":1,"method":"watch"}\n'

ANSWER_DEADLINE = 10.0
"""Seconds for one answer."""
TOLD_DEADLINE = 60.0
"""Seconds for all watchers to hear of a ready."""
SPARE_DESCRIPTORS = 200


class Line:
    """One connection, read line by line.

    Args:
        path: The control socket.
    """

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(ANSWER_DEADLINE)
        self.socket.connect(str(path))
        self._rest = bytearray()

    def ask(self, question: bytes) -> Any:
        """Send a line; the result in the next line that comes."""
        self.socket.sendall(question)
        while not (lines := self.lines()):
            continue
        return json.loads(lines[0])["result"]

    def lines(self) -> list[bytes]:
        """The lines completed by what is there now; waits for something.

        Raises:
            BenchmarkError: The daemon closed the connection.
        """
        data = self.socket.recv(65536)
        if not data:
            raise BenchmarkError("the daemon closed a connection")
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = bytearray(rest)
        return [bytes(line) for line in lines]

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def time_queries(path: Path, count: int) -> list[float]:
    """Seconds of `ready` and its answer, one after the other on one connection."""
    line = Line(path)
    try:
        return [_timed_query(line) for _ in range(count)]
    finally:
        line.close()


def time_connects(path: Path, count: int) -> list[float]:
    """Seconds to connect, ask `ready` and have the answer, each on a new connection."""
    return [_timed_connect(path) for _ in range(count)]


def _timed_query(line: Line) -> float:
    start = time.perf_counter()
    line.socket.sendall(READY)
    while not line.lines():
        continue
    return time.perf_counter() - start


def _timed_connect(path: Path) -> float:
    start = time.perf_counter()
    line = Line(path)
    try:
        line.socket.sendall(READY)
        while not line.lines():
            continue
        return time.perf_counter() - start
    finally:
        line.close()


@contextmanager
def watching(path: Path, count: int) -> Iterator[list[Line]]:
    """So many connections that watch, each after its first snapshot."""
    _allow_descriptors(count)
    with ExitStack() as closing:
        watchers = []
        for _ in range(count):
            line = Line(path)
            closing.callback(line.close)
            line.ask(WATCH)
            watchers.append(line)
        yield watchers


def _allow_descriptors(count: int) -> None:
    """For ourselves only: the daemon runs already, with what it gave itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_DESCRIPTORS
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def hear_ready(watchers: Sequence[Line], generation: int) -> tuple[list[float], list[list[tuple[int, str]]]]:
    """Read until each watcher has heard that this generation is ready.

    Returns:
        For each, when it heard that (`perf_counter`), and the phases that it heard of.

    Raises:
        BenchmarkError: One was not told in time.
    """
    heard: list[list[tuple[int, str]]] = [[] for _ in watchers]
    told: dict[int, float] = {}
    end = time.perf_counter() + TOLD_DEADLINE
    with selectors.DefaultSelector() as selector:
        for index, watcher in enumerate(watchers):
            selector.register(watcher.socket, selectors.EVENT_READ, index)
        while len(told) < len(watchers):
            if time.perf_counter() > end:
                raise BenchmarkError(f"{len(watchers) - len(told)} watchers were not told within {TOLD_DEADLINE:g} s")
            for key, _ in selector.select(1.0):
                now, index = time.perf_counter(), key.data
                heard[index] += [_phase(line) for line in watchers[index].lines()]
                if (generation, "ready") in heard[index]:
                    told.setdefault(index, now)
    return [told[index] for index in range(len(watchers))], [_distinct(phases) for phases in heard]


def _phase(line: bytes) -> tuple[int, str]:
    readiness = json.loads(line)["params"]["readiness"]
    return readiness["generation"], readiness["phase"]


def _distinct(phases: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Without repetitions: progress within a phase is told too."""
    return [phase for index, phase in enumerate(phases) if index == 0 or phase != phases[index - 1]]
