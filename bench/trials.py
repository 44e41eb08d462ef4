"""Cold against warm: the same requests to Stoker and to the peer, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench import agent, peer
from stoker.bench import findings
from stoker.bench.prompts import USERS, system_prompt
from stoker.bench.report import Check, Json, Ratio, Section, Series
from stoker.bench.stopwatch import ANSWER_TOKENS, Answer, ask
from stoker.bench.subject import Subject
from stoker.bench.trials import Trial, after_cold

SOONER = 30.0
"""How much sooner than cold the first warm request is to be at 2,000 tokens."""
AT_TOKENS = 1900
"""From here on that counts as 2,000."""
AGENT_SOONER = 100.0
"""How much sooner than cold an agent's request, 4,000 tokens and tools, is to be when warm, and when restored."""
AGENT_TOKENS = 4000
AGENT_AT = 5000
"""Tokens from which on a prompt counts as an agent's."""
NAME = "stoker"
"""In the tables, without tools."""
PEER_MOST = 2000
"""Tokens of the largest prompts that the peer is asked with: it takes the longer the more, and tells nothing new."""

HEADER = ("server", "prompt", "cold", "first warm", "warm", "cold : first warm", "cold : warm", "cached", "same text")

METHOD = (
    "From sending a streamed HTTP request to its first piece of content, connection included, temperature 0; median "
    "(smallest-largest). Cold: a system prompt never seen before. Stoker's warm: the worker is restarted empty, then "
    "`rewarm` with that system prompt; `first warm` is the first request after it, the very same as the cold one, "
    "whose text is compared; `warm` are requests with other user texts. The peer has no rewarm: its `warm` are "
    "requests with the same system prompt and other user texts after its cold one. Ratios are of medians (worst "
    "case-best case). Cached: the tokens that the server says it reused, of the prefix that such requests share."
)


@dataclass(frozen=True, slots=True)
class AgentTrial(Trial):
    """A trial of an agent's request.

    Attributes:
        messages: Tokens that the same request in Anthropic's form reused; None where there is no such API.
    """

    messages: int | None = None


@dataclass(frozen=True, slots=True)
class PeerTrial:
    """The same requests to the peer, which has no rewarm: the others come right after the cold one."""

    cold: Answer
    others: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """Trials.

    Attributes:
        stoker: By size and name in the tables.
        peer: By size.
    """

    stoker: dict[tuple[int, str], list[Trial]] = field(default_factory=dict)
    peer: dict[int, list[PeerTrial]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked.

    Attributes:
        sizes: Tokens of system prompt, about.
        repeats: Trials of each.
        others: Warm requests with other user texts in each trial.
        agent: Trials of an agent's request, which take the longest.
        tools: How many tools it has; None: all.
    """

    sizes: tuple[int, ...]
    repeats: int
    others: int
    agent: int = 0
    tools: int | None = None
    agent_tokens: int = AGENT_TOKENS


def stoker_trial(subject: Subject, url: str, system: str, others: int) -> Trial:
    """Cold, warm, restored; then forgotten."""
    trial = after_cold(subject, url, system, ask(url, system, USERS[0]), others=others)
    subject.forget_learned()  # or the next trials' workers would restore this prompt too, in their starts' time
    return trial


def agent_trial(subject: Subject, url: str, system: str, others: int, tools: agent.Tools) -> AgentTrial:
    """The same with tools; then, restored, another user's question with both to the other API."""
    one = after_cold(subject, url, system, ask(url, system, USERS[0], tools=tools), others=others, tools=tools)
    messages = _in_messages(url, system, tools)
    subject.forget_learned()
    return AgentTrial(one.cold, one.again, one.others, one.prefix, one.comeback, messages)


def _in_messages(url: str, system: str, tools: agent.Tools) -> int | None:
    """The same in the form of Anthropic's API."""
    message = {"role": "user", "content": USERS[-1]}  # which nobody else asks
    body = {
        "model": "default",
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "system": system,
        "messages": [message],
    }
    return agent.ask_messages(url, {**body, "tools": agent.anthropic(tools)})


def peer_trial(url: str, system: str, others: int) -> PeerTrial:
    """Cold, then warm."""
    cold = ask(url, system, USERS[0], peer.MODEL)
    return PeerTrial(cold, tuple(ask(url, system, user, peer.MODEL) for user in USERS[1 : others + 1]))


def run_trials(subject: Subject, peer_url: str | None, plan: Plan, say: Callable[[str], None]) -> Made:
    """All trials; the servers take turns, so that a busy spell of the machine hits both."""
    url = subject.status().http
    made = Made()
    ask(url, None, USERS[0])  # the first request of a process pays for what only it pays for
    if peer_url:
        ask(peer_url, None, USERS[0], peer.MODEL)
    for size in plan.sizes:
        for index in range(plan.repeats):
            system = system_prompt(size, f"{size} tokens, repeat {index + 1}")
            say(f"cold and warm, {size} tokens: {NAME} {index + 1} of {plan.repeats}")
            made.stoker.setdefault((size, NAME), []).append(stoker_trial(subject, url, system, plan.others))
            if peer_url and size <= PEER_MOST:
                say(f"cold and warm, {size} tokens: {peer.NAME} {index + 1} of {plan.repeats}")
                made.peer.setdefault(size, []).append(peer_trial(peer_url, system, plan.others))
    return made


def run_agent(subject: Subject, plan: Plan, say: Callable[[str], None]) -> dict[tuple[int, str], list[Trial]]:
    """The trials of an agent's request."""
    url = subject.status().http
    tools = agent.agent_tools(plan.tools)
    ask(url, None, USERS[0])
    done: list[Trial] = []
    for index in range(plan.agent):
        say(f"an agent's request, {plan.agent_tokens} tokens and {len(tools)} tools: {index + 1} of {plan.agent}")
        system = system_prompt(plan.agent_tokens, f"agent, repeat {index + 1}")
        done.append(agent_trial(subject, url, system, plan.others, tools))
    return {(plan.agent_tokens, agent.NAME): done} if done else {}


@dataclass(frozen=True, slots=True)
class Findings(findings.Findings):
    """Stoker at one size.

    Attributes:
        server: Its name in the tables: with an agent's tools it has another.
    """

    server: str = NAME

    @property
    def what(self) -> str:
        """Of which prompts the promises are."""
        return f"{self.size} tokens" if self.server == NAME else f"{self.size} tokens and tools"

    def row(self) -> tuple[str, ...]:
        """Of the table."""
        return (
            f"{self.server}, {self.size} tokens",
            f"{self.prompt.median:.0f}",
            str(self.cold),
            str(self.first_warm),
            str(self.warm),
            str(Ratio.of(self.cold, self.first_warm)),
            str(Ratio.of(self.cold, self.warm)),
            findings.worst(self.reused_warm),
            "yes" if self.identical_warm else "NO",
        )

    def data(self) -> Json:
        """For JSON."""
        return _common_data(self.size, self.server, self.trials) | {
            "cached_tokens_warm": [[answer.cached_tokens for answer in trial.warm] for trial in self.trials],
            "first_warm": self.first_warm.data(),
            "cold_to_first_warm": Ratio.of(self.cold, self.first_warm).data(),
            "identical": self.identical_warm,
            "prefix_tokens": [trial.prefix.tokens for trial in self.trials],
            "rewarm": Series.of(trial.prefix.seconds for trial in self.trials).data(),
        }

    def checks(self) -> tuple[Check, ...]:
        """What must hold of cold and warm, and what is to be reached."""
        return (*self.warm_checks(), *self._same_in_messages(), *self._target(), *self._agent_targets())

    def _same_in_messages(self) -> tuple[Check, ...]:
        asked = [trial for trial in self.trials if isinstance(trial, AgentTrial) and trial.messages is not None]
        if not asked:
            return ()
        whole = sum(trial.messages == trial.prefix.tokens for trial in asked)
        promise = f"{self.what}: a request to /v1/messages with the same prompt and tools reuses all of both"
        return (Check(promise, f"{whole} of {len(asked)}", whole == len(asked)),)

    def _agent_targets(self) -> tuple[Check, ...]:
        if self.prompt.median < AGENT_AT:
            return ()
        named = {"warm": self.warm, "restored after kill -9": self.restored}
        return tuple(_sooner(f"{self.what}: {name}", self.cold, one, AGENT_SOONER) for name, one in named.items())

    def _target(self) -> tuple[Check, ...]:
        if self.prompt.median < AT_TOKENS:
            return ()
        return (_sooner(f"{self.what}: the first warm request", self.cold, self.first_warm, SOONER),)


def _sooner(who: str, cold: Series, series: Series, times: float) -> Check:
    ratio = Ratio.of(cold, series)
    return Check(f"{who} at least {times:.0f}x sooner than cold", str(ratio), ratio.median >= times, target=True)


def _range(found: Sequence[int]) -> str:
    return "-".join(map(str, dict.fromkeys((found[0], found[-1]))))


def _common_data(size: int, server: str, trials: Sequence[Trial] | Sequence[PeerTrial]) -> Json:
    cold = Series.of(trial.cold.first for trial in trials)
    warm = Series.of(answer.first for trial in trials for answer in trial.others)
    return {
        "size": size,
        "server": server,
        "prompt_tokens": Series.of((trial.cold.prompt_tokens for trial in trials), "tokens").data(),
        "cold": cold.data(),
        "warm": warm.data(),
        "cold_to_warm": Ratio.of(cold, warm).data(),
        "cached_tokens_cold": [trial.cold.cached_tokens for trial in trials],
        "cached_tokens_warm": [[answer.cached_tokens for answer in trial.others] for trial in trials],
    }


def _peer_row(size: int, trials: Sequence[PeerTrial]) -> tuple[str, ...]:
    cold = Series.of(trial.cold.first for trial in trials)
    warm = Series.of(answer.first for trial in trials for answer in trial.others)
    prompt = Series.of((trial.cold.prompt_tokens for trial in trials), "tokens")
    found = sorted({answer.cached_tokens for answer in trials[-1].others})
    whole = f"{prompt.median:.0f}"
    return (
        f"{peer.NAME}, {size} tokens",
        whole,
        str(cold),
        "-",
        str(warm),
        "-",
        str(Ratio.of(cold, warm)),
        _range(found),
        "-",
    )


def findings_of(made: Made) -> list[Findings]:
    """Stoker's, in the order of the tables."""
    return [Findings(size, trials, server) for (size, server), trials in made.stoker.items()]


def warmth_section(made: Made) -> Section:
    """The table."""
    found = findings_of(made)
    peers = [_common_data(size, peer.NAME, trials) for size, trials in made.peer.items()]
    return Section(
        key="warmth",
        title="Time to first token, cold and warm",
        method=METHOD,
        header=HEADER,
        rows=tuple(_rows(found, made)),
        data={"results": [*(one.data() for one in found), *peers]},
        checks=tuple(check for one in found for check in one.checks()),
    )


def _rows(found: Sequence[Findings], made: Made) -> Iterator[tuple[str, ...]]:
    """The peer's below Stoker's of the same size."""
    for one in found:
        yield one.row()
        if one.server == NAME and one.size in made.peer:
            yield _peer_row(one.size, made.peer[one.size])
