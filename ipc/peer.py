"""Who is at the other end of a Unix socket, as the kernel tells it: it can't be forged."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from dataclasses import dataclass

_UCRED = struct.Struct("iII")
"""Linux `struct ucred`: pid, uid, gid."""

_SOL_LOCAL, _LOCAL_PEERPID = 0, 0x002
"""macOS, <sys/un.h>; Python has no names for them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, or that listens, as it was at that moment."""

    uid: int
    pid: int | None
    """None where the system doesn't tell it; another process may have it by now."""


def peer(sock: socket.socket) -> Peer:
    """The other end of a connected Unix stream socket.

    Args:
        sock: Any object with `fileno` and `getsockopt`, such as asyncio's `TransportSocket`.

    Raises:
        OSError: If the socket is no longer connected, or is not a Unix socket.
    """
    if sys.platform != "linux":
        return Peer(_effective_uid(sock.fileno()), _pid(sock))
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid, pid or None)


def _effective_uid(descriptor: int) -> int:
    """`getpeereid` of macOS and the BSDs."""
    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    library = ctypes.CDLL(None, use_errno=True)
    if library.getpeereid(descriptor, ctypes.byref(uid), ctypes.byref(gid)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return uid.value


def _pid(sock: socket.socket) -> int | None:
    try:
        return sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID) or None
    except OSError:
        return None  # only macOS has the option; the uid is what decides
