"""Real process groups: spawned, heard out, ended, reaped."""

from __future__ import annotations

import os
import signal
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
import psutil
import pytest

from stoker.daemon.process import LINE_LIMIT, LINES_KEPT, OUTPUT_GRACE, WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_children")]

DEADLINE = 30.0
"""Seconds after which a wait in these tests has failed; nothing here takes a tenth of it."""


@dataclass
class Heard:
    """What a process wrote, line by line."""

    lines: list[str] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)

    def sink(self, line: str) -> None:
        self.lines.append(line)
        self.news.set()
        self.news = anyio.Event()

    async def until(self, word: str) -> str:
        """Wait for a line that begins with a word; return what follows."""
        with anyio.fail_after(DEADLINE):
            while not any(line.startswith(word) for line in self.lines):
                await self.news.wait()
        return next(line for line in self.lines if line.startswith(word)).removeprefix(word).strip()


async def spawn(*command: str, heard: Heard | None = None, environ: dict[str, str] | None = None) -> WorkerProcess:
    base = {"PATH": os.environ["PATH"]} if environ is None else environ
    return await WorkerProcess.spawn(command, base, (heard or Heard()).sink)


async def ended(process: WorkerProcess) -> str:
    with anyio.fail_after(DEADLINE):
        return await process.wait()


@asynccontextmanager
async def running(script: str) -> AsyncIterator[tuple[WorkerProcess, Heard, list[str]]]:
    """A shell script that runs beside the test; the list holds the cause of its end after the block."""
    heard, causes = Heard(), list[str]()
    process = await spawn("/bin/sh", "-c", script, heard=heard)

    async def wait() -> None:
        causes.append(await ended(process))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        yield process, heard, causes


def python(code: str) -> tuple[str, ...]:
    """A Python that starts fast."""
    return (sys.executable, "-I", "-S", "-c", code)


# -- how it ended ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 78])
async def test_exit_code(code: int) -> None:
    """An exit is told by its code."""
    process = await spawn("/bin/sh", "-c", f"exit {code}")

    assert await ended(process) == f"exited with code {code}"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("SEGV", "crashed with SIGSEGV: a fault in native code, or out of memory"),
        ("ABRT", "crashed with SIGABRT: a fault in native code, or out of memory"),
        ("KILL", "killed by SIGKILL, not by Stoker: somebody did it"),
        ("TERM", "killed by SIGTERM, not by Stoker"),
        ("USR1", "killed by SIGUSR1, not by Stoker"),
    ],
)
async def test_signal_from_elsewhere(name: str, cause: str) -> None:
    """A death by a signal that we did not send is told by its name, and says so."""
    process = await spawn("/bin/sh", "-c", f"ulimit -c 0; kill -{name} $$")

    assert (await ended(process)).startswith(cause)


async def test_end_by_term_as_asked() -> None:
    """A worker that hears TERM ends as asked."""
    async with running("exec sleep 60") as (process, _, causes):
        process.terminate()

    assert causes == ["ended by SIGTERM, as asked"]


async def test_end_by_kill_as_asked() -> None:
    """A worker that ignores TERM is ended by KILL, as asked."""
    async with running("trap '' TERM; echo deaf >&2; while :; do sleep 60; done") as (process, heard, causes):
        await heard.until("deaf")
        process.terminate()
        process.kill()

    assert causes == ["ended by SIGKILL, as asked"]


async def test_orderly_exit_after_term() -> None:
    """A worker that ends itself when it hears TERM is told by its exit code."""
    async with running("trap 'exit 0' TERM; echo up >&2; while :; do sleep 0.01; done") as (process, heard, causes):
        await heard.until("up")
        process.terminate()

    assert causes == ["exited with code 0"]


async def test_stopped_process_hears_term() -> None:
    """A worker that was stopped with STOP is woken to hear TERM."""
    async with running("kill -STOP $$; exec sleep 60") as (process, _, causes):
        with anyio.fail_after(DEADLINE):
            while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                await anyio.lowlevel.checkpoint()
        process.terminate()

    assert causes == ["ended by SIGTERM, as asked"]


async def test_missing_program() -> None:
    """A program that can't be started is an OSError at once."""
    with pytest.raises(FileNotFoundError):
        await spawn("/nowhere/worker")
    with pytest.raises(PermissionError):
        await spawn("/etc/passwd")


async def test_signals_after_the_end_harm_nobody() -> None:
    """Ending a process that has ended already is no error."""
    process = await spawn("/bin/sh", "-c", "exit 3")
    assert await ended(process) == "exited with code 3"

    process.terminate()
    process.kill()


# -- its surroundings --------------------------------------------------------------------------------------


async def test_environment_is_exactly_what_was_given() -> None:
    """The worker sees the given environment and nothing of the daemon's."""
    heard = Heard()
    process = await spawn(
        *python("import os,sys; print(*sorted(os.environ), file=sys.stderr)"), heard=heard, environ={"A": "1"}
    )
    await ended(process)

    assert set(heard.lines[0].split()) <= {"A", "LC_CTYPE"}


async def test_own_session_and_no_input() -> None:
    """The worker leads its own session and group, and reads and writes nothing of the daemon's."""
    heard = Heard()
    code = """
import os, sys
print(os.getsid(0) == os.getpgid(0) == os.getpid(), file=sys.stderr)
null = os.stat("/dev/null").st_rdev
print(repr(sys.stdin.read()), *(os.fstat(fd).st_rdev == null for fd in (0, 1)), file=sys.stderr)
"""
    with typed_by_somebody("secret"):
        process = await spawn(*python(code), heard=heard)
    await ended(process)

    assert heard.lines == ["True", "'' True True"]


@contextmanager
def typed_by_somebody(text: str) -> Iterator[None]:
    """The daemon's own standard input has something to read."""
    ours, theirs = os.pipe()
    before = os.dup(0)
    try:
        os.write(theirs, text.encode())
        os.dup2(ours, 0)
        yield
    finally:
        os.dup2(before, 0)
        for descriptor in (ours, theirs, before):
            os.close(descriptor)


# -- its output --------------------------------------------------------------------------------------------


async def test_lines_are_handed_on() -> None:
    """Each line of output is handed on without its newline, the last one also without having one."""
    heard = Heard()
    process = await spawn("/bin/sh", "-c", r"printf 'one\r\ntwo\n\nthr\303\244\377ee' >&2", heard=heard)
    await ended(process)

    assert heard.lines == ["one", "two", "", "thrä\N{REPLACEMENT CHARACTER}ee"]
    assert process.last_words == ("one", "two", "", "thrä\N{REPLACEMENT CHARACTER}ee")


async def test_last_words_are_the_last() -> None:
    """Of much output only the last lines are kept as last words."""
    process = await spawn(*python("import sys\nfor n in range(1000): print(n, file=sys.stderr)"))
    await ended(process)

    assert process.last_words == tuple(str(n) for n in range(1000 - LINES_KEPT, 1000))


async def test_flood_is_drained() -> None:
    """Twenty megabytes of output don't block the worker, every line arrives, and little of it is kept."""
    lines = 20 * 1024 * 8
    heard = Heard()
    code = f"import os\nblock = (b'y' * 127 + b'\\n') * 512\nfor _ in range({lines // 512}): os.write(2, block)"
    process = await spawn(*python(code), heard=heard)

    assert await ended(process) == "exited with code 0"
    assert len(heard.lines) == lines
    assert len(process.last_words) == LINES_KEPT


async def test_line_without_end_is_no_leak() -> None:
    """Of a line that never ends only its beginning is kept, and the lines after it are whole."""
    heard = Heard()
    code = "import os\nfor _ in range(320): os.write(2, b'y' * 65536)\nos.write(2, b'\\nafter\\n')"
    process = await spawn(*python(code), heard=heard)
    tracemalloc.start()
    try:
        assert await ended(process) == "exited with code 0"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert heard.lines == ["y" * LINE_LIMIT, "after"]
    assert peak < 2 << 20


async def test_last_words_before_a_crash_arrive() -> None:
    """What the worker wrote right before it died is heard."""
    process = await spawn("/bin/sh", "-c", "ulimit -c 0; echo 'METAL: out of memory' >&2; kill -ABRT $$")
    await ended(process)

    assert process.last_words == ("METAL: out of memory",)


# -- its family --------------------------------------------------------------------------------------------


async def gone(pid: int) -> None:
    """Wait until a process that is not our child is no more, or but a zombie of somebody's."""
    with anyio.fail_after(DEADLINE):
        while psutil.pid_exists(pid):
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return
            except psutil.NoSuchProcess:
                return
            await anyio.lowlevel.checkpoint()


async def test_grandchildren_end_with_the_leader() -> None:
    """When the leader has ended by itself, what is left of its group is ended, too."""
    heard = Heard()
    process = await spawn("/bin/sh", "-c", "sleep 60 & echo child $! >&2; exit 5", heard=heard)

    assert await ended(process) == "exited with code 5"
    await gone(int(await heard.until("child")))


async def test_grandchildren_end_with_kill() -> None:
    """KILL reaches the whole group."""
    async with running("sleep 60 & echo child $! >&2; wait") as (process, heard, _):
        child = int(await heard.until("child"))
        process.kill()

    await gone(child)


async def test_holder_of_the_output_delays_nothing() -> None:
    """A grandchild that escaped the group and holds the output delays the end by the grace, no more."""
    heard = Heard()
    code = """
import os, sys
child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setsid=True)
print("child", child, file=sys.stderr)
sys.stderr.write("last words")
"""
    process = await spawn(*python(code), heard=heard)
    began = time.monotonic()
    assert await ended(process) == "exited with code 0"
    took = time.monotonic() - began
    child = int(await heard.until("child"))
    os.kill(child, signal.SIGKILL)

    assert OUTPUT_GRACE * 0.9 <= took < OUTPUT_GRACE + 2
    assert process.last_words[-1] == "last words"


async def test_descriptors_are_given_back() -> None:
    """Many processes later the daemon has no more descriptors open than before."""
    await ended(await spawn("/bin/sh", "-c", "exit 0"))
    before = psutil.Process().num_fds()

    for _ in range(20):
        await ended(await spawn("/bin/sh", "-c", "exit 0"))

    assert psutil.Process().num_fds() == before


async def test_cancelled_wait_can_be_taken_up_again() -> None:
    """A wait that was cancelled leaves the process to the next wait, which reaps it and hears its last words."""
    heard = Heard()
    process = await spawn("/bin/sh", "-c", "echo ready >&2; sleep 60", heard=heard)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.wait)
        await heard.until("ready")
        tasks.cancel_scope.cancel()

    process.kill()
    assert await ended(process) == "ended by SIGKILL, as asked"
    assert process.last_words == ("ready",)
