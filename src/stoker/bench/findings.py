"""What the trials of one size say: times, and what must hold whatever the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .report import Check, Series
from .trials import Trial

COLD_TOKENS = 8
"""Cold requests may find so many tokens: all prompts begin with the template's own first ones."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Trials with prompts of one size.

    Attributes:
        size: Tokens of the system prompt, about.
        trials: At least one.
    """

    size: int
    trials: Sequence[Trial]

    @property
    def what(self) -> str:
        """Of which prompts the promises are."""
        return f"{self.size} tokens"

    @property
    def cold(self) -> Series:
        """Time to the first content, cold."""
        return Series.of(trial.cold.first for trial in self.trials)

    @property
    def first_warm(self) -> Series:
        """The first request after a rewarm."""
        return Series.of(trial.again.first for trial in self.trials)

    @property
    def warm(self) -> Series:
        """Those with other user texts."""
        return Series.of(answer.first for trial in self.trials for answer in trial.others)

    @property
    def restored(self) -> Series:
        """The first request after the worker was killed."""
        return Series.of(trial.comeback.first.first for trial in self.trials)

    @property
    def prompt(self) -> Series:
        """Tokens of the cold prompts."""
        return Series.of((trial.cold.prompt_tokens for trial in self.trials), "tokens")

    @property
    def reused_warm(self) -> list[tuple[int, int]]:
        """For each warm request the tokens that it reused, and those of its whole prefix."""
        return [(answer.cached_tokens, trial.prefix.tokens) for trial in self.trials for answer in trial.warm]

    @property
    def reused_restored(self) -> list[tuple[int, int]]:
        """The same for requests to a new worker."""
        return [
            (answer.cached_tokens, trial.prefix.tokens) for trial in self.trials for answer in trial.comeback.answers
        ]

    @property
    def identical_warm(self) -> bool:
        """Whether every repeated request to a warm worker had the text of its cold one."""
        return all(trial.again.text == trial.cold.text for trial in self.trials)

    @property
    def identical_restored(self) -> bool:
        """The same of a restored one."""
        return all(trial.comeback.again.text == trial.cold.text for trial in self.trials)

    def warm_checks(self) -> tuple[Check, ...]:
        """What must hold of cold and warm requests."""
        cold = max(trial.cold.cached_tokens for trial in self.trials)
        whole = all(trial.prefix.tokens_warm == trial.prefix.tokens for trial in self.trials)
        return (
            Check(f"{self.what}: cold requests were cold", f"at most {cold} cached tokens", cold <= COLD_TOKENS),
            Check(f"{self.what}: rewarm makes the whole prefix warm", "yes" if whole else "no", whole),
            _reuse(f"{self.what}: every warm request reuses the whole shared prefix, and no more", self.reused_warm),
            _same(f"{self.what}: warm text is the cold text", self.identical_warm),
        )

    def restored_checks(self) -> tuple[Check, ...]:
        """What must hold after kill -9."""
        back = sum(trial.comeback.restored for trial in self.trials)
        return (
            Check(
                f"{self.what}: after kill -9 the learned prefix is restored from disk, without anyone asking",
                f"{back} of {len(self.trials)}",
                back == len(self.trials),
            ),
            _reuse(
                f"{self.what}: every request then reuses the whole shared prefix, and no more", self.reused_restored
            ),
            _same(f"{self.what}: restored text is the cold text", self.identical_restored),
        )


def _reuse(promise: str, pairs: Sequence[tuple[int, int]]) -> Check:
    whole = sum(cached == tokens for cached, tokens in pairs)
    return Check(promise, f"{whole} of {len(pairs)}", whole == len(pairs))


def _same(promise: str, identical: bool) -> Check:
    return Check(promise, "identical" if identical else "differs", identical)


def worst(pairs: Sequence[tuple[int, int]]) -> str:
    """The pair that misses most, in words."""
    cached, tokens = min(pairs, key=lambda pair: pair[0] - pair[1])
    return f"{cached} of {tokens}"
