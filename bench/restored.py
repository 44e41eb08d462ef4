"""What the trials say of prefixes that were restored from disk."""

from __future__ import annotations

from collections.abc import Sequence

from bench.trials import AT_TOKENS, Findings
from stoker.bench.findings import worst
from stoker.bench.report import Check, Json, Ratio, Section, Series

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


def computed(one: Findings) -> Series:
    """Seconds of the rewarm."""
    return Series.of(trial.prefix.seconds for trial in one.trials)


def read(one: Findings) -> Series | None:
    """Seconds of the new worker for the same prefix; None where none was restored."""
    reports = [trial.comeback.report for trial in one.trials if trial.comeback.restored]
    return Series.of(report.seconds for report in reports if report) if reports else None


def ratios(one: Findings) -> tuple[Ratio, Ratio]:
    """Cold to restored, and restored to warm."""
    return Ratio.of(one.cold, one.restored), Ratio.of(one.restored, one.warm)


def row(one: Findings) -> tuple[str, ...]:
    """Of the table."""
    return (
        one.what,
        str(computed(one)),
        str(read(one) or "-"),
        str(one.restored),
        *map(str, ratios(one)),
        worst(one.reused_restored),
        "yes" if one.identical_restored else "NO",
    )


def data(one: Findings) -> Json:
    """For JSON."""
    to_restored, to_warm = ratios(one)
    comebacks, from_disk = [trial.comeback for trial in one.trials], read(one)
    return {
        "size": one.size,
        "server": one.server,
        "restored": one.restored.data(),
        "cold_to_restored": to_restored.data(),
        "restored_to_warm": to_warm.data(),
        "computed": computed(one).data(),
        "from_disk": from_disk.data() if from_disk else None,
        "sources": [comeback.report.source if comeback.report else None for comeback in comebacks],
        "cached_tokens": [[answer.cached_tokens for answer in comeback.answers] for comeback in comebacks],
        "prefix_tokens": [trial.prefix.tokens for trial in one.trials],
        "identical": one.identical_restored,
    }


def checks(one: Findings) -> tuple[Check, ...]:
    """What must hold, and what is to be reached."""
    if max(trial.cold.prompt_tokens for trial in one.trials) < AT_TOKENS:
        return one.restored_checks()
    _, to_warm = ratios(one)
    promise = f"{one.what}: restored within {WITHIN:g}x of resident"
    return (*one.restored_checks(), Check(promise, str(to_warm), to_warm.median <= WITHIN, target=True))


def restored_section(found: Sequence[Findings]) -> Section:
    """The table."""
    return Section(
        key="restored",
        title="Time to first token after kill -9, restored from disk",
        method=METHOD,
        header=HEADER,
        rows=tuple(row(one) for one in found),
        data={"results": [data(one) for one in found]},
        checks=tuple(check for one in found for check in checks(one)),
    )
