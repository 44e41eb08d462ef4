"""The worker process: `python -m stoker.worker --socket PATH`.

It says hello before it imports an engine, so that the daemon learns in a tenth of a second that the process lives.
It ends with its daemon: when the connection does; on Linux also by the kernel's hand when the parent dies; and at
once on SIGTERM, for a daemon that wants more than that drains it first.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import anyio

from ..ipc.channel import Channel, ChannelClosed
from ..ipc.unix_stream import connect_unix
from .engine import Core, Emit
from .engine_thread import EngineThread
from .session import DIALECT, Session, Unwelcome, introduce

log = logging.getLogger("stoker.worker")

CONNECT_SECONDS = 10.0
"""The daemon listens before it spawns: a connection takes microseconds, or fails."""
CLOSE_SECONDS = 0.5
"""For what should outlive the process; well within the second that the daemon's death leaves it."""
PR_SET_PDEATHSIG = 1
"""From Linux's sys/prctl.h."""


def main() -> NoReturn:
    """Run until told to leave; never returns.

    Always exits by `os._exit`: an interpreter that ends while another thread evaluates waits for it, and aborts.
    """
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    _die_with_parent(parent)
    _stdout_to_stderr()
    logging.basicConfig(level=_log_level(), format="%(levelname)s %(name)s: %(message)s")
    path = _socket_path()
    try:
        anyio.run(_serve, path)
    except Unwelcome as error:
        log.error("%s", error)  # noqa: TRY400 - the daemon's words say it all
        _exit(os.EX_CONFIG)
    except Exception:
        log.exception("the worker failed")
    _exit(os.EX_SOFTWARE)


async def _serve(path: str) -> NoReturn:
    with anyio.fail_after(CONNECT_SECONDS):
        stream = await connect_unix(path)
    channel = Channel(stream, DIALECT)
    try:
        await introduce(channel)
    except ChannelClosed:
        _exit(0)
    await Session(channel, lambda emit: EngineThread(_core, emit, _exit)).serve()
    # No unwinding beyond this point: the daemon is gone, and whatever still computes computes for nobody.
    _exit(0)


_cores: list[Core] = []
"""The one core, once it is made: to be closed on the way out."""


def _core(emit: Emit) -> Core:
    """Called on the engine's thread; importing takes about a second, nearly all of it transformers."""
    from .mlx_engine.core import MlxCore  # noqa: PLC0415 - after hello

    core = MlxCore(emit)
    _cores.append(core)
    return core


def _socket_path() -> str:
    parser = argparse.ArgumentParser(prog="stoker.worker", description="Started by the Stoker daemon.")
    parser.add_argument("--socket", default=os.environ.get("STOKER_WORKER_SOCKET"), help="the daemon's worker socket")
    path = parser.parse_args().socket
    if not path:
        log.error("no socket: give --socket PATH or set STOKER_WORKER_SOCKET")
        _exit(os.EX_CONFIG)
    return str(path)


def _log_level() -> int:
    """The daemon's choice; a name that logging doesn't know is no reason to die."""
    return logging.getLevelNamesMapping().get(os.environ.get("STOKER_LOG_LEVEL", "").upper(), logging.INFO)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    _exit(0)


def _exit(code: int) -> NoReturn:
    if code == 0:  # else what was going on is to blame, and the journal is to say so
        for core in _cores:
            core.close(CLOSE_SECONDS)
    logging.shutdown()
    os._exit(code)


def _die_with_parent(parent: int) -> None:
    """On Linux the kernel kills this process when the thread that spawned it ends, however that ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew
        _exit(0)


def _stdout_to_stderr() -> None:
    """Libraries print; what they print belongs into the log, whichever descriptor they take."""
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), 1)
    sys.stdout = sys.stderr


if __name__ == "__main__":
    main()
