"""The seed's integration tests: its 19 names (4 + 3 + 3 + 4 + 3 + 2); the server is the real daemon, as processes.

The report's headings count three for two classes that it then lists with four; its total is right.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from stoker.daemon.config import load_settings
from stoker.ipc.control_messages import Readiness
from stoker.worker.prefix_cache import PrefixCache, cache_key
from stoker.worker.warmup import (
    FALLBACK_PROMPT,
    get_standard_system_prompt,
    warmup_enabled,
    warmup_kv_cache,
    warmup_timeout,
)
from tests.fakes.first_request import SYSTEM, Server, prompt_file
from tests.fakes.running_daemon import RunningDaemon, out_of_time
from tests.fakes.slow_model import SlowModel
from tests.fakes.tiny_models import Kind

pytestmark = pytest.mark.anyio

LONG = "Line after line of instructions.\n" * 90
"""3,000 tokens: many chunks."""
VERY_LONG = "Line after line of instructions.\n" * 240
"""7,900 tokens: seconds of prefill."""


async def first_request(url: str, system: str | None) -> dict[str, int]:
    """A chat's usage: prompt and cached tokens."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "Hello?"})
    body = {"model": "default", "messages": messages, "max_tokens": 4}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        usage = (await response.json())["usage"]
    return {"prompt": usage["prompt_tokens"], "cached": usage["prompt_tokens_details"]["cached_tokens"]}


async def until_ready(daemon: RunningDaemon) -> list[Readiness]:
    """Every snapshot from the client's first to ready."""
    seen: list[Readiness] = []
    async with daemon.control() as control, contextlib.aclosing(control.watch()) as snapshots:
        async for readiness in snapshots:
            seen.append(readiness)
            assert readiness.phase != "failed", readiness.reason
            if readiness.ready:
                return seen
    raise AssertionError(f"the daemon left after {seen}")


@pytest.mark.slow
class TestCacheWarmupServerStartup:
    """Warmup while the server starts."""

    async def test_server_warmup_disabled_skips_warmup(self, tiny_llama: Path) -> None:
        """With KV_CACHE_WARMUP=0 the server is ready and cold, says `disabled`, and never was warming."""
        async with RunningDaemon(tiny_llama, {"KV_CACHE_WARMUP": "0"}) as daemon:
            seen = await until_ready(daemon)
            usage = await first_request((await daemon.status()).http, FALLBACK_PROMPT)
        ready = seen[-1]

        assert (ready.warm, ready.reason, ready.warmup.outcome) == (False, "disabled", "disabled")
        assert "warming" not in {readiness.phase for readiness in seen}
        assert usage["cached"] == 0

    async def test_server_warmup_enabled_by_default(self, tiny_llama: Path) -> None:
        """Without any configuration the built-in prompt is warm when the server is ready, to its last token."""
        async with RunningDaemon(tiny_llama) as daemon:
            ready = await daemon.ready()
            usage = await first_request((await daemon.status()).http, FALLBACK_PROMPT)
        (prefix,) = ready.warmup.prefixes

        assert (ready.warm, ready.warmup.outcome) == (True, "succeeded")
        assert usage["cached"] == prefix.tokens == prefix.tokens_warm > len(FALLBACK_PROMPT)

    async def test_server_starts_even_if_warmup_fails(self, tiny_llama: Path, tmp_path: Path) -> None:
        """Where the model's template refuses system prompts the server is ready, cold, and serves other prompts."""
        model = shutil.copytree(tiny_llama, tmp_path / "no-system")
        config = json.loads((model / "tokenizer_config.json").read_text())
        refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        config["chat_template"] = refusal + config["chat_template"]
        (model / "tokenizer_config.json").write_text(json.dumps(config))
        async with RunningDaemon(model) as daemon:
            ready = await daemon.ready()
            usage = await first_request((await daemon.status()).http, None)

        assert (ready.ready, ready.warm, ready.warmup.outcome) == (True, False, "failed")
        assert usage["prompt"] > 0

    async def test_warmup_runs_between_model_load_and_server_start(self, tiny_llama: Path) -> None:
        """Ready is said once, after warmup: the phases are starting, loading, warming, ready, in this order."""
        async with RunningDaemon(tiny_llama) as daemon:
            seen = await until_ready(daemon)
        phases = list(dict.fromkeys(readiness.phase for readiness in seen))
        order = ["down", "starting", "loading", "warming", "ready"]

        assert phases == [phase for phase in order if phase in phases]
        assert phases[-2:] == ["warming", "ready"]
        assert [readiness.ready for readiness in seen] == [False] * (len(seen) - 1) + [True]


class TestFirstRequestCacheHit:
    """The first request after warmup."""

    async def test_cache_populated_after_warmup(self, server: Server) -> None:
        """Before there is nothing, after there is one entry, as long as what chats share."""
        before = server.cache.entries()
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)

        assert before == ()
        assert [entry.tokens for entry in server.cache.entries()] == [server.shared(FALLBACK_PROMPT)]

    @pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])
    async def test_cache_hit_on_matching_prompt(
        self, kind: Kind, tiny_loaded: Callable[[Kind], tuple[Any, Any]]
    ) -> None:
        """The first chat with the warm prompt computes only what is its own, and answers as a cold one does."""
        server = Server(*tiny_loaded(kind), PrefixCache())
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        warm = server.answer(FALLBACK_PROMPT, "What is a stoker?")
        cold = server.cold(FALLBACK_PROMPT, "What is a stoker?")

        assert warm.cached == server.shared(FALLBACK_PROMPT) > 1000
        assert warm.computed < 60
        assert warm.tokens == cold.tokens
        assert server.answer("Other words.", "What is a stoker?").tokens != cold.tokens

    async def test_cache_statistics_show_entries_after_warmup(self, server: Server) -> None:
        """Entries, pins and bytes are counted at once; a hit and a miss when they happen."""
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        warmed = server.cache.statistics()
        server.answer(FALLBACK_PROMPT, "Hi")
        server.answer("Something else entirely.", "Hi")
        used = server.cache.statistics()

        assert (warmed.entries, warmed.pinned, warmed.hits, warmed.misses) == (1, 1, 0, 0)
        assert warmed.bytes == sum(entry.bytes for entry in server.cache.entries()) > 0
        assert (used.hits, used.misses) == (1, 1)


class TestWarmupTimeout:
    """Warmup that takes too long."""

    async def test_warmup_timeout_is_respected(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On the real clock, a prompt of seconds with 0.2 s allowed: false, within the time of a chunk more."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, VERY_LONG))
        start = time.monotonic()
        result = await warmup_kv_cache(server.model, server.tokenizer, server.cache, timeout_sec=0.2)
        elapsed = time.monotonic() - start

        assert result is False
        assert elapsed < 0.2 + 2.0  # a chunk gets 0.2 s at most; the rest is for a busy machine

    async def test_warmup_timeout_configurable_via_env(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """WARMUP_TIMEOUT_SEC decides how many chunks are computed; nonsense in it counts as 60."""
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, LONG))
        forwards = []
        for value in ("10", "30", "-1"):
            monkeypatch.setenv("WARMUP_TIMEOUT_SEC", value)
            slow = SlowModel(server.model, 10.0, monkeypatch)
            await warmup_kv_cache(slow, server.tokenizer, PrefixCache())
            forwards.append(slow.forwards)

        assert forwards == [1, 3, 6]

    @pytest.mark.slow
    async def test_server_continues_if_warmup_times_out(self, tiny_llama: Path, tmp_path: Path) -> None:
        """The server is ready and cold, says `timeout`, and the first request uses what was computed by then."""
        environ = {
            "WARMUP_TIMEOUT_SEC": "0.2",
            "WARMUP_SYSTEM_FILE": prompt_file(tmp_path, VERY_LONG),
            "STOKER_CHUNK_SECONDS": "0.05",
        }
        async with out_of_time(tiny_llama, environ) as (daemon, ready):
            usage = await first_request((await daemon.status()).http, VERY_LONG)

        assert (ready.ready, ready.warm, ready.reason) == (True, False, "timeout")
        assert 0 < usage["cached"] < usage["prompt"] - 100


class TestWarmupConfiguration:
    """The three variables; daemon and worker read them alike."""

    def test_kv_cache_warmup_enabled_default(self) -> None:
        """Without the variable, empty, or 1: warmup is on."""
        environments: list[dict[str, str]] = [{}, {"KV_CACHE_WARMUP": ""}, {"KV_CACHE_WARMUP": "1"}]

        assert all(warmup_enabled(environ) for environ in environments)
        assert all(load_settings({}, environ)[0].kv_cache_warmup for environ in environments)

    async def test_kv_cache_warmup_disabled_via_env(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """0 turns it off, in the daemon's settings and in the function, even with `enabled=True`."""
        monkeypatch.setenv("KV_CACHE_WARMUP", "0")

        assert not load_settings({}, {"KV_CACHE_WARMUP": "0"})[0].kv_cache_warmup
        assert not await warmup_kv_cache(server.model, server.tokenizer, server.cache, enabled=True)
        assert server.cache.entries() == ()

    async def test_warmup_system_file_env_var(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file's prompt is warmed; where the file is gone, the built-in one."""
        path = prompt_file(tmp_path)
        monkeypatch.setenv("WARMUP_SYSTEM_FILE", path)
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        warm_file = server.answer(SYSTEM, "Hi").cached
        await anyio.Path(path).unlink()
        await warmup_kv_cache(server.model, server.tokenizer, server.cache)

        assert load_settings({}, {"WARMUP_SYSTEM_FILE": path})[0].warmup_system_file == Path(path)
        assert warm_file == server.shared(SYSTEM)
        assert get_standard_system_prompt(path) == FALLBACK_PROMPT
        assert server.answer(FALLBACK_PROMPT, "Hi").cached == server.shared(FALLBACK_PROMPT)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("5", 5.0),
            ("0.5", 0.5),
            (" 7 ", 7.0),
            ("0", 60.0),
            ("-3", 60.0),
            ("nan", 60.0),
            ("inf", 60.0),
            ("soon", 60.0),
        ],
    )
    def test_warmup_timeout_sec_env_var(self, value: str, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
        """A finite number above 0 is taken; anything else is a warning and 60, in daemon and worker alike."""
        environ = {"WARMUP_TIMEOUT_SEC": value}
        settings, warnings = load_settings({}, environ)

        assert warmup_timeout(environ) == settings.warmup_timeout_sec == seconds
        assert bool(caplog.records) == bool(warnings) == (value.strip() not in {"5", "0.5", "7"})


class TestWarmupWithDifferentPrompts:
    """Warmup with the prompts that people have."""

    async def warmed(self, server: Server, text: str, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        """Warm this text; a chat with it finds all of it, one with another end all up to there."""
        patch.setenv("WARMUP_SYSTEM_FILE", prompt_file(tmp_path, text))

        assert await warmup_kv_cache(server.model, server.tokenizer, server.cache)
        answer = server.answer(text, "What is it?")
        assert answer.cached == server.shared(text) > len(text.encode())
        assert answer.tokens == server.cold(text, "What is it?").tokens

    async def test_warmup_with_short_prompt(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A prompt of one word is warmed whole."""
        await self.warmed(server, "Hi.", tmp_path, monkeypatch)

    async def test_warmup_with_long_prompt(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A prompt of 120 lines is warmed whole, in many chunks."""
        lines = "\n".join(f"Rule {number}: keep it short." for number in range(120))
        await self.warmed(server, lines, tmp_path, monkeypatch)

    async def test_warmup_with_structured_prompt(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """JSON, YAML, braces of templates and role markers in the text are only text."""
        text = (
            json.dumps({"role": "assistant", "rules": ["brief", "{{ kind }}"]}) + "\nstyle:\n  - plain\n<|im_end|>\n"
        )
        await self.warmed(server, text, tmp_path, monkeypatch)


class TestWarmupCacheKeyConsistency:
    """Keys of prompts."""

    def test_same_prompt_generates_same_cache_key(self, server: Server) -> None:
        """Text or tokens: equal prompts have equal keys, and the same ones tomorrow."""
        assert cache_key(SYSTEM) == cache_key(str(SYSTEM.encode(), "utf-8"))
        assert cache_key(server.prompt(SYSTEM, "Hi")) == cache_key(tuple(server.prompt(SYSTEM, "Hi")))
        assert cache_key("a") == "6cf6db08e9411c0a24ef5b670467d83fe6ccb92cbd4dadc0fc887af632eace56"

    def test_different_prompts_generate_different_cache_keys(self, server: Server) -> None:
        """A space more, another role, a token more: each has a key of its own."""
        texts = [cache_key(text) for text in (SYSTEM, SYSTEM + " ", "", " ")]
        chats = [cache_key(server.prompt(*pair)) for pair in ((SYSTEM, "Hi"), ("Hi", SYSTEM), (SYSTEM, "Hi!"))]

        assert len({*texts, *chats}) == 7
