"""Warming without an engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from stoker.worker.errors import InsufficientMemory, InvalidPrompt
from stoker.worker.mlx_engine.alone import NAME, Warmth, settle, warm
from stoker.worker.prefix_cache import PrefixCache
from tests.fakes.first_request import SYSTEM, Server


@pytest.fixture
def server(tiny_loaded: Any) -> Server:
    model, tokenizer = tiny_loaded("llama")
    return Server(model, tokenizer, PrefixCache())


def done(server: Server, system: str = SYSTEM, seconds: float = 60.0) -> Warmth:
    return warm(server.model, server.tokenizer, server.cache, system, lambda: seconds)


def test_the_shared_prefix_is_pinned(server: Server) -> None:
    """All of it is computed, and kept under the name that the daemon uses, too."""
    warmth = done(server)
    (entry,) = server.cache.entries()

    assert warmth.done == warmth.total == entry.tokens == server.shared(SYSTEM)
    assert (entry.name, entry.pinned) == (NAME, True)


def test_no_time_is_no_work(server: Server) -> None:
    """With no time left nothing is computed and nothing kept, but the length is known."""
    assert done(server, seconds=0.0) == Warmth(0, server.shared(SYSTEM))
    assert server.cache.entries() == ()


def test_what_a_conversation_left_is_taken_up(server: Server) -> None:
    """Where another entry covers the prefix, its KV is cut to it and pinned: an unpinned one may be evicted."""
    done(server)
    hit = server.cache.lookup(server.prompt(SYSTEM, "Hi"))
    assert hit is not None
    conversation = server.prompt(SYSTEM, "Hi")[: hit.length]
    server.cache.discard(NAME)
    server.cache.put([*conversation, 300], _extended(server, hit.kv), name="conversation")
    done(server)

    assert server.cache.names() == {"conversation", NAME}
    assert server.answer(SYSTEM, "Why?").tokens == server.cold(SYSTEM, "Why?").tokens


def _extended(server: Server, kv: list[Any]) -> list[Any]:
    """KV with one more token in it."""
    mx.eval(server.model(mx.array([[258]]), cache=kv))
    return kv


def test_another_prompt_takes_the_place_of_the_last(server: Server) -> None:
    """There is one standard prefix: the old one's memory is given back."""
    done(server)
    done(server, "You are somebody else.")

    assert [entry.tokens for entry in server.cache.entries()] == [server.shared("You are somebody else.")]


def test_pinned_entries_of_others_are_respected(server: Server) -> None:
    """Without room beside them it is an error, not an eviction."""
    done(server)
    size = server.cache.statistics().bytes
    cache = PrefixCache(limit_bytes=size)
    full = Server(server.model, server.tokenizer, cache)
    hit = server.cache.lookup(server.prompt(SYSTEM, "Hi"))
    assert hit is not None
    cache.put(server.prompt(SYSTEM, "Hi")[: hit.length - 1], hit.kv, name="other", pinned=True)

    with pytest.raises(InsufficientMemory, match="no room"):
        done(full, "Another one.")
    assert cache.names() == {"other"}


def test_token_ids_that_the_model_lacks_are_refused(server: Server) -> None:
    """A tokenizer of another model is an error; its ids would kill the process."""

    class Foreign:
        has_chat_template = True

        def apply_chat_template(self, messages: Any, **how: Any) -> list[int]:
            return [100_000, *messages[-1]["content"].encode()]

    with pytest.raises(InvalidPrompt, match="100000"):
        warm(server.model, Foreign(), server.cache, SYSTEM, lambda: 60.0)


def test_a_template_without_anything_shared_is_refused(server: Server) -> None:
    """Where chats begin with the user's text there is nothing to warm, and the error says so."""

    class Headless:
        has_chat_template = True

        def apply_chat_template(self, messages: Any, **how: Any) -> list[int]:
            return list(messages[-1]["content"].encode())

    with pytest.raises(InvalidPrompt, match="all chats share"):
        warm(server.model, Headless(), server.cache, SYSTEM, lambda: 60.0)


def test_a_lazily_loaded_model_can_be_used_on_another_thread_once_settled(tiny_llama: Path) -> None:
    """`settle` evaluates everything, tables outside the parameters included."""
    model = mlx_lm.load(str(tiny_llama), lazy=True)[0]
    model.layers[0]._table = mx.arange(3) * 2
    settle(model)
    with ThreadPoolExecutor(max_workers=1) as pool:
        result = pool.submit(lambda: (model.layers[0]._table.tolist(), model(mx.array([[1]])).shape)).result(30)

    assert result == ([0, 2, 4], (1, 1, 261))
