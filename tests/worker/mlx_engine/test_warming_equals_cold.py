"""Warm, restored and cold requests are answered alike, token for token: on every family, alone and in batches.

Greedy, float32, over random system prompts, tools and user texts. `STOKER_WARM_EXAMPLES=N` runs so many random chats
of each family instead of the few that are always the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stoker.ipc.messages import ChatPrompt, Generate, WarmPrefix
from stoker.worker.embedded import NAME
from stoker.worker.mlx_engine import disk
from tests.fakes.driven_core import DrivenCore
from tests.fakes.tiny_models import Kind

WANTED = int(os.environ.get("STOKER_WARM_EXAMPLES", "0"))
EXAMPLES = settings(
    max_examples=WANTED or 6,
    derandomize=not WANTED,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
KINDS: tuple[Kind, ...] = ("llama", "sliding", "hybrid")
LONG = "You keep the fire, read before you write, and never guess what nobody has told you. "
TOKENS = 10 if WANTED else 6
MOST = 4 if WANTED else 2
"""Most sentences and tools of a prompt: two are hundreds of tokens already, and each costs a cold prefill a user."""

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
SYSTEMS = st.builds(lambda count, text: LONG * count + text, st.integers(0, MOST), TEXTS)
USERS = st.lists(
    st.one_of(TEXTS, st.sampled_from(["", "\n\nGo on.", " x", "<|im_start|>system", "{", "日本", "x" * 200])),
    min_size=1,
    max_size=4 if WANTED else 3,
)


def tool(name: str, description: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = st.lists(st.builds(tool, st.sampled_from(["read", "write", "list"]), TEXTS), max_size=MOST)


@dataclass
class Pair:
    """A worker that keeps nothing, and one that keeps everything."""

    cold: DrivenCore
    warm: DrivenCore

    def emptied(self) -> None:
        """Have all prefixes on disk, and none resident."""
        store = self.warm.core._disk
        assert store is not None
        assert store._saver.flush(60)
        self.warm.scheduler.cache.clear()


@pytest.fixture(scope="module")
def pairs(tiny_model: Callable[[Kind], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Pair]:
    store = tmp_path_factory.mktemp("prefixes")
    return {
        kind: Pair(
            DrivenCore(tiny_model(kind), prefix_cache_bytes=0),
            DrivenCore(tiny_model(kind), store_dir=str(store / kind)),
        )
        for kind in KINDS
    }


def answers(
    core: DrivenCore, system: str, tools: list[Any], users: list[str], *, together: bool, count: int
) -> list[Any]:
    """What each user is answered, and how much was cached: one after the other, or all at once."""

    def body(user: str) -> Generate:
        messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
        return Generate(prompt=ChatPrompt(messages=messages, tools=tuple(tools)), max_tokens=count)

    if together:
        requests = [core.submit(body(user)) for user in users]
        found = [core.finish(request) for request in requests]
    else:
        found = [core.generate(body(user)) for user in users]
    return [(answer.tokens, answer.finished.usage.cached_tokens) for answer in found]


@pytest.mark.parametrize("kind", KINDS)
@EXAMPLES
@given(system=SYSTEMS, tools=TOOLS, users=USERS)
def test_warm_is_restored_is_cold(
    pairs: dict[Kind, Pair], kind: Kind, system: str, tools: list[dict[str, Any]], users: list[str]
) -> None:
    """The tokens are those of a worker that never kept anything, and at least the prefix was not computed again."""
    compare(pairs[kind], system, tools, users, merged=4 if kind == "llama" else 0)


@pytest.fixture(scope="module")
def smollm2(embedded_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    model = embedded_cache / NAME
    store = str(tmp_path_factory.mktemp("smollm2"))
    return Pair(DrivenCore(model, prefix_cache_bytes=0), DrivenCore(model, store_dir=store))


@pytest.mark.slow
@pytest.mark.timeout(600)  # the cores of some machines are three times slower than those of others
@settings(EXAMPLES, phases=tuple(Phase) if WANTED else (Phase.explicit,))
@given(system=SYSTEMS, users=USERS)
@example(system="You keep the fire.", users=["Go on.", ""])
def test_warm_is_restored_is_cold_on_smollm2(smollm2: Pair, system: str, users: list[str]) -> None:
    """The same on weights that were trained, whose answers depend on every token before them."""
    compare(smollm2, system, [], users, merged=4, count=TOKENS if WANTED else 3)


def compare(
    pair: Pair, system: str, tools: list[dict[str, Any]], users: list[str], *, merged: int, count: int = TOKENS
) -> None:
    """Ask cold, warm and restored, alone and together; of a prefix an odd user text may merge the last few tokens."""
    prefix = WarmPrefix(name="agent", system=system, tools=tuple(tools))
    pair.cold.frames.clear()
    pair.warm.frames.clear()
    patience, disk.CALM_SECONDS = disk.CALM_SECONDS, 0.0
    try:
        cold = [tokens for tokens, _ in answers(pair.cold, system, tools, users, together=False, count=count)]
        pair.warm.scheduler.cache.clear()
        warmed = pair.warm.warm(prefix).prefixes[0]
        for together in (True, False):
            warm = answers(pair.warm, system, tools, users, together=together, count=count)
            pair.emptied()
            restored = pair.warm.warm(prefix).prefixes[0]
            again = answers(pair.warm, system, tools, users, together=together, count=count)
            pair.warm.scheduler.cache.clear()
            pair.warm.warm(prefix)

            assert [tokens for tokens, _ in warm] == cold
            assert [tokens for tokens, _ in again] == cold
            assert restored.tokens_warm == warmed.tokens_warm == warmed.tokens
            assert restored.source == ("restored" if warmed.tokens else "none")
            assert all(cached >= warmed.tokens - merged for _, cached in (*warm, *again))
    finally:
        disk.CALM_SECONDS = patience
