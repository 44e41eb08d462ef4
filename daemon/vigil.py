"""Watches over a loaded worker: sleeps until its pulse is due, probes it when it is idle, says when it is of no use.

What is due, and when, is `pulse`'s to decide. Nothing is held against a worker before what has arrived was read, nor
in the time after the daemon itself was away (`attention`).
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from ..ipc.messages import Finished, Generate, TokenPrompt
from .attention import Attention, settle
from .link import RequestRefused, WorkerLink, WorkerLost
from .pulse import Budgets, Due, Kind

PROBE = Generate(prompt=TokenPrompt(tokens=(0,)), max_tokens=1, probe=True)
"""The least that goes all the way through the engine: one forward, one token chosen."""


async def watch_over(link: WorkerLink, budgets: Callable[[], Budgets], attention: Attention) -> str:
    """Watch until the worker is of no use any more; returns why.

    Args:
        link: Its connection; the model is loaded.
        budgets: Those in force; they may change.
        attention: Whether the daemon was there to see.
    """
    link.pulse.proved = anyio.current_time()
    async with anyio.create_task_group() as probes:
        why = await _verdict(link, budgets, attention, probes)
        probes.cancel_scope.cancel()
    return why


async def _verdict(link: WorkerLink, budgets: Callable[[], Budgets], attention: Attention, probes: TaskGroup) -> str:
    while True:
        if why := link.pulse.poisoned(budgets()) or await _next(link, budgets(), attention, probes):
            return why


async def _next(link: WorkerLink, budgets: Budgets, attention: Attention, probes: TaskGroup) -> str | None:
    """Sleep until something may be due, and see to it; why the worker is of no use, if it is."""
    due = link.pulse.due(budgets)
    if not _is_due(due, attention):
        await _sleep(link, due, budgets, attention)
    elif due is not None and due.kind is Kind.PROBE:
        link.pulse.probed = anyio.current_time()
        probes.start_soon(_probe, link)
    elif due is not None:
        await settle()
        if link.pulse.due(budgets) == due and _is_due(due, attention):
            return due.why
    return None


def _is_due(due: Due | None, attention: Attention) -> bool:
    return due is not None and anyio.current_time() >= attention.postponed(due.at)


async def _sleep(link: WorkerLink, due: Due | None, budgets: Budgets, attention: Attention) -> None:
    # Never for longer than the shortest budget: what is asked meanwhile can't be due before that is over.
    wake = anyio.current_time() + min(budgets.first_token, budgets.next_token)
    if due is not None:
        wake = min(wake, attention.postponed(due.at))
    link.stirred = anyio.Event()
    with anyio.move_on_after(wake - anyio.current_time()):
        await link.stirred.wait()
        return
    attention.look(due=wake)


async def _probe(link: WorkerLink) -> None:
    # No deadline: the probe is work like any other, and the vigil ends where it isn't answered.
    try:
        await link.call(PROBE, Finished)
    except (WorkerLost, RequestRefused):
        return  # a loss is noticed elsewhere, and a refusal is counted in the pulse where it means something
