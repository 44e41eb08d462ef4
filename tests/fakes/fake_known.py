"""What a fake worker knows of prefixes: those it warmed, and those that its scenario says were learned."""

from __future__ import annotations

from collections.abc import Iterable

from stoker.ipc.messages import Forget, KnownPrefix, Noted, Pin, Prefixes, PrefixList, PrefixReport

LEARNED_TOKENS = 100
"""Of each learned prefix."""
SEEN = 3
LAST_USED = 1_700_000_000.0


class Known:
    """Answers the three requests about prefixes; what it is told to forget, it forgets.

    Args:
        learned: Names, the most valuable first.
    """

    def __init__(self, learned: Iterable[str]) -> None:
        self._warm: dict[str, PrefixReport] = {}
        self._learned = dict.fromkeys(learned, False)  # name: whether pinned

    def warmed(self, reports: Iterable[PrefixReport]) -> None:
        """Remember what is warm."""
        self._warm |= {report.name: report for report in reports}

    def answer(self, body: Prefixes | Pin | Forget) -> PrefixList | Noted:
        match body:
            case Prefixes():
                return PrefixList(prefixes=(*map(_configured, self._warm.values()), *self._listed()))
            case Pin(name=name, pinned=pinned):
                count = len(self._learned.keys() & {name})
                self._learned |= dict.fromkeys([name] * count, pinned)
            case Forget(name=forgotten):
                names = self._learned.keys() & ({forgotten} if forgotten is not None else self._learned)
                count = len(names)
                self._learned = {name: pinned for name, pinned in self._learned.items() if name not in names}
        return Noted(count=count)

    def _listed(self) -> Iterable[KnownPrefix]:
        for name, pinned in self._learned.items():
            yield KnownPrefix(
                name=name,
                origin="learned",
                tokens=LEARNED_TOKENS,
                tokens_warm=0,
                pinned=pinned,
                seen=SEEN,
                tokens_saved=LEARNED_TOKENS * (SEEN - 1),
                last_used=LAST_USED,
            )


def _configured(report: PrefixReport) -> KnownPrefix:
    return KnownPrefix(name=report.name, origin="configured", tokens=report.tokens, tokens_warm=report.tokens_warm)
