"""The fake worker's socket, and everything that can go wrong with it and its process."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from typing import NoReturn

from stoker.ipc.framing import LIMIT, Frame, Notification, encode
from stoker.ipc.messages import Id, Progress
from tests.fakes.fake_scenario import Action, Fault


def log(line: str) -> None:
    """Say something on stderr, as a worker does."""
    os.write(2, line.encode() + b"\n")


class Link:
    """The socket to the daemon. Any thread may send; one receives."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.compute = threading.RLock()  # whoever hangs keeps it: nobody sends any more
        self.deaf = False
        self.stays = False  # after the daemon has left
        self.ballast: list[bytearray] = []

    def emit(self, frame: Frame) -> None:
        """Send a frame."""
        self.write(encode(frame))

    def write(self, data: bytes) -> None:
        """Send bytes whole."""
        with self.compute:
            try:
                self.socket.sendall(data)
            except OSError:
                self.leave()

    def receive(self) -> bytes:
        """The next bytes; the process ends with the connection, unless it stays."""
        while self.deaf:
            signal.pause()
        try:
            data = self.socket.recv(65536)
        except OSError:  # reset by the daemon: it left, as by an end of file
            data = b""
        return data or self.leave()

    def leave(self) -> NoReturn:
        """The daemon is gone, and so does a worker; unless told otherwise."""
        while self.stays:
            threading.Event().wait()
        os._exit(0)


def commit(link: Link, fault: Fault, target: Id) -> None:
    """Do what the fault says; `target` is the request that it strikes, or 0."""
    log(f"fault: {fault.do} at {fault.at} {fault.step}")
    _ACTIONS[fault.do](link, fault, target)


def _hang(link: Link, _fault: Fault, _target: Id) -> None:
    with link.compute:
        threading.Event().wait()


def _deafen(link: Link, _fault: Fault, _target: Id) -> None:
    link.deaf = True


def _close(link: Link, _fault: Fault, _target: Id) -> None:
    link.stays = True
    link.socket.shutdown(socket.SHUT_RDWR)


def _flood(link: Link, fault: Fault, target: Id) -> None:
    for index in range(fault.count):
        link.emit(Notification(Progress(target=target, stage="load", done=index, total=fault.count)))


def _oversize(link: Link, _fault: Fault, _target: Id) -> None:
    block = b"x" * 65536
    for _ in range(LIMIT // len(block) + 2):
        link.write(block)
    link.write(b"\n")


def _flood_stderr(_link: Link, fault: Fault, _target: Id) -> None:
    block = b"y" * 127 + (b"\n" if fault.newline else b"y")
    for _ in range(-(-fault.count // len(block))):
        os.write(2, block)


def _grandchild(link: Link, fault: Fault, _target: Id) -> None:
    link.socket.set_inheritable(True)
    log(f"grandchild {os.posix_spawn('/bin/sleep', ['sleep', '60'], os.environ, setsid=fault.setsid)}")


def _zombies(_link: Link, fault: Fault, _target: Id) -> None:
    for _ in range(fault.count):
        os.posix_spawn("/bin/sleep", ["sleep", "0"], os.environ)


_ACTIONS: Mapping[Action, Callable[[Link, Fault, Id], object]] = {
    "exit": lambda _link, fault, _target: os._exit(fault.code),
    "signal": lambda _link, fault, _target: os.kill(os.getpid(), fault.signal),
    "hang": _hang,
    "stall": lambda _link, _fault, _target: threading.Event().wait(),
    "deaf": _deafen,
    "close": _close,
    "garbage": lambda link, _fault, _target: link.write(b"\xff\xfe{{{\n"),
    "half_frame": lambda link, _fault, _target: link.write(b'{"jsonrpc":"2.0","method":"st'),
    "raw": lambda link, fault, _target: link.write(fault.text.encode("latin-1")),
    "oversize": _oversize,
    "flood": _flood,
    "stderr": _flood_stderr,
    "grandchild": _grandchild,
    "zombies": _zombies,
    "allocate": lambda link, fault, _target: link.ballast.append(bytearray(b"\1") * fault.count),
}
