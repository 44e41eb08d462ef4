"""Why a worker ended or could not be started, in words."""

from __future__ import annotations

import errno
import signal

EXHAUSTED = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT}
)
"""Something that everybody shares ran out."""


def describe_exit(code: int, ended_by_us: str | None, *, for_memory: bool | None = None) -> str:
    """The cause of an exit, in words.

    Args:
        code: A negative one is a signal's number, as in `subprocess`.
        ended_by_us: Name of the signal that we sent.
        for_memory: Whether the system was killing for want of memory; None: nobody knows.
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == ended_by_us:
        return f"ended by {name}, as asked"
    if name == "SIGKILL":
        return f"killed by SIGKILL, not by Stoker: {_KILLERS[for_memory]}"
    if name in {"SIGSEGV", "SIGBUS", "SIGABRT"}:
        return f"crashed with {name}: a fault in native code, or out of memory"
    return f"killed by {name}, not by Stoker"


_KILLERS = {
    None: "somebody did it, or the system was out of memory",
    True: "the system was out of memory",
    False: "somebody did it; the system was not out of memory",
}


def is_transient(error: BaseException) -> bool:
    """Whether something failed for want of descriptors, processes, memory or space: others may give some back."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in EXHAUSTED:
            return True
        cause = cause.__cause__
    return False
