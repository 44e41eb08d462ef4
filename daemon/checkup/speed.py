"""Whether the service computes as fast as this shell does: service managers throttle, and nothing else tells.

Worker and shell do the same fixed work in turn (`stoker.worker.mlx_engine.speed`). The machine is the same for both;
what differs is what surrounds the process: its scheduling class, a quota, its cores, its niceness, its variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import anyio
import msgspec
import psutil

from ...ipc.control import ClientError, connect
from ...ipc.control_messages import Measurement, StatusReport
from .finding import Finding, note, ok, wrong
from .shell import FAILURES, PYTHON, told

COMMAND = (*PYTHON, "stoker.worker.measure")
TIMEOUT = 60.0
"""Seconds for the shell's part, which takes one: importing mlx from a slow disk may take many."""

ROUNDS = 3
"""Times that each of the two measures, in turn; the best of each counts. What else runs only ever slows one down."""

SLOWER = 0.6
"""Share of the shell's speed below which it is told. On a quiet machine two processes differ by a sixth at most."""
THROTTLED = 0.3
"""Share below which it is wrong: an eighth was reported of agents that launchd throttled."""

LOOK = 0.25
"""Seconds for which others' use of the processor is looked at, before and after."""
NOISY = 0.2
"""Share of the processor from which on others may be the cause. Beside a BLAS with a thread for each core one of them
takes more than its part, because the threads wait for the slowest."""

REMEDIES = {
    "launchd": (
        "run `stoker install` again: it writes `ProcessType` Interactive, and other types are throttled; "
        "then `launchctl print gui/$(id -u)/stoker.daemon` should say `spawn type = interactive`"
    ),
    "systemd": (
        "look at `systemctl --user show stoker -p CPUQuotaPerSecUSec -p CPUWeight -p AllowedCPUs -p Nice -p Slice`, "
        "and at the same of that slice; lift what limits it with `systemctl --user edit stoker`, and restart it"
    ),
}
"""By the manager that runs the daemon."""
UNMANAGED = (
    "look at the daemon's niceness (`ps -o ni -p {pid}`) and, on Linux, its cores (`taskset -cp {pid}`) and the "
    "limits of its cgroup (`cat /proc/{pid}/cgroup` names it); then start it without them"
)


def findings(report: StatusReport | None, control: Path, manager: str | None) -> Iterator[Finding]:
    """How the service's speed compares with this shell's; where it can't be compared, why.

    Args:
        report: What the daemon says of itself; None without one.
        control: Its socket.
        manager: Name of the service manager that runs it; None for none.
    """
    if report is None:
        yield note("speed", "no daemon runs, so there is nothing to compare with this shell")
        return
    try:
        others = used_by_others()
        service, shell = compared(lambda: anyio.run(_ask, control), probed)
        others = max(others, used_by_others())
    except ClientError as error:
        yield note("speed", f"the service can't be compared with this shell: {error}")
    except FAILURES as error:
        yield note("speed", f"this shell can't be compared with the service: {error}")
    else:
        remedy = REMEDIES.get(manager or "", UNMANAGED.format(pid=report.pid))
        yield finding(service, shell, remedy, others=others, worker=_worker(report))


def compared(
    service: Callable[[], Measurement], shell: Callable[[], Measurement], rounds: int = ROUNDS
) -> tuple[Measurement, Measurement]:
    """The best of service and shell, which measure in turn.

    Raises:
        ClientError: The service measured not once. Later refusals only end the rounds: a request has come.
        OSError, subprocess.SubprocessError, msgspec.MsgspecError: The shell's part failed.
    """
    pairs: list[tuple[Measurement, Measurement]] = []
    for _ in range(rounds):
        try:
            pairs.append((service(), shell()))
        except ClientError:
            if not pairs:
                raise
            break
    return _best(one for one, _ in pairs), _best(one for _, one in pairs)


def probed() -> Measurement:
    """Measure in a process of this shell, in a worker's environment.

    Raises:
        OSError, subprocess.SubprocessError, msgspec.MsgspecError: It could not be run, or told nothing.
    """
    return told(COMMAND, Measurement, TIMEOUT)


def used_by_others() -> float:
    """Share of the processor that is in use while neither service nor shell measures."""
    return float(psutil.cpu_percent(LOOK)) / 100


def finding(
    service: Measurement,
    shell: Measurement,
    remedy: str,
    *,
    others: float = 0.0,
    worker: psutil.Process | None = None,
) -> Finding:
    """What the figures mean.

    Args:
        service: What the worker measured.
        shell: What a process of this shell did.
        remedy: Where the service is slower.
        others: Share of the processor that other programs use.
        worker: Its process.
    """
    decoding, prefill = _share(service.bandwidth, shell.bandwidth), _share(service.flops, shell.flops)
    words = (
        f"the service decodes at {decoding:.0%} of this shell's speed ({service.bandwidth / 1e9:.1f} of "
        f"{shell.bandwidth / 1e9:.1f} GB/s) and prefills at {prefill:.0%} ({service.flops / 1e9:,.0f} of "
        f"{shell.flops / 1e9:,.0f} GFLOP/s)"
    )
    if service.device != shell.device:
        words += f"; it computes on the {service.device}, this shell on the {shell.device}"
    if noisy := others >= NOISY:
        words += f"; meanwhile other programs use {others:.0%} of the processor"
    found = _judged(min(decoding, prefill), words, remedy, worker, noisy=noisy)
    return msgspec.structs.replace(found, figures=_figures(service=service, shell=shell))


def _judged(share: float, words: str, remedy: str, worker: psutil.Process | None, *, noisy: bool) -> Finding:
    if share >= SLOWER:
        return ok("speed", words)
    words = "; ".join((words, *_differences(worker)))
    if noisy:
        return note("speed", words, f"run it again while nothing else computes; if it stays so, {remedy}")
    return note("speed", words, remedy) if share >= THROTTLED else wrong("speed", words, remedy)


async def _ask(control: Path) -> Measurement:
    async with connect(control) as client:
        return await client.measure()


def _best(measured: Iterable[Measurement]) -> Measurement:
    every = list(measured)
    bandwidth, flops = max(one.bandwidth for one in every), max(one.flops for one in every)
    return msgspec.structs.replace(every[-1], bandwidth=bandwidth, flops=flops)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _figures(**measured: Measurement) -> dict[str, float]:
    pairs = ((whose, what) for whose in measured for what in ("bandwidth", "flops"))
    return {f"{whose}_{what}": getattr(measured[whose], what) for whose, what in pairs}


def _worker(report: StatusReport) -> psutil.Process | None:
    try:
        return psutil.Process(report.worker.pid) if report.worker else None
    except psutil.Error:
        return None  # it ended just now


def _differences(worker: psutil.Process | None) -> Iterator[str]:
    """What of the worker's surroundings is worse than ours, as far as the system tells it plainly."""
    if worker is None:
        return
    ours = psutil.Process()
    try:
        if worker.nice() > ours.nice():
            yield f"its niceness is {worker.nice()}"
        if hasattr(worker, "cpu_affinity"):  # not on macOS
            its_cores, our_cores = len(worker.cpu_affinity()), len(ours.cpu_affinity())
            if its_cores < our_cores:
                yield f"it may use {its_cores} of this shell's {our_cores} cores"
    except psutil.Error:
        return  # it ended just now
