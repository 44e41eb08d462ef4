"""launchctl(1): its verbs, its answers, and what its numbers mean.

An exit status is an error number of launchd's. The same number has several causes (5 has six), so the words that a
person gets are made of the number and of what can be seen beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .calling import Reply, call
from .job import ManagerError

CALL_TIMEOUT = 30.0
"""Seconds for one call. None is known to take more than a few; a `bootout --wait`, which may, is not used."""

NO_SUCH_PROCESS = 3
IO_ERROR = 5
EXISTS = 17
DRAINING = 36
IN_PROGRESS = 37
NO_DOMAIN = 112
NO_SERVICE = 113
DISABLED = 119

GONE = frozenset({NO_SUCH_PROCESS, NO_SERVICE})
"""Of a `bootout`: it was not loaded."""
BUSY = frozenset({IO_ERROR, EXISTS, DRAINING, IN_PROGRESS})
"""Of a `bootstrap`: loaded already, or an old instance on its way out; `print` tells which."""

MEANINGS: dict[int, tuple[str, str]] = {
    IO_ERROR: (
        "launchd refused the agent without saying why",
        'look at `log show --last 10m --predicate \'process=="launchd" OR process=="xpcproxy"\'`',
    ),
    NO_DOMAIN: (
        "this user has no session that launchd could run an agent in",
        "log in at the Mac's own screen once, or over ssh, and try again",
    ),
    NO_SERVICE: (
        "launchd does not know the agent (any more)",
        "allow Stoker under System Settings > General > Login Items & Extensions, then run `stoker install` again",
    ),
    DISABLED: ("the agent is disabled", "run `launchctl enable {service}`"),
    122: (
        "the property list belongs to somebody else, or others may write it",
        "run `stoker install` again as yourself",
    ),
    124: ("the session is ending", "log in again"),
    125: ("this session's domain runs no agents", "log in at the Mac's own screen, or over ssh, and try again"),
    134: ("the agent may not run in this kind of session", "run `stoker install` again; it allows both kinds"),
    155: (
        "the program is quarantined, because it was downloaded",
        "run `xattr -dr com.apple.quarantine` on the folder of the Python environment",
    ),
}
"""What a status says, and the way out."""


@dataclass(frozen=True, slots=True)
class Printed:
    """What `launchctl print` told of a service. It is no API: None is "it does not say", never "no"."""

    state: str | None = None
    pid: int | None = None
    path: str | None = None
    last_exit: str | None = None


class Launchctl:
    """Runs launchctl.

    Args:
        program: It; tests give a fake launchd's.
    """

    def __init__(self, program: Sequence[str] = ("/bin/launchctl",)) -> None:
        self.program = tuple(program)

    def call(self, *arguments: str) -> Reply:
        """Run one verb.

        Raises:
            ManagerError: It could not be run, or did not return.
        """
        return call([*self.program, *arguments], CALL_TIMEOUT, "is this a Mac?")


_FACT = re.compile(r"^\t(?P<key>[a-z][a-z ]*) = (?P<value>.+)$", re.MULTILINE)
"""A line with exactly one tab: deeper ones belong to endpoints, coalitions and other things."""


def parsed(text: str) -> Printed:
    """Read what `print` printed."""
    facts: dict[str, str] = {}
    for match in _FACT.finditer(text):
        facts.setdefault(match["key"], match["value"].strip())
    pid = facts.get("pid", "")
    return Printed(
        state=facts.get("state"),
        pid=int(pid) if pid.isdecimal() else None,
        path=facts.get("path"),
        last_exit=facts.get("last terminating signal") or facts.get("last exit code"),
    )


_OVERRIDE = re.compile(r'^\s*"(?P<label>[^"]+)" => (?P<word>\w+)', re.MULTILINE)


def is_disabled(text: str, label: str) -> bool:
    """Whether `print-disabled` names a label as disabled; older systems say `true`. One that is absent is enabled."""
    words = {match["label"]: match["word"] for match in _OVERRIDE.finditer(text)}
    return words.get(label) in {"disabled", "true"}


def explained(verb: str, reply: Reply, service: str, besides: str = "") -> ManagerError:
    """A failed call in words.

    Args:
        verb: Which one.
        reply: What it gave.
        service: The service's target, such as `gui/501/stoker.daemon`.
        besides: What was seen beside the number; it comes first.
    """
    what, remedy = MEANINGS.get(reply.code, ("launchd refused", f"`launchctl error {reply.code}` may say more"))
    said = f" ({reply.line})" if reply.text else ""
    cause = besides or f"{what}; {remedy.format(service=service)}"
    return ManagerError(f"launchctl {verb} failed with {reply.code}{said}: {cause}")
