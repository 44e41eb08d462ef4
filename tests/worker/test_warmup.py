"""Warmup by hand: the prompt, the limits, what is left when it is cut short. The seed's tests are in tests/seed."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker.worker.prefix_cache import PrefixCache
from stoker.worker.warmup import FALLBACK_PROMPT, get_standard_system_prompt, warmup_enabled, warmup_kv_cache
from tests.fakes.first_request import SYSTEM, Server, prompt_file
from tests.fakes.slow_model import SlowModel
from tests.fakes.tiny_models import Kind

pytestmark = pytest.mark.anyio

SECRET = "The launch code is 0000."
LONG = f"{SECRET}\n" * 30
"""750 tokens: more than three chunks, which are 448 at most."""


@pytest.fixture
def server(tiny_loaded: Any) -> Server:
    model, tokenizer = tiny_loaded("llama")
    return Server(model, tokenizer, PrefixCache())


class TestPromptFile:
    """What may be given as the prompt's file."""

    def make(self, kind: str, folder: Path) -> Path:
        path = folder / "prompt"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "dangling link":
            path.symlink_to(folder / "nowhere")
        elif kind == "not UTF-8":
            path.write_bytes(SECRET.encode() + b"\xff\xfe")
        else:
            path.write_text(SECRET)
            path.chmod(0)
        return path

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("pipe", "not a regular file"),
            ("directory", "Is a directory"),
            ("dangling link", "No such file"),
            ("not UTF-8", "byte 24 is not UTF-8"),
            ("unreadable", "Permission denied"),
        ],
    )
    def test_others_are_a_warning(
        self, kind: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What is no readable text file is named in a warning, never waited for, and its text is not logged."""
        if kind == "unreadable" and os.geteuid() == 0:
            pytest.skip("root reads everything")

        assert get_standard_system_prompt(str(self.make(kind, tmp_path))) == FALLBACK_PROMPT
        assert words in caplog.text
        assert SECRET not in caplog.text

    def test_impossible_paths_are_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        """A path that no file can have doesn't raise either."""
        assert get_standard_system_prompt("a\0b") == FALLBACK_PROMPT
        assert get_standard_system_prompt("x" * 5000) == FALLBACK_PROMPT
        assert len(caplog.records) == 2

    def test_an_editors_byte_order_mark_is_dropped(self, tmp_path: Path) -> None:
        """The mark that some editors write isn't part of the prompt that clients send."""
        path = tmp_path / "prompt"
        path.write_bytes(b"\xef\xbb\xbfHello")

        assert get_standard_system_prompt(str(path)) == "Hello"

    def test_a_link_to_a_file_is_followed(self, tmp_path: Path) -> None:
        """Configuration is often linked from elsewhere."""
        link = tmp_path / "link"
        link.symlink_to(prompt_file(tmp_path))

        assert get_standard_system_prompt(str(link)) == SYSTEM


class TestVariables:
    """What the environment may say."""

    @pytest.mark.parametrize("value", ["0", "false", "No", "OFF", " 0 "])
    def test_warmup_can_be_turned_off_in_words(self, value: str) -> None:
        """The words for no that the daemon knows are known here."""
        assert not warmup_enabled({"KV_CACHE_WARMUP": value})

    def test_nonsense_leaves_warmup_on(self, caplog: pytest.LogCaptureFixture) -> None:
        """Anything else is a warning, and on."""
        assert warmup_enabled({"KV_CACHE_WARMUP": "maybe"})
        assert "maybe" in caplog.text

    @pytest.mark.parametrize("given", [0, -1.0, float("nan"), float("inf"), None, "soon", 10**400])
    async def test_an_impossible_time_given_is_60_seconds(
        self,
        given: Any,
        server: Server,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nothing that is passed as a time raises; it is a warning, and warmup is done."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path))
        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache, timeout_sec=given)
        assert "60 is taken" in caplog.text


async def test_the_prompt_is_never_logged(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not when it is warmed, not when time is up, not when the tokenizer's error quotes it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
    await warmup_kv_cache(server.model, server.tokenizer, server.cache)
    await warmup_kv_cache(server.model, server.tokenizer, PrefixCache(), timeout_sec=1e-9)
    monkeypatch.setattr(
        type(server.tokenizer._tokenizer), "apply_chat_template", lambda _, messages, **__: 1 / len(messages[9])
    )
    await warmup_kv_cache(server.model, server.tokenizer, PrefixCache())

    assert len(caplog.records) >= 3
    assert SECRET not in caplog.text


@pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
async def test_what_was_computed_before_the_time_was_up_is_used(
    kind: Kind, tiny_loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three chunks the next request starts where they ended, answers as cold, and warmup goes on from there."""
    model, tokenizer = tiny_loaded(kind)
    server = Server(model, tokenizer, PrefixCache())
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
    slow = SlowModel(server.model, 1.0, monkeypatch)
    stopped = await warmup_kv_cache(slow, server.tokenizer, server.cache, timeout_sec=3.0)
    computed = server.cache.entries()[0].tokens
    answer = server.answer(LONG, "Hi")
    rest = SlowModel(server.model, 0.0, monkeypatch)
    finished = await warmup_kv_cache(rest, server.tokenizer, server.cache)

    assert (stopped, slow.forwards) == (False, 3)
    assert answer.cached == computed > 100
    assert answer.tokens == server.cold(LONG, "Hi").tokens
    assert finished
    assert [entry.tokens for entry in server.cache.entries()] == [server.shared(LONG)]
    assert server.answer(LONG, "Hi").tokens == answer.tokens


class Gate(SlowModel):
    """Announces its second forward, and waits there until it may go on."""

    def __init__(self, model: Any, patch: pytest.MonkeyPatch) -> None:
        super().__init__(model, 0.0, patch)
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **how: Any) -> Any:
        if self.forwards == 1:
            self.reached.set()
            assert self.open.wait(30)
        return super().__call__(*args, **how)


async def test_the_event_loop_goes_on_meanwhile(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a chunk computes, other tasks run."""
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
    gate = Gate(server.model, monkeypatch)
    ran = []

    async def another() -> None:
        await anyio.to_thread.run_sync(gate.reached.wait)
        ran.append("while a forward was under way")
        gate.open.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(another)
        assert await warmup_kv_cache(gate, server.tokenizer, server.cache)

    assert ran


@pytest.mark.parametrize("how", ["anyio", "asyncio"])
async def test_cancellation_keeps_what_was_computed(
    how: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled within the second chunk it ends after that one, raises, and both chunks are in the cache."""
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
    gate = Gate(server.model, monkeypatch)
    warming = warmup_kv_cache(gate, server.tokenizer, server.cache)
    if how == "anyio":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: warming)
            await anyio.to_thread.run_sync(gate.reached.wait)
            tasks.cancel_scope.cancel()
            gate.open.set()
    else:
        task = asyncio.ensure_future(warming)
        await anyio.to_thread.run_sync(gate.reached.wait)
        task.cancel()
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert gate.forwards == 2
    assert 0 < server.cache.entries()[0].tokens < server.shared(LONG)


async def test_a_cache_too_small_is_noticed_after_the_first_chunk(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The work isn't done where its result can't be kept; the log says how much would be needed."""
    monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
    slow = SlowModel(server.model, 0.0, monkeypatch)

    assert not await warmup_kv_cache(slow, server.tokenizer, PrefixCache(limit_bytes=200_000))
    assert slow.forwards == 1
    assert "takes 200000" in caplog.text


def test_the_fallback_says_what_an_assistant_needs() -> None:
    """The built-in prompt is plain text without anybody's name or date, which would age."""
    assert FALLBACK_PROMPT.isascii()
    assert not any(character.isdigit() for character in FALLBACK_PROMPT)
