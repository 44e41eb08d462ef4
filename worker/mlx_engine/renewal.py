"""Prefixes that change with the date: where a chat template tells it, what is warm today is stale tomorrow.

Such a prefix is rendered again when the day has changed, which is looked at once a minute at most, and is warmed
again in the background if its tokens have changed. One with the time of day in it is not: it would be stale before it
is warm.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable

from .planning import Plan, Planner

LOOK_SECONDS = 60.0
"""Between two looks at the calendar: a machine that slept over midnight is no more than this late."""


def today() -> dt.date:
    """In local time, as chat templates see it."""
    return dt.datetime.now().astimezone().date()


class Renewal:
    """Remembers what tells the date.

    Args:
        planner: Renders anew.
        day: Today.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        planner: Planner,
        day: Callable[[], dt.date] = today,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._planner = planner
        self._day = day
        self._clock = clock
        self._rendered = day()
        self._dated: dict[str, Plan] = {}
        self._next_look = 0.0

    def remember(self, plans: Iterable[Plan]) -> None:
        """These are warm from now on, or will be; those of the same names no longer."""
        for plan in plans:
            self._dated.pop(plan.name, None)
            date = plan.prefix.date
            if plan.prefix.lasting is not None and date is not None and not date.time_of_day:
                self._dated[plan.name] = plan
                self._next_look = self._next_look or self._clock() + LOOK_SECONDS

    @property
    def due(self) -> float | None:
        """Seconds until `stale` is to be asked; None where nothing tells the date."""
        return max(0.0, self._next_look - self._clock()) if self._dated else None

    def stale(self) -> list[Plan]:
        """What is to be warmed again, with today's tokens. Mostly nothing, at the cost of reading a clock."""
        if not self._dated or self._clock() < self._next_look:
            return []
        self._next_look = self._clock() + LOOK_SECONDS
        day = self._day()
        if day == self._rendered:
            return []
        self._rendered = day
        again = [(old, self._again(old)) for old in self._dated.values()]
        changed = [new for old, new in again if new.prefix.tokens != old.prefix.tokens]
        self._dated |= {plan.name: plan for plan in changed}
        return changed

    def _again(self, old: Plan) -> Plan:
        if old.opening is None:
            return old
        return self._planner.plan(old.name, old.opening, optional=old.optional)
