"""What the trials say of prefixes that were restored from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.comeback import Comeback
from bench.report import Check, Json, Ratio, Section, Series
from bench.trials import AT_TOKENS, Trial, at_size

WITHIN = 1.3
"""How much longer the first request after a restart may take than one that finds its prefix resident."""

HEADER = (
    "system prompt",
    "computed",
    "from disk",
    "restored",
    "cold : restored",
    "restored : warm",
    "cached",
    "same text",
)

METHOD = (
    "The trials above, continued. The system prompt was asked with several times, so it is learned, and the rewarm "
    "has saved it. Once `status` says that it is on disk, the worker gets kill -9; when `watch` says that the next "
    "one is ready, its warmup report tells where the prefix came from. Restored: time to first token of that "
    "worker's first request, with a user text not asked before. Then the cold request once more, whose text is "
    "compared. Cold and warm are those of the table above. Computed, from disk: seconds to make the prefix warm, in "
    "the rewarm and in the new worker. Cached: the tokens that the server says it reused, of the prefix that such "
    "requests share; the worst."
)


@dataclass(frozen=True, slots=True)
class Findings:
    """Stoker at one size. All trials have a comeback and a rewarm's report."""

    size: int
    trials: Sequence[Trial]
    server: str = "stoker"

    @property
    def comebacks(self) -> list[Comeback]:
        """Of the trials, in their order."""
        return [trial.comeback for trial in self.trials if trial.comeback]

    @property
    def restored(self) -> Series:
        """Time to the first content, first request of the new worker."""
        return Series.of(comeback.first.first for comeback in self.comebacks)

    @property
    def computed(self) -> Series:
        """Seconds of the rewarm."""
        return Series.of(trial.prefix.seconds for trial in self.trials if trial.prefix)

    @property
    def read(self) -> Series | None:
        """Seconds of the new worker for the same prefix; None where none was restored."""
        reports = [comeback.report for comeback in self.comebacks if comeback.restored]
        return Series.of(report.seconds for report in reports if report) if reports else None

    @property
    def ratios(self) -> tuple[Ratio, Ratio]:
        """Cold to restored, and restored to warm."""
        cold = Series.of(trial.cold.first for trial in self.trials)
        warm = Series.of(answer.first for trial in self.trials for answer in trial.others)
        return Ratio.of(cold, self.restored), Ratio.of(self.restored, warm)

    @property
    def found(self) -> list[tuple[int, int]]:
        """For each request to a new worker the tokens that it reused, and those of its whole prefix."""
        return [
            (answer.cached_tokens, trial.prefix.tokens)
            for trial in self.trials
            if trial.comeback and trial.prefix
            for answer in trial.comeback.answers
        ]

    @property
    def identical(self) -> bool:
        """Whether every repeated request had the text of its cold one."""
        return all(trial.comeback.again.text == trial.cold.text for trial in self.trials if trial.comeback)

    def row(self) -> tuple[str, ...]:
        """Of the table."""
        cached, tokens = min(self.found, key=lambda pair: pair[0] - pair[1])
        return (
            at_size(self.size, self.server).rstrip(": "),
            str(self.computed),
            str(self.read or "-"),
            str(self.restored),
            *map(str, self.ratios),
            f"{cached} of {tokens}",
            "yes" if self.identical else "NO",
        )

    def data(self) -> Json:
        """For JSON."""
        to_restored, to_warm = self.ratios
        reports = [comeback.report for comeback in self.comebacks]
        return {
            "size": self.size,
            "server": self.server,
            "restored": self.restored.data(),
            "cold_to_restored": to_restored.data(),
            "restored_to_warm": to_warm.data(),
            "computed": self.computed.data(),
            "from_disk": self.read.data() if self.read else None,
            "sources": [report.source if report else None for report in reports],
            "cached_tokens": [[answer.cached_tokens for answer in comeback.answers] for comeback in self.comebacks],
            "prefix_tokens": [trial.prefix.tokens for trial in self.trials if trial.prefix],
            "identical": self.identical,
        }

    def checks(self) -> tuple[Check, ...]:
        """What must hold."""
        at = at_size(self.size, self.server)
        back, whole = sum(one.restored for one in self.comebacks), sum(cached == all_ for cached, all_ in self.found)
        return (
            Check(
                at + "after kill -9 the learned prefix is restored from disk, without anyone asking",
                f"{back} of {len(self.comebacks)}",
                back == len(self.comebacks),
            ),
            Check(
                at + "every request then reuses the whole shared prefix, and no more",
                f"{whole} of {len(self.found)}",
                whole == len(self.found),
            ),
            Check(
                at + "restored text is the cold text", "identical" if self.identical else "differs", self.identical
            ),
            *self._target(at),
        )

    def _target(self, at: str) -> tuple[Check, ...]:
        if max(trial.cold.prompt_tokens for trial in self.trials) < AT_TOKENS:
            return ()
        _, to_warm = self.ratios
        promise = f"{at}restored within {WITHIN:g}x of resident"
        return (Check(promise, str(to_warm), to_warm.median <= WITHIN, target=True),)


def restored_section(trials: dict[tuple[int, str], list[Trial]]) -> Section:
    """The table, of those trials that have a comeback: the peer's have none."""
    findings = [
        Findings(size, made, server) for (size, server), made in trials.items() if all(one.comeback for one in made)
    ]
    return Section(
        key="restored",
        title="Time to first token after kill -9, restored from disk",
        method=METHOD,
        header=HEADER,
        rows=tuple(one.row() for one in findings),
        data={"results": [one.data() for one in findings]},
        checks=tuple(check for one in findings for check in one.checks()),
    )
