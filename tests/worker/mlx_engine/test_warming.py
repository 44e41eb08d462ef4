"""Making prefixes resident."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.ipc.messages import ChatPrompt, Generate, Warm, Warmed, WarmPrefix
from stoker.worker.mlx_engine.prefill import Prefill
from stoker.worker.prefix import SharedPrefix, chat_prefix
from tests.fakes.driven_core import DrivenCore, ask, chat
from tests.fakes.tiny_models import CONTEXT, Kind

SYSTEM = "You tend the fire, read before you write, and never guess. " * 6
TOOLS = ({"name": "poke", "parameters": {"type": "object"}},)
CHUNKED = {"chunk_seconds": 1e-9}
"""A budget that makes chunks as small as they get."""

Kinds = Callable[[Kind], Path]
each_kind = pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])


def prefix(system: str = SYSTEM, name: str = "main", **more: Any) -> WarmPrefix:
    return WarmPrefix(name=name, system=system, **more)


@each_kind
@pytest.mark.parametrize("user", ["hello", "\n\nodd", ""])
def test_warm_chat_equals_cold_chat(tiny_model: Kinds, kind: Kind, user: str) -> None:
    """After a warmup, a chat with any user text computes only the rest, and its answer is the cold one's."""
    cold = DrivenCore(tiny_model(kind)).generate(chat(SYSTEM, user, 20))
    core = DrivenCore(tiny_model(kind))
    warmed = core.warm(prefix())
    warm = core.generate(chat(SYSTEM, user, 20))

    assert (warmed.outcome, warmed.reason) == ("succeeded", None)
    assert warm.finished.usage.cached_tokens == warmed.prefixes[0].tokens > len(SYSTEM)
    assert cold.finished.usage.cached_tokens == 0
    assert (warm.tokens, warm.text) == (cold.tokens, cold.text)


@pytest.mark.parametrize(("kind", "exact"), [("llama", False), ("hybrid", True)])
def test_prefix_fits_the_cache(tiny_model: Kinds, kind: Kind, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KV that can't be cut gets a prefix that any user text leaves whole."""
    asked: list[bool] = []

    def shared(*begin: Any, exact: bool) -> SharedPrefix:
        asked.append(exact)
        return chat_prefix(*begin, exact=exact)

    monkeypatch.setattr("stoker.worker.mlx_engine.planning.chat_prefix", shared)
    DrivenCore(tiny_model(kind)).warm(prefix())

    assert asked == [exact]


def test_template_with_a_date_gets_a_note(tiny_llama: Path) -> None:
    """Where the template writes the date into the prompt, the report says for how long the prefix is warm."""
    core = DrivenCore(tiny_llama)
    tokenizer = core.scheduler.loaded.tokenizer._tokenizer
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y') }}" + tokenizer.chat_template

    assert "midnight" in str(core.warm(prefix()).prefixes[0].note)


def test_tools_are_part_of_the_prefix(tiny_llama: Path) -> None:
    """A prefix with tools is what chats with these tools share, and no other."""
    core = DrivenCore(tiny_llama)
    with_tools = core.warm(prefix(tools=TOOLS)).prefixes[0].tokens
    messages = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello"})
    same = core.generate(Generate(prompt=ChatPrompt(messages=messages, tools=TOOLS), max_tokens=1))
    other = core.generate(chat(SYSTEM, "hello", 1))

    assert same.finished.usage.cached_tokens == with_tools
    assert other.finished.usage.cached_tokens < len(SYSTEM) + 30 < with_tools


def test_prefixes_are_pinned_under_their_names(tiny_llama: Path) -> None:
    """Each prefix is kept, pinned, under its name, and reported in order."""
    core = DrivenCore(tiny_llama)
    warmed = core.warm(prefix(name="one"), prefix(SYSTEM[30:], name="two"))
    entries = {entry.name: entry for entry in core.scheduler.cache.entries()}

    assert [report.name for report in warmed.prefixes] == ["one", "two"]
    assert all(entries[report.name].pinned for report in warmed.prefixes)
    assert [entries[report.name].tokens for report in warmed.prefixes] == [r.tokens_warm for r in warmed.prefixes]


@each_kind
def test_what_is_warm_is_not_computed_again(tiny_model: Kinds, kind: Kind) -> None:
    """A second warmup of the same prefix finds it resident."""
    core = DrivenCore(tiny_model(kind))
    first, second = core.warm(prefix()), core.warm(prefix())

    assert (first.prefixes[0].source, second.prefixes[0].source) == ("prefilled", "resident")
    assert second.prefixes[0].tokens_warm == second.prefixes[0].tokens


def test_prefix_is_cut_out_of_a_conversation(tiny_llama: Path) -> None:
    """A prefix that a conversation in the cache begins with is pinned without computing it."""
    core = DrivenCore(tiny_llama)
    cold = core.generate(chat(SYSTEM, "hello", 20))
    warmed = core.warm(prefix())
    core.scheduler.cache.evict(1 << 40)

    assert warmed.prefixes[0].source == "resident"
    assert core.generate(chat(SYSTEM, "hello", 20)).tokens == cold.tokens


def test_progress_tells_name_and_tokens(tiny_llama: Path) -> None:
    """Progress begins with what is cached, comes with each chunk, and ends at the whole."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    request = core.submit(Warm(prefixes=(prefix(),)))
    answer = core.finish(request)
    total = answer.result.prefixes[0].tokens
    news = [(news.stage, news.name, news.total, news.cached) for news in answer.progress]
    done = [news.done for news in answer.progress]

    assert set(news) == {("warm", "main", total, 0)}
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, total)
    assert len(done) > 5


@each_kind
def test_cancelled_warmup_keeps_what_it_computed(tiny_model: Kinds, kind: Kind) -> None:
    """A cancel takes effect after the chunk under way; the part is reported, used by requests, and gone on from."""
    cold = DrivenCore(tiny_model(kind)).generate(chat(SYSTEM, "hello", 12))
    core = DrivenCore(tiny_model(kind), **CHUNKED)
    request = core.submit(Warm(prefixes=(prefix(), prefix("another " * 30, name="later"))))
    core.turn_until(lambda: any(news.done > 100 for news in core.answer(request).progress))
    reached = core.answer(request).progress[-1].done
    core.core.cancel(request)
    warmed = core.answer(request).result
    assert isinstance(warmed, Warmed)
    part, later = warmed.prefixes

    assert (warmed.outcome, warmed.reason) == ("abandoned", "cancelled")
    assert (part.tokens_warm, part.source) == (reached, "prefilled")
    assert part.tokens_warm < part.tokens
    assert (later.tokens_warm, later.source) == (0, "none") or kind == "llama"
    warm = core.generate(chat(SYSTEM, "hello", 12))
    assert warm.finished.usage.cached_tokens == reached
    assert warm.tokens == cold.tokens


def test_next_warmup_goes_on_from_the_part(tiny_hybrid: Path) -> None:
    """After an abandoned warmup, the next one computes only what is missing."""
    core = DrivenCore(tiny_hybrid, **CHUNKED)
    request = core.submit(Warm(prefixes=(prefix(),)))
    core.turn_until(lambda: any(news.done > 100 for news in core.answer(request).progress))
    core.core.cancel(request)
    again = core.finish(core.submit(Warm(prefixes=(prefix(),))))

    assert again.progress[0].done == again.progress[0].cached == core.answer(request).progress[-1].done
    assert again.result.prefixes[0].tokens_warm == again.result.prefixes[0].tokens


def test_text_comes_from_the_file_or_the_fallback(tiny_llama: Path, tmp_path: Path) -> None:
    """Without a text, the prefix is the file's, and where there is none the built-in one."""
    file = tmp_path / "prompt.txt"
    file.write_text(SYSTEM)
    core = DrivenCore(tiny_llama)
    read, fallback = core.warm(
        WarmPrefix(name="file", file=str(file)), WarmPrefix(name="none", file=str(tmp_path / "none"))
    ).prefixes

    assert core.generate(chat(SYSTEM, "hello", 1)).finished.usage.cached_tokens == read.tokens
    assert fallback.tokens_warm == fallback.tokens > 100


def test_prefix_that_cannot_be_kept_fails_alone(tiny_llama: Path) -> None:
    """A prefix that the cache, the context or the template refuses is reported with the reason; others are warm."""
    core = DrivenCore(tiny_llama, prefix_cache_bytes=600_000)
    warmed = core.warm(
        prefix("x" * (CONTEXT + 1), name="long"),
        prefix("x" * 4000, name="big"),
        prefix(template_args={"tokenize": 1}, name="bad"),
        prefix("short", name="good"),
    )
    long, big, bad, good = warmed.prefixes

    assert warmed.outcome == "failed"
    assert "context takes" in str(long.note)
    assert "prefix_cache_bytes" in str(big.note)
    assert "tokenize" in str(bad.note)
    assert (good.tokens_warm, good.note) == (good.tokens, None)
    assert warmed.reason == long.note


def test_second_prefix_that_finds_no_room(tiny_llama: Path) -> None:
    """Where pinned prefixes fill the cache, a further one fails and evicts none of them."""
    core = DrivenCore(tiny_llama, prefix_cache_bytes=300_000)
    warmed = core.warm(prefix("x" * 300, name="one"), prefix("y" * 300, name="two"))

    assert "no room" in str(warmed.prefixes[1].note)
    assert core.scheduler.cache.names() == {"one"}


def test_engine_failure_in_a_warmup_is_reported(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of the model while warming is that prefix's failure, and the worker serves on."""
    core = DrivenCore(tiny_llama)

    class Broken(Prefill):
        def step(self, upto: int | None = None) -> Any:
            raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr("stoker.worker.mlx_engine.warming.Prefill", Broken)
        warmed = core.warm(prefix())

    assert (warmed.outcome, warmed.prefixes[0].source) == ("failed", "none")
    assert "device lost" in str(warmed.prefixes[0].note)
    assert core.generate(ask("ok", 2)).finished.usage.completion_tokens == 2


def test_nothing_to_warm_is_done_at_once(tiny_llama: Path) -> None:
    """A warmup of no prefixes succeeds."""
    warmed = DrivenCore(tiny_llama).warm()

    assert (warmed.outcome, warmed.prefixes) == ("succeeded", ())


def test_progress_is_addressed_to_the_warmup(tiny_llama: Path) -> None:
    """Progress of two warmups carries the id of each."""
    core = DrivenCore(tiny_llama)
    first = core.submit(Warm(prefixes=(prefix("one " * 20, name="one"),)))
    second = core.submit(Warm(prefixes=(prefix("two " * 20, name="two"),)))
    core.finish(second)

    def names(request: int) -> set[str | None]:
        return {news.name for news in core.answer(request).progress}

    assert (names(first), names(second)) == ({"one"}, {"two"})


def test_a_strict_file_fails_alone(tiny_llama: Path, tmp_path: Path) -> None:
    """Where a prompt of the configuration has lost its file, no other prompt takes its place, and others are warm."""
    missing = WarmPrefix(name="agent", file=str(tmp_path / "missing.md"), strict=True)
    warmed = DrivenCore(tiny_llama).warm(missing, prefix())

    assert warmed.outcome == "failed"
    assert "missing.md can't be used: No such file" in str(warmed.reason)
    assert [(one.name, one.tokens_warm > 0) for one in warmed.prefixes] == [("agent", False), ("main", True)]
