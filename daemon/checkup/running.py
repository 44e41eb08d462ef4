"""The daemon that runs, and the service manager that may have it."""

from __future__ import annotations

from collections.abc import Iterator

from ... import __version__
from ...ipc.control_messages import Rates, StatusReport
from .finding import Finding, note, ok, wrong


def findings(report: StatusReport | None) -> Iterator[Finding]:
    """What the running daemon says of itself; nothing without one."""
    if report is None:
        return
    yield _phase(report)
    if report.version != __version__:
        remedy = "run `stoker stop`, then start it again"
        yield note("version", f"the daemon is {report.version}, this command {__version__}", remedy)
    for text in report.notes:
        if "OpenBLAS" not in text:  # the machine's own finding says that
            yield note("daemon", text)
    unexpected = [departure for departure in report.restarts if not departure.expected]
    if unexpected:
        last = unexpected[-1]
        words = f"{len(unexpected)} workers ended unasked; the last (generation {last.generation}): {last.cause}"
        yield note("restarts", words, "`stoker logs --worker` has its last words")


def _phase(report: StatusReport) -> Finding:
    if report.ready:
        words = f"ready, {'warm' if report.warm else f'not warm ({report.reason})'}"
        measured = speeds(report.rates)
        return ok("daemon", f"{words}; {measured} tokens/s" if measured else words)
    if report.phase == "failed":
        return wrong("daemon", f"failed: {report.reason}", "mend that, then run `stoker restart`")
    return note("daemon", f"not ready yet: {report.phase}")


def speeds(rates: Rates) -> str:
    """The worker's latest rates in tokens per second, warmups included; empty while none was measured."""
    known = ((rates.prompt_tps, ",.0f", "prompt"), (rates.generation_tps, ",.1f", "generation"))
    return ", ".join(f"{rate:{form}} {what}" for rate, form, what in known if rate)
