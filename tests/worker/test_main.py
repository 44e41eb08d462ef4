"""The worker as a process, on a real socket, with a tiny model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.framing import Dialect, ErrorResponse, Frame, FrameDecoder, Malformed, Request, Response, encode
from stoker.ipc.messages import (
    Figures,
    Finished,
    Generate,
    Hello,
    Load,
    Loaded,
    Progress,
    Statistics,
    Step,
    TextPrompt,
    Welcome,
    WorkerResult,
)

SECONDS = 30.0
COMMAND = [sys.executable, "-m", "stoker.worker"]


class Daemon:
    """The daemon's end: one blocking connection, a deadline on every wait."""

    def __init__(self, folder: Path, command: list[str] | None = None, environ: dict[str, str] | None = None) -> None:
        self.path = folder / "worker.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.listener.settimeout(SECONDS)
        self.process = subprocess.Popen(
            [*(command or COMMAND), "--socket", str(self.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
        self.connection = self.listener.accept()[0]
        self.connection.settimeout(SECONDS)
        self.frames = self._frames()

    def _frames(self) -> Iterator[Frame | Malformed]:
        dialect = Dialect(requests=(Hello,), notifications=(Progress, Step), results=WorkerResult)
        decoder = FrameDecoder(dialect)
        while data := self.connection.recv(65536):
            yield from decoder.feed(data)

    def send(self, frame: Frame) -> None:
        self.connection.sendall(encode(frame))

    def greet(self) -> Hello:
        hello = next(self.frames)
        assert isinstance(hello, Request)
        assert isinstance(hello.body, Hello)
        return hello.body

    def welcome(self) -> None:
        self.greet()
        self.send(Response(0, Welcome(protocol=1, generation=1)))

    def ask(self, body: Any, request_id: int = 1) -> Any:
        """The answer: a result, or an error."""
        self.send(Request(request_id, body))
        return next(self._answers(request_id))

    def _answers(self, request_id: int) -> Iterator[Any]:
        for frame in self.frames:
            if isinstance(frame, Response) and frame.id == request_id:
                yield frame.result
            elif isinstance(frame, ErrorResponse) and frame.id == request_id:
                yield frame

    def load(self, model: Path) -> Loaded:
        result = self.ask(Load(model=str(model), cache_dir="/nonexistent"), 100)
        assert isinstance(result, Loaded)
        return result

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def gone(self) -> int:
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.connection.close()
        self.listener.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []

    def spawn(*arguments: Any, **more: Any) -> Daemon:
        daemons.append(Daemon(tmp_path, *arguments, **more))
        return daemons[-1]

    yield spawn
    for daemon in daemons:
        daemon.close()


def test_hello_comes_before_the_engine_is_imported(start: Callable[..., Daemon]) -> None:
    """When hello is said, neither mlx nor transformers nor numpy is in the process."""
    probe = """
        import sys
        from stoker.worker import __main__, session
        introduce = session.introduce
        async def watched(channel):
            welcome = await introduce(channel)
            found = [name for name in ("mlx", "mlx_lm", "transformers", "numpy") if name in sys.modules]
            print("imported:", found, file=sys.stderr)
            return welcome
        __main__.introduce = watched
        __main__.main()
    """
    daemon = start([sys.executable, "-c", textwrap.dedent(probe)])
    daemon.welcome()
    daemon.hang_up()
    daemon.gone()
    assert daemon.process.stderr is not None

    assert b"imported: []" in daemon.process.stderr.read()


def test_worker_loads_generates_and_leaves_with_its_daemon(start: Callable[..., Daemon], tiny_llama: Path) -> None:
    """Over a real socket the worker loads, generates, gives figures, and exits with 0 when the connection ends."""
    daemon = start()
    daemon.welcome()
    loaded = daemon.load(tiny_llama)
    finished = daemon.ask(Generate(prompt=TextPrompt(text="hello"), max_tokens=5), 2)
    figures = daemon.ask(Statistics(), 3)
    daemon.hang_up()

    assert loaded.model == tiny_llama.name
    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == 5
    assert isinstance(figures, Figures)
    assert figures.memory_bytes > 10_000_000
    assert daemon.gone() == 0


def test_request_before_load_is_refused(start: Callable[..., Daemon]) -> None:
    """A generation without a model is answered by NOT_LOADED, and the process lives."""
    daemon = start()
    daemon.welcome()
    refusal = daemon.ask(Generate(prompt=TextPrompt(text="hello")))

    assert refusal.code == ErrorCode.NOT_LOADED
    assert isinstance(daemon.ask(Statistics(), 2), Figures)


def test_worker_leaves_in_the_middle_of_a_prefill(start: Callable[..., Daemon], tiny_hybrid: Path) -> None:
    """A connection that ends while the engine computes ends the process at once."""
    daemon = start()
    daemon.welcome()
    daemon.load(tiny_hybrid)
    daemon.send(Request(2, Generate(prompt=TextPrompt(text="go on " * 1200), max_tokens=500)))
    next(daemon.frames)
    daemon.hang_up()

    assert daemon.gone() == 0


def test_term_ends_the_worker_at_once(start: Callable[..., Daemon], tiny_llama: Path) -> None:
    """SIGTERM while the engine computes is an exit with 0."""
    daemon = start()
    daemon.welcome()
    daemon.load(tiny_llama)
    daemon.send(Request(2, Generate(prompt=TextPrompt(text="hello"), max_tokens=8000)))
    next(daemon.frames)
    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.gone() == 0


def test_unsupported_protocol_is_a_configuration_error(start: Callable[..., Daemon]) -> None:
    """A worker whose protocol the daemon doesn't speak exits with 78, and says why."""
    daemon = start()
    daemon.greet()
    daemon.send(ErrorResponse(0, ErrorCode.UNSUPPORTED_PROTOCOL, "this daemon speaks version 9"))

    assert daemon.gone() == 78
    assert daemon.process.stderr is not None
    assert b"speaks version 9" in daemon.process.stderr.read()


def test_what_libraries_print_goes_to_the_log(start: Callable[..., Daemon]) -> None:
    """Whatever is printed, by Python or below it, comes out of stderr, and nothing of stdout."""
    probe = """
        import os
        from stoker.worker import __main__
        serve = __main__._serve
        def talking(path):
            print("from python", flush=True)
            os.write(1, b"from below\\n")
            return serve(path)
        __main__._serve = talking
        __main__.main()
    """
    daemon = start([sys.executable, "-c", textwrap.dedent(probe)])
    daemon.greet()
    daemon.hang_up()
    out, err = daemon.process.communicate(timeout=SECONDS)

    assert out == b""
    assert b"from python" in err
    assert b"from below" in err


def test_missing_socket_is_a_configuration_error() -> None:
    """Started without a socket, the worker says what is missing and exits with 78."""
    ended = subprocess.run(COMMAND, capture_output=True, timeout=SECONDS, check=False)

    assert ended.returncode == 78
    assert b"STOKER_WORKER_SOCKET" in ended.stderr


def test_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    """Started with a socket that isn't there, the worker exits with an internal error."""
    ended = subprocess.run(
        [*COMMAND, "--socket", str(tmp_path / "none.sock")], capture_output=True, timeout=SECONDS, check=False
    )

    assert ended.returncode == 70


def parent(path: Path, *, keeps: bool) -> subprocess.Popen[bytes]:
    """A process that starts a worker on the socket and prints its pid; it may hold the listening end itself."""
    code = f"""
        import socket, subprocess, sys, time
        keeps = {keeps}
        if keeps:
            listener = socket.socket(socket.AF_UNIX); listener.bind({str(path)!r}); listener.listen()
        worker = subprocess.Popen({[*COMMAND, "--socket", str(path)]!r}, start_new_session=True)
        if keeps:
            connection = listener.accept()[0]; connection.recv(9)
        print(worker.pid, flush=True)
        time.sleep(60)
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)


def ends_within(pid: int, seconds: float) -> bool:
    """Whether a process that is not a child is gone, or a zombie, in time."""
    gone = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        gone.wait(0.01)
    return False


def test_worker_dies_with_a_killed_daemon(tmp_path: Path) -> None:
    """SIGKILL of the process that started the worker ends the worker within a second."""
    daemon = parent(tmp_path / "worker.sock", keeps=True)
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    daemon.kill()
    daemon.communicate(timeout=SECONDS)

    assert ends_within(pid, 1.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_worker_dies_with_its_parent_although_the_connection_stays(tmp_path: Path) -> None:
    """On Linux the worker of a killed parent dies even if another process still holds the connection."""
    path = tmp_path / "worker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(SECONDS)
        daemon = parent(path, keeps=False)
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        with listener.accept()[0] as connection:
            connection.settimeout(SECONDS)
            connection.recv(9)  # hello: by now the kernel has been told
            daemon.kill()
            daemon.communicate(timeout=SECONDS)

            assert ends_within(pid, 1.0)
