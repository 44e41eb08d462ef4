"""Snapshots in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...ipc.control_messages import PrefixStatus, Readiness

STAGES = {
    "convert": "converting the embedded model",
    "download": "downloading the model",
    "load": "loading the model",
    "warm": "warming",
}
PHASES = {
    "down": "no worker",
    "starting": "starting a worker",
    "loading": "loading the model",
    "warming": "warming",
    "stopping": "stopping the worker",
    "backoff": "waiting before the next try",
    "ready": "ending the worker",
    "failed": "given up",
}
"""Of a snapshot that is not ready; in the phase `ready` that is a worker which is being ended for a fault."""
_UNPRINTABLE = re.compile(r"[^\t\x20-\x7e\xa0-\U0010ffff]")


def printable(text: str) -> str:
    """Text from elsewhere without what would command a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def headline(now: Readiness) -> str:
    """A snapshot in one line."""
    if now.ready:
        return f"ready (generation {now.generation}), {warmth(now)}"
    if now.phase == "failed":
        return f"failed: {now.reason or 'no reason is known'}"
    return f"not ready: {activity(now)}"


def activity(now: Readiness) -> str:
    """What the daemon is doing on the way to ready."""
    words = STAGES.get(now.progress.stage, now.progress.stage) if now.progress else PHASES[now.phase]
    if now.progress and now.progress.name:
        words += f" {now.progress.name}"
    if now.progress and now.progress.total:
        words += f", {now.progress.done:,} of {now.progress.total:,}{_unit(now.progress.stage)}"
    if now.retry_after is not None:
        words += f", {now.retry_after:.0f} s to go"
    words += f" (generation {now.generation})" if now.generation else ""
    return f"{words}: {now.reason}" if now.reason else words


def _unit(stage: str) -> str:
    return {"warm": " tokens", "download": " bytes"}.get(stage, "")


def warmth(now: Readiness) -> str:
    """How warm, or why not."""
    if now.warm:
        return f"warm: {prefixes(now.warmup.prefixes)}"
    return f"not warm: {now.reason or now.warmup.outcome or 'no reason is known'}"


def prefixes(reports: Sequence[PrefixStatus]) -> str:
    """Each prefix with its tokens, where they came from, and seconds."""
    return "; ".join(map(prefix, reports)) or "no prefixes"


def prefix(report: PrefixStatus) -> str:
    """One prefix."""
    whole = "" if report.tokens_warm == report.tokens else f" of {report.tokens:,}"
    note = f", {report.note}" if report.note else ""
    return f"{report.name} {report.tokens_warm:,}{whole} tokens ({report.source}, {report.seconds:.2f} s{note})"


def duration(seconds: float) -> str:
    """Seconds for a person, in at most two units."""
    whole = int(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {small_unit}" if rest else f"{whole // size} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


def age(seconds: float) -> str:
    """How long ago, for a person, in one unit. A time to come, of a clock that was set back, is now."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def size(count: int) -> str:
    """Bytes for a person, in decimal units, as memory and disk tools of macOS show them."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} B"
