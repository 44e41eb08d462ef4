from __future__ import annotations

import os
import socket

import pytest

from stoker.ipc.peer import Peer, peer


def test_the_kernel_tells_uid_and_pid_of_the_other_end() -> None:
    """Both ends of a pair made by this process are this process."""
    left, right = socket.socketpair()
    with left, right:
        assert peer(left) == peer(right) == Peer(os.geteuid(), os.getpid())


def test_a_socket_that_is_closed_has_no_peer() -> None:
    """Asking about a connection that is gone raises, and never names somebody."""
    left, right = socket.socketpair()
    left.close()
    right.close()

    with pytest.raises(OSError, match=r".+"):
        peer(left)
