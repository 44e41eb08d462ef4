"""The figures of `stoker bench` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .comeback import is_restored, report_of
from .findings import Findings, worst
from .measuring import Measured, Round
from .report import Check, Json, Ratio, Section, Series

FIRST_FIGURES = ("cold", "warm", "restored", "cold : warm", "cold : restored", "reused", "same text")
"""A row each, so that the table fits a terminal of 80 columns."""
FIRST_METHOD = (
    "From sending a streamed HTTP request to the first piece of its answer, temperature 0: median (least-most). "
    "Cold: a system prompt never seen before. Warm: an emptied worker has warmed it (`rewarm`), and other user texts "
    "are asked. Restored: that worker got kill -9, the next one has read the prefix from disk, and this is its first "
    "request. Ratios are of medians. Reused: the prefix's tokens that warm and restored requests found, at the worst."
)
SPEED_METHOD = (
    "Prefill: tokens of the cold prompts over their time to the first token. Generation: one answer at a time, after "
    "its first token. Restart: from the order until the next worker is ready and has restored the learned prompt; "
    "where memory allows two workers, the old one serves till then. Kill -9: the same, counted from the kill; a "
    "worker that was ready for less than 30 s would be replaced after a pause of a second, which is left out here."
)


def sections(measured: Measured) -> tuple[Section, ...]:
    """Both tables."""
    return first_section(measured.findings), speed_section(measured)


def first_section(findings: Sequence[Findings]) -> Section:
    """Time to the first token."""
    return Section(
        key="first_token",
        title="Time to first token",
        method=FIRST_METHOD,
        header=("prompt", *(f"{one.prompt.median:.0f} tokens" for one in findings)),
        rows=tuple(zip(FIRST_FIGURES, *map(_figures, findings), strict=True)),
        data={"results": [_data(one) for one in findings]},
        checks=tuple(check for one in findings for check in (*one.warm_checks(), *one.restored_checks())),
    )


def _figures(one: Findings) -> tuple[str, ...]:
    return (
        str(one.cold),
        str(one.warm),
        str(one.restored),
        str(Ratio.of(one.cold, one.warm)),
        str(Ratio.of(one.cold, one.restored)),
        worst(one.reused_warm + one.reused_restored),
        "yes" if one.identical_warm and one.identical_restored else "NO",
    )


def _data(one: Findings) -> Json:
    return {
        "size": one.size,
        "prompt_tokens": one.prompt.data(),
        "prefix_tokens": [trial.prefix.tokens for trial in one.trials],
        "cold": one.cold.data(),
        "first_warm": one.first_warm.data(),
        "warm": one.warm.data(),
        "restored": one.restored.data(),
        "cold_to_warm": Ratio.of(one.cold, one.warm).data(),
        "cold_to_restored": Ratio.of(one.cold, one.restored).data(),
        "cached_tokens_cold": [trial.cold.cached_tokens for trial in one.trials],
        "cached_tokens_warm": [cached for cached, _ in one.reused_warm],
        "cached_tokens_restored": [cached for cached, _ in one.reused_restored],
        "identical_text": one.identical_warm and one.identical_restored,
    }


def speed_section(measured: Measured) -> Section:
    """Tokens per second, and how soon the service is back."""
    series = dict(_speeds(measured))
    back = sum(map(_is_back, measured.rounds))
    return Section(
        key="speed",
        title="Tokens per second, and ready again",
        method=SPEED_METHOD,
        header=("what", "figure"),
        rows=tuple((what, str(one) if one else "the answers were too short") for what, (_, one) in series.items()),
        data={key: one.data() if one else None for key, one in series.values()},
        checks=(
            Check(
                "after a restart the learned prefix is restored from disk",
                f"{back} of {len(measured.rounds)}",
                back == len(measured.rounds),
            ),
        ),
    )


def _speeds(measured: Measured) -> Iterator[tuple[str, tuple[str, Series | None]]]:
    """Name in the table; name in the JSON, and the figure."""
    for one in measured.findings:
        rates = [(trial.cold.prompt_tokens - trial.cold.cached_tokens) / trial.cold.first for trial in one.trials]
        yield f"prefill of {one.prompt.median:.0f} tokens", (f"prefill_{one.size}", Series.of(rates, "tokens/s"))
    stories = [rate for each in measured.rounds if (rate := each.story.rate) is not None]
    yield "generation", ("generation", Series.of(stories, "tokens/s") if stories else None)
    restarts = Series.of(each.restart.seconds for each in measured.rounds)
    yield "restart, until ready again", ("restart", restarts)
    kills = Series.of(each.trial.comeback.seconds for each in measured.rounds)
    yield "kill -9 of the worker, until ready again", ("kill", kills)


def _is_back(each: Round) -> bool:
    report = report_of(each.trial.prefix.tokens, each.restart.ready.warmup.prefixes)
    return report is not None and is_restored(report)
