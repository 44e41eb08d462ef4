"""The seed's unit tests: its 23 names (6 + 9 + 3 + 5), each asserting what really happens on a tiny real model.

The report counts ten for `TestWarmupKVCacheFunction`, of which the tenth is a remark that points to the error
handling; its file totals, 23 + 19 + 13 = 55, count nine. All 55 names are in this folder.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stoker.worker.prefix_cache import PrefixCache, cache_key
from stoker.worker.warmup import (
    FALLBACK_PROMPT,
    get_standard_system_prompt,
    warmup_enabled,
    warmup_kv_cache,
    warmup_timeout,
)
from tests.fakes.first_request import SYSTEM, Server, prompt_file
from tests.fakes.slow_model import SlowModel

pytestmark = pytest.mark.anyio

LONG = "Line after line of instructions.\n" * 90
"""3,000 tokens: many chunks."""


class TestGetStandardSystemPrompt:
    """`get_standard_system_prompt(warmup_file)`."""

    def test_loads_from_file(self, tmp_path: Path) -> None:
        """A file's text is returned as it is, spaces and newlines included."""
        text = "  You are a test.\n\n"

        assert get_standard_system_prompt(prompt_file(tmp_path, text)) == text

    def test_returns_fallback_when_file_missing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A missing file is a warning that names it, and the built-in prompt."""
        missing = str(tmp_path / "no-such-file")

        assert get_standard_system_prompt(missing) == FALLBACK_PROMPT
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert missing in caplog.text

    def test_returns_default_when_no_file_specified(self, caplog: pytest.LogCaptureFixture) -> None:
        """Without a file the built-in prompt is returned, which is some sentences long, and nothing is logged."""
        assert get_standard_system_prompt() == get_standard_system_prompt(None) == FALLBACK_PROMPT
        assert len(FALLBACK_PROMPT) > 200
        assert caplog.records == []

    @pytest.mark.parametrize("text", ["", " \n\t\n"])
    def test_handles_empty_file(self, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """An empty file, or one of white space, is a warning and the built-in prompt."""
        assert get_standard_system_prompt(prompt_file(tmp_path, text)) == FALLBACK_PROMPT
        assert "empty" in caplog.text

    @pytest.mark.parametrize(("size", "accepted"), [(100 * 1024, True), (1 << 20, True), ((1 << 20) + 1, False)])
    def test_handles_large_file(self, size: int, accepted: bool, tmp_path: Path) -> None:
        """Files of 100 KB and up to 1 MiB are read whole; one byte more, and the built-in prompt is returned."""
        text = "x" * size

        assert get_standard_system_prompt(prompt_file(tmp_path, text)) == (text if accepted else FALLBACK_PROMPT)

    def test_handles_unicode_content(self, tmp_path: Path) -> None:
        """Any UTF-8 arrives as it was written."""
        text = "Tu es un assistant. 日本語で答えて。 🙂 \u202e"

        assert get_standard_system_prompt(prompt_file(tmp_path, text)) == text


class TestWarmupKVCacheFunction:
    """`warmup_kv_cache(model, tokenizer, cache_manager, timeout_sec, enabled)`."""

    async def test_warmup_returns_bool(self, server: Server) -> None:
        """The answer is a bool, not something that is merely true."""
        results = [
            await warmup_kv_cache(server.model, server.tokenizer, server.cache),
            await warmup_kv_cache(None, None, None),
        ]

        assert [type(result) for result in results] == [bool, bool]

    async def test_warmup_returns_true_on_success(self, server: Server) -> None:
        """True means that the whole prefix that chats share is resident, and stays true when asked again."""
        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache) is True
        assert server.cache.entries()[0].tokens == server.shared(FALLBACK_PROMPT)
        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache) is True

    async def test_warmup_returns_false_on_failure(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """A model that fails in its forward makes it false, with a warning, and nothing is kept."""

        class Broken(SlowModel):
            def __call__(self, *args: Any, **how: Any) -> Any:
                raise RuntimeError("the device is gone")

        with pytest.MonkeyPatch.context() as patch:
            broken = Broken(server.model, 0.0, patch)
            result = await warmup_kv_cache(broken, server.tokenizer, server.cache)

        assert result is False
        assert "the device is gone" in caplog.text
        assert server.cache.entries() == ()

    async def test_warmup_disabled_when_kv_cache_warmup_zero(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With KV_CACHE_WARMUP=0 it is false, and the model isn't asked for anything."""
        monkeypatch.setenv("KV_CACHE_WARMUP", "0")
        slow = SlowModel(server.model, 0.0, monkeypatch)

        assert await warmup_kv_cache(slow, server.tokenizer, server.cache) is False
        assert (slow.forwards, server.cache.entries()) == (0, ())

    async def test_warmup_enabled_by_default(self, server: Server) -> None:
        """Without the variable it is done; `enabled=False` still prevents it."""
        assert warmup_enabled({})
        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache, enabled=False) is False
        assert server.cache.entries() == ()
        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache) is True

    async def test_warmup_respects_timeout_config(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With WARMUP_TIMEOUT_SEC=5 and 2 s for a chunk, the chunks begun at 0, 2 and 4 s are computed and kept."""
        monkeypatch.setenv("WARMUP_TIMEOUT_SEC", "5")
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
        slow = SlowModel(server.model, 2.0, monkeypatch)

        assert await warmup_kv_cache(slow, server.tokenizer, server.cache) is False
        assert slow.forwards == 3
        assert 0 < server.cache.entries()[0].tokens < server.shared(LONG)

    async def test_warmup_populates_cache(self, server: Server) -> None:
        """Afterwards there is one pinned entry, and its KV has the size of the model's for so many tokens."""
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        (entry,) = server.cache.entries()
        per_token = 2 * 2 * 2 * 16 * 4  # layers x (keys, values) x heads x dimension x bytes

        assert entry.pinned
        assert 0 <= entry.bytes - entry.tokens * per_token < 2 * 256 * per_token

    async def test_cache_key_generation_is_consistent(self, server: Server) -> None:
        """The same prompt has the same key however often it is rendered; another system prompt has another."""
        prompts = [server.prompt(system, "Hi") for system in (SYSTEM, SYSTEM, FALLBACK_PROMPT)]
        keys = [cache_key(prompt) for prompt in prompts]

        assert keys[0] == keys[1] != keys[2]

    async def test_warmup_with_custom_system_file(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """WARMUP_SYSTEM_FILE's prompt is the one that a chat with it finds warm, whole; the built-in one isn't."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path))

        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        assert server.answer(SYSTEM, "What is it?").cached == server.shared(SYSTEM)
        assert server.answer(FALLBACK_PROMPT, "What is it?").cached < 40


class TestWarmupTimeout:
    """How long it is tried."""

    async def test_warmup_timeout_default_is_60_seconds(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The signature says 60, and chunks of 20 s begin at 0, 20 and 40 s but not at 60."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
        slow = SlowModel(server.model, 20.0, monkeypatch)
        await warmup_kv_cache(slow, server.tokenizer, server.cache)

        assert inspect.signature(warmup_kv_cache).parameters["timeout_sec"].default == 60.0
        assert warmup_timeout({}) == 60.0
        assert slow.forwards == 3

    @pytest.mark.parametrize(("limit", "forwards"), [(0.5, 1), (1.0, 1), (1.5, 2), (4.0, 4)])
    async def test_warmup_respects_custom_timeout(
        self, limit: float, forwards: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No chunk begins after the time given; the one under way is finished."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
        slow = SlowModel(server.model, 1.0, monkeypatch)

        assert await warmup_kv_cache(slow, server.tokenizer, server.cache, timeout_sec=limit) is False
        assert slow.forwards == forwards

    async def test_timeout_environment_variable_overrides_default(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """WARMUP_TIMEOUT_SEC replaces the default, but not a time that was given, be it 60 like the default."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
        monkeypatch.setenv("WARMUP_TIMEOUT_SEC", "40")
        by_default = SlowModel(server.model, 20.0, monkeypatch)
        await warmup_kv_cache(by_default, server.tokenizer, PrefixCache())
        given = SlowModel(server.model, 20.0, monkeypatch)
        await warmup_kv_cache(given, server.tokenizer, PrefixCache(), timeout_sec=60.0)

        assert (by_default.forwards, given.forwards) == (2, 3)


class TestWarmupErrorHandling:
    """Whatever is wrong, the answer is false."""

    async def test_warmup_handles_missing_cache_manager(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Without a cache it is false, and the log says what was missing."""
        assert await warmup_kv_cache(server.model, server.tokenizer, None) is False
        assert "cache_manager is None" in caplog.text

    async def test_warmup_handles_missing_model(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """Without a model it is false, and the log says what was missing."""
        assert await warmup_kv_cache(None, server.tokenizer, server.cache) is False
        assert "model is None" in caplog.text

    async def test_warmup_handles_missing_tokenizer(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """Without a tokenizer it is false, and the log says what was missing."""
        assert await warmup_kv_cache(server.model, None, server.cache) is False
        assert "tokenizer is None" in caplog.text

    async def test_warmup_handles_tokenizer_encoding_error(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A tokenizer that raises makes it false; its words, which may quote the prompt, aren't logged."""

        class Broken:
            has_chat_template = True

            def apply_chat_template(self, messages: Any, **how: Any) -> list[int]:
                raise ValueError(f"can't encode {messages}")

        assert await warmup_kv_cache(server.model, Broken(), server.cache) is False
        assert "InvalidPrompt because of ValueError" in caplog.text
        assert FALLBACK_PROMPT[:20] not in caplog.text

    async def test_warmup_handles_cache_write_error(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """A cache that raises when it is written to, or has no room, makes it false; the model serves on."""

        class Broken(PrefixCache):
            def put(self, tokens: Sequence[int], kv: list[Any], **how: Any) -> bool:
                raise OSError("no space")

        assert await warmup_kv_cache(server.model, server.tokenizer, Broken()) is False
        assert "no space" in caplog.text
        assert await warmup_kv_cache(server.model, server.tokenizer, PrefixCache(limit_bytes=1000)) is False
        assert server.answer(SYSTEM, "Still there?").tokens
