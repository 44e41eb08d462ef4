"""Ends and failures, in words."""

from __future__ import annotations

import errno

import pytest

from stoker.daemon.causes import describe_exit, is_transient


@pytest.mark.parametrize(
    ("for_memory", "cause"),
    [
        (None, "killed by SIGKILL, not by Stoker: somebody did it, or the system was out of memory"),
        (True, "killed by SIGKILL, not by Stoker: the system was out of memory"),
        (False, "killed by SIGKILL, not by Stoker: somebody did it; the system was not out of memory"),
    ],
)
def test_kill_by_the_system(for_memory: bool | None, cause: str) -> None:
    """Where the system counts its kills for want of memory, a SIGKILL from nowhere is told apart."""
    assert describe_exit(-9, None, for_memory=for_memory) == cause


def test_lack_of_descriptors_is_transient() -> None:
    """What failed for want of something shared is told from what is really missing, also through a wrapper."""
    wrapped = RuntimeError("cannot listen")
    wrapped.__cause__ = OSError(errno.EMFILE, "Too many open files")

    assert is_transient(wrapped)
    assert is_transient(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))
    assert not is_transient(FileNotFoundError(errno.ENOENT, "No such file or directory"))


def test_signal_without_a_name() -> None:
    """A signal that Python has no name for is told by its number."""
    assert describe_exit(-250, None) == "killed by signal 250, not by Stoker"
