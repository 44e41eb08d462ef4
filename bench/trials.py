"""Cold against warm: the same requests to Stoker and to the peer, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import agent, peer
from bench.comeback import Comeback, come_back
from bench.prompts import USERS, system_prompt
from bench.report import Check, Json, Ratio, Section, Series
from bench.stopwatch import ANSWER_TOKENS, Answer, ask, ask_messages
from bench.subject import Subject
from stoker.ipc.control_messages import PrefixStatus

COLD_TOKENS = 8
"""Cold requests may find so many tokens: all prompts begin with the template's own first ones."""
SOONER = 30.0
"""How much sooner than cold the first warm request is to be at 2,000 tokens."""
AT_TOKENS = 1900
"""From here on that counts as 2,000."""
AGENT_SOONER = 100.0
"""How much sooner than cold an agent's request, 4,000 tokens and tools, is to be when warm, and when restored."""
AGENT_TOKENS = 4000
AGENT_AT = 5000
"""Tokens from which on a prompt counts as an agent's."""
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
class Trial:
    """One system prompt, cold and then warm.

    Attributes:
        cold: Never seen before.
        again: The same request, first after the rewarm; the peer has none.
        others: Same system prompt, other user texts.
        prefix: What the rewarm reported.
        comeback: After the worker was killed; the peer has none.
        messages: Tokens that the same request in Anthropic's form reused; None where that was not asked.
    """

    cold: Answer
    others: tuple[Answer, ...]
    again: Answer | None = None
    prefix: PrefixStatus | None = None
    comeback: Comeback | None = None
    messages: int | None = None

    @property
    def warm(self) -> tuple[Answer, ...]:
        """All that should have found the prefix."""
        return (*([self.again] if self.again else []), *self.others)


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


def stoker_trial(subject: Subject, url: str, system: str, others: int, tools: agent.Tools = ()) -> Trial:
    """Cold; then, in an empty worker, rewarm and warm; then killed, and restored by its successor."""
    cold = ask(url, system, USERS[0], tools=tools)
    subject.restart_cold()
    prefix = subject.rewarm(system, tools)
    again = ask(url, system, USERS[0], tools=tools)
    warm = tuple(ask(url, system, user, tools=tools) for user in USERS[1 : others + 1])
    messages = _in_messages(url, system, tools) if tools else None
    comeback = come_back(subject, url, system, prefix.tokens, tools)
    subject.forget_learned()  # or the next trials' workers would restore this prompt too, in their starts' time
    return Trial(cold, warm, again, prefix, comeback, messages)


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
    return ask_messages(url, {**body, "tools": agent.anthropic(tools)})


def peer_trial(url: str, system: str, others: int) -> Trial:
    """Cold, then warm."""
    return Trial(ask(url, system, USERS[0], peer.MODEL), _others(url, system, others, peer.MODEL))


def _others(url: str, system: str, count: int, model: str = "default") -> tuple[Answer, ...]:
    return tuple(ask(url, system, user, model) for user in USERS[1 : count + 1])


def run_trials(
    subject: Subject, peer_url: str | None, plan: Plan, say: Callable[[str], None]
) -> dict[tuple[int, str], list[Trial]]:
    """All trials by size and server; the servers take turns, so that a busy spell of the machine hits both."""
    url = subject.status().http
    done: dict[tuple[int, str], list[Trial]] = {}
    ask(url, None, USERS[0])  # the first request of a process pays for what only it pays for
    if peer_url:
        ask(peer_url, None, USERS[0], peer.MODEL)
    for size in plan.sizes:
        for index in range(plan.repeats):
            system = system_prompt(size, f"{size} tokens, repeat {index + 1}")
            say(f"cold and warm, {size} tokens: stoker {index + 1} of {plan.repeats}")
            done.setdefault((size, "stoker"), []).append(stoker_trial(subject, url, system, plan.others))
            if peer_url and size <= PEER_MOST:
                say(f"cold and warm, {size} tokens: {peer.NAME} {index + 1} of {plan.repeats}")
                done.setdefault((size, peer.NAME), []).append(peer_trial(peer_url, system, plan.others))
    return done


def run_agent(subject: Subject, plan: Plan, say: Callable[[str], None]) -> dict[tuple[int, str], list[Trial]]:
    """The trials of an agent's request."""
    url = subject.status().http
    tools = agent.agent_tools(plan.tools)
    ask(url, None, USERS[0])
    done: list[Trial] = []
    for index in range(plan.agent):
        say(f"an agent's request, {plan.agent_tokens} tokens and {len(tools)} tools: {index + 1} of {plan.agent}")
        system = system_prompt(plan.agent_tokens, f"agent, repeat {index + 1}")
        done.append(stoker_trial(subject, url, system, plan.others, tools))
    return {(plan.agent_tokens, agent.NAME): done} if done else {}


@dataclass(frozen=True, slots=True)
class Findings:
    """One server at one size."""

    size: int
    server: str
    trials: Sequence[Trial]

    @property
    def cold(self) -> Series:
        """Time to the first content, cold."""
        return Series.of(trial.cold.first for trial in self.trials)

    @property
    def first_warm(self) -> Series | None:
        """The first request after a rewarm."""
        times = [trial.again.first for trial in self.trials if trial.again]
        return Series.of(times) if times else None

    @property
    def warm(self) -> Series:
        """Those with other user texts."""
        return Series.of(answer.first for trial in self.trials for answer in trial.others)

    @property
    def restored(self) -> Series | None:
        """The first request after the worker was killed."""
        times = [trial.comeback.first.first for trial in self.trials if trial.comeback]
        return Series.of(times) if times else None

    @property
    def prompt(self) -> Series:
        """Tokens of the cold prompts."""
        return Series.of((trial.cold.prompt_tokens for trial in self.trials), "tokens")

    @property
    def missed(self) -> int:
        """Warm requests that did not find exactly the prefix which the rewarm reported."""
        pairs = [(answer.cached_tokens, trial.prefix) for trial in self.trials for answer in trial.warm]
        return sum(prefix is not None and cached != prefix.tokens for cached, prefix in pairs)

    @property
    def identical(self) -> bool:
        """Whether every repeated request had the text of its cold one."""
        return all(trial.again is None or trial.again.text == trial.cold.text for trial in self.trials)

    def row(self) -> tuple[str, ...]:
        """Of the table."""
        first = self.first_warm
        return (
            f"{self.server}, {self.size} tokens",
            f"{self.prompt.median:.0f}",
            str(self.cold),
            str(first) if first else "-",
            str(self.warm),
            str(Ratio.of(self.cold, first)) if first else "-",
            str(Ratio.of(self.cold, self.warm)),
            self._cached(),
            ("yes" if self.identical else "NO") if first else "-",
        )

    def _cached(self) -> str:
        trial = self.trials[-1]
        found = sorted({answer.cached_tokens for answer in trial.warm})
        shown = "-".join(map(str, dict.fromkeys((found[0], found[-1]))))
        return f"{shown} of {trial.prefix.tokens}" if trial.prefix else shown

    def data(self) -> Json:
        """For JSON."""
        first, rewarms = self.first_warm, [trial.prefix for trial in self.trials if trial.prefix]
        figures: Json = {
            "size": self.size,
            "server": self.server,
            "prompt_tokens": self.prompt.data(),
            "cold": self.cold.data(),
            "warm": self.warm.data(),
            "cold_to_warm": Ratio.of(self.cold, self.warm).data(),
            "cached_tokens_cold": [trial.cold.cached_tokens for trial in self.trials],
            "cached_tokens_warm": [[answer.cached_tokens for answer in trial.warm] for trial in self.trials],
        }
        if first:
            figures |= {"first_warm": first.data(), "cold_to_first_warm": Ratio.of(self.cold, first).data()}
            figures |= {"identical": self.identical, "prefix_tokens": [prefix.tokens for prefix in rewarms]}
            figures |= {"rewarm": Series.of(prefix.seconds for prefix in rewarms).data()}
        return figures

    def checks(self) -> tuple[Check, ...]:
        """What must hold of Stoker."""
        warm = sum(len(trial.warm) for trial in self.trials)
        cold = max(trial.cold.cached_tokens for trial in self.trials)
        whole = all(trial.prefix and trial.prefix.tokens_warm == trial.prefix.tokens for trial in self.trials)
        at = at_size(self.size, self.server)
        return (
            Check(at + "cold requests were cold", f"at most {cold} cached tokens", cold <= COLD_TOKENS),
            Check(at + "rewarm makes the whole prefix warm", "yes" if whole else "no", whole),
            Check(
                at + "every warm request reuses the whole shared prefix, and no more",
                f"{warm - self.missed} of {warm}",
                self.missed == 0,
            ),
            Check(at + "warm text is the cold text", "identical" if self.identical else "differs", self.identical),
            *self._same_in_messages(at),
            *self._target(),
            *self._agent_targets(at),
        )

    def _same_in_messages(self, at: str) -> tuple[Check, ...]:
        found = [(trial.messages, trial.prefix.tokens) for trial in self.trials if trial.messages and trial.prefix]
        if not found:
            return ()
        whole = sum(cached == tokens for cached, tokens in found)
        promise = at + "the same request to /v1/messages reuses the whole shared prefix"
        return (Check(promise, f"{whole} of {len(found)}", whole == len(found)),)

    def _agent_targets(self, at: str) -> tuple[Check, ...]:
        if self.prompt.median < AGENT_AT:
            return ()
        pairs = {"warm": self.warm, "restored after kill -9": self.restored}
        ratios = {name: Ratio.of(self.cold, series) for name, series in pairs.items() if series}
        return tuple(
            Check(
                f"{at}{name} at least {AGENT_SOONER:.0f}x sooner than cold",
                str(ratio),
                ratio.median >= AGENT_SOONER,
                target=True,
            )
            for name, ratio in ratios.items()
        )

    def _target(self) -> tuple[Check, ...]:
        first = self.first_warm
        if first is None or self.prompt.median < AT_TOKENS:
            return ()
        ratio = Ratio.of(self.cold, first)
        return (
            Check(
                f"{self.size} tokens: the first warm request at least {SOONER:.0f}x sooner than cold",
                str(ratio),
                ratio.median >= SOONER,
                target=True,
            ),
        )


def at_size(size: int, server: str) -> str:
    """How a promise begins."""
    return f"{size} tokens: " if server == "stoker" else f"{size} tokens and tools: "


def warmth_section(trials: dict[tuple[int, str], list[Trial]]) -> Section:
    """The table."""
    findings = [Findings(size, server, made) for (size, server), made in trials.items()]
    return Section(
        key="warmth",
        title="Time to first token, cold and warm",
        method=METHOD,
        header=HEADER,
        rows=tuple(one.row() for one in findings),
        data={"results": [one.data() for one in findings]},
        checks=tuple(check for one in findings if one.server.startswith("stoker") for check in one.checks()),
    )
