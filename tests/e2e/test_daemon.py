"""The whole program, as processes: `stoker run`, a real worker with a tiny model, and real clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import openai
import pytest

from tests.fakes.greedy_answers import SYSTEM, ask, client
from tests.fakes.running_daemon import DEADLINE, RunningDaemon, is_alive
from tests.fakes.shared_daemon import SharedDaemon, shared

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


COMPARED = "Compare what is warm with what is cold, and tell no difference, for there is none."
"""A system prompt that is warm, as `SYSTEM` is, and that one test sends."""
CONFIG = f"""\
[[warmup]]
name = "compared"
system = "{COMPARED}"
"""


@pytest.fixture(scope="module")
def running(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDaemon]:
    """A ready daemon with two configured prompts and a small context."""
    folder = tmp_path_factory.mktemp("running")
    (folder / "system.txt").write_text(SYSTEM, encoding="utf-8")
    (folder / "stoker.toml").write_text(CONFIG, encoding="utf-8")
    environ = {
        "STOKER_CONFIG": str(folder / "stoker.toml"),
        "WARMUP_SYSTEM_FILE": str(folder / "system.txt"),
        "STOKER_CONTEXT_TOKENS": "4096",
    }
    with shared(RunningDaemon(tiny_llama, environ)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def cold(tiny_llama: Path) -> Iterator[SharedDaemon]:
    """A ready daemon that has warmed nothing."""
    with shared(RunningDaemon(tiny_llama, {"STOKER_CONFIG": "/dev/null", "KV_CACHE_WARMUP": "0"})) as daemon:
        yield daemon


async def test_main_job(running: SharedDaemon, tiny_llama: Path) -> None:
    """Started, it becomes ready and warm; the first request reuses the whole shared prefix, streamed or not."""
    answer, cached = await ask(running.url, "What is a stoker?")
    messages: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "What is a stoker?"}]
    async with client(running.url) as api:
        stream = await api.chat.completions.create(
            model=tiny_llama.name, messages=messages, temperature=0, max_tokens=24, stream=True
        )
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    readiness = running.first
    assert (readiness.warm, readiness.reason, readiness.generation) == (True, None, 1)
    assert cached == running.warm_tokens("system") > 0
    assert answer
    assert streamed == answer


async def test_warm_equals_cold(running: SharedDaemon, cold: SharedDaemon) -> None:
    """A warm worker answers, token for token, what a cold one answers."""
    users = ["What is a stoker?", "\n\n1", "é日本", "Tell me a story."]
    cold_first = await ask(cold.url, users[0], COMPARED)
    expected = [cold_first[0], *[(await ask(cold.url, user, COMPARED))[0] for user in users[1:]]]
    answers = [await ask(running.url, user, COMPARED) for user in users]

    assert (cold.first.warm, cold.first.reason) == (False, "disabled")
    assert cold_first[1] == 0
    assert [text for text, _ in answers] == expected
    assert all(cached >= running.warm_tokens("compared") > 0 for _, cached in answers)
    assert len(set(expected)) == len(users)


async def test_early_request_waits(running: SharedDaemon) -> None:
    """A request that comes before the worker is ready waits and is answered."""
    answer, _ = running.early.result(0)

    assert running.before.ready is False
    assert answer


async def test_kill_worker_comes_back_warm(tiny_llama: Path) -> None:
    """After kill -9 of the worker a new generation is ready and warm without anyone asking, and says the cause."""
    async with RunningDaemon(tiny_llama, {"STOKER_BACKOFF_BASE_SEC": "0.05"}) as daemon:
        await daemon.ready()
        os.kill(await daemon.worker_pid(), signal.SIGKILL)
        readiness = await daemon.ready(generation=2)
        status = await daemon.status()

    assert (readiness.warm, readiness.generation) == (True, 2)
    assert "SIGKILL" in status.restarts[-1].cause


async def test_what_was_learned_is_warm_after_a_restart(tiny_llama: Path) -> None:
    """A system prompt that was sent twice is warm in the next worker, and read from disk by the one after it."""
    async with RunningDaemon(tiny_llama, {"STOKER_BACKOFF_BASE_SEC": "0.05"}) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        cold = [await ask(url, user) for user in ("Hello?", "And now?")][1]
        async with daemon.control() as control:
            await control.restart()
        learned = (await daemon.ready(generation=2)).warmup.prefixes[1]
        warm = await ask(url, "And now?")
        await saved(daemon, 1)
        os.kill(await daemon.worker_pid(), signal.SIGKILL)
        restored = (await daemon.ready(generation=3)).warmup.prefixes
        again = await ask(url, "And now?")

    assert (learned.source, learned.tokens_warm) == ("prefilled", learned.tokens)
    assert [prefix.source for prefix in restored] == ["restored", "restored"]
    assert warm == again == (cold[0], learned.tokens)


async def saved(daemon: RunningDaemon, count: int) -> None:
    """Return when the living worker has saved so many prefixes."""
    with anyio.fail_after(DEADLINE):
        while not ((store := (await daemon.status()).store) and store.saved >= count):  # noqa: ASYNC110 - it is another process
            await anyio.sleep(0.02)


async def test_stream_survives_its_worker(tiny_llama: Path) -> None:
    """A stream whose worker is killed in mid-sentence goes on with the next one, token for token."""
    async with RunningDaemon(tiny_llama, {"STOKER_BACKOFF_BASE_SEC": "0.05"}) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        undisturbed, _ = await ask(url, "Tell me a story.", max_tokens=400)
        messages: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Tell me a story."}]
        pieces: list[str] = []
        async with client(url) as api:
            stream = await api.chat.completions.create(
                model="default", messages=messages, temperature=0, max_tokens=400, stream=True
            )
            async for chunk in stream:
                pieces.append(chunk.choices[0].delta.content or "")
                if len(pieces) == 5:
                    os.kill(await daemon.worker_pid(), signal.SIGKILL)
        status = await daemon.status()

    assert "".join(pieces) == undisturbed
    assert (status.generation, status.requests.resumed) == (2, 1)


async def test_kill_daemon_takes_worker_along(tiny_llama: Path) -> None:
    """Within a second of kill -9 of the daemon its worker is gone, and the next daemon starts clean."""
    daemon = RunningDaemon(tiny_llama)
    async with daemon:
        await daemon.ready()
        worker = await daemon.worker_pid()
        daemon.process.kill()
        with anyio.fail_after(1.0):
            while is_alive(worker):  # noqa: ASYNC110 - it is nobody's child any more
                await anyio.sleep(0.01)
        daemon.output()
        assert daemon.process.wait() == -signal.SIGKILL
        daemon.process.stdout.close() if daemon.process.stdout else None
        daemon.start()

        assert (await daemon.ready()).ready


async def test_restart_fails_no_request(tiny_llama: Path) -> None:
    """Requests that run or arrive during a restart are all answered, and the new generation is warm."""
    async with RunningDaemon(tiny_llama) as daemon:
        await daemon.ready()
        url = (await daemon.status()).http
        answers: list[str] = []

        async def one(number: int) -> None:
            answers.append((await ask(url, f"Question {number}?", max_tokens=100))[0])

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(one, number)
            async with daemon.control() as control:
                await control.restart()
            for number in range(4, 8):
                tasks.start_soon(one, number)
        readiness = await daemon.ready(generation=2)

    assert len(answers) == 8
    assert all(answers)
    assert readiness.warm


async def test_client_that_leaves_frees_its_place(running: SharedDaemon) -> None:
    """A client that closes its connection in mid-answer cancels the generation in the worker."""
    before = await running.idle()
    body = {"model": "default", "messages": [{"role": "user", "content": "Go on"}], "stream": True, "temperature": 0}
    async with aiohttp.ClientSession() as http, http.post(f"{running.url}/v1/chat/completions", json=body) as answer:
        await answer.content.readline()
        answer.close()
    after = await running.idle()

    assert (after.cancelled - before.cancelled, after.served - before.served) == (1, 0)


async def test_bad_prompts_are_400_and_kill_nobody(running: SharedDaemon) -> None:
    """A prompt over the context is refused in the API's own error shape, and the worker lives on."""
    worker = await running.daemon.worker_pid()
    with pytest.raises(openai.BadRequestError, match="4096") as refusal:
        await ask(running.url, "word " * 1000, "Bad.")
    answer, _ = await ask(running.url, "Hello?", "Bad.")

    assert refusal.value.code == "context_length_exceeded"
    assert answer
    assert await running.daemon.worker_pid() == worker


async def test_second_daemon_is_refused(running: SharedDaemon) -> None:
    """A second daemon on the same runtime directory ends with 78 and one line, and the first is not disturbed."""
    daemon = running.daemon
    second = await anyio.run_process(daemon.command, env=daemon.environ, check=False)

    assert (await daemon.ready()).generation == 1
    assert second.returncode == 78
    assert second.stderr.count(b"\n") == 1
    assert b"another stoker is running" in second.stderr


@pytest.fixture
def broken_model(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model directory without weights."""
    return shutil.copytree(tiny_llama, tmp_path / "broken", ignore=shutil.ignore_patterns("*.safetensors"))


async def test_unusable_model_fails_with_the_remedy(broken_model: Path) -> None:
    """A model whose weights are missing ends in failed at once: status names it, requests get a fast 503."""
    async with RunningDaemon(broken_model) as daemon:
        async with daemon.control() as control:
            readiness = await control.wait_ready(DEADLINE)
            status = await control.status()
        body = {"model": "default", "messages": [{"role": "user", "content": "Hello?"}]}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{status.http}/v1/chat/completions", json=body) as answer,
        ):
            await answer.read()

    assert (readiness.phase, readiness.generation) == ("failed", 1)
    assert "safetensors" in (readiness.reason or "")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1


async def test_readyz_and_livez(running: SharedDaemon) -> None:
    """Liveness is 200 from the first moment, readiness only when ready, and the body says which."""
    async with aiohttp.ClientSession() as http:
        late = await http.get(f"{running.url}/readyz")
        body = await late.json()

    assert running.probes == (200, 503)
    assert late.status == 200
    assert body["warm"] is True


async def test_rewarm_with_a_prompt(cold: SharedDaemon, tmp_path: Path) -> None:
    """`stoker rewarm --prompt FILE` makes that prompt warm on the live worker."""
    prompt = "Rewarm the kettle while nobody looks, and say that it is warm when it is warm."
    (tmp_path / "system.txt").write_text(prompt, encoding="utf-8")
    command = [sys.executable, "-m", "stoker.daemon", "rewarm", "--prompt", str(tmp_path / "system.txt"), "--json"]
    done = await anyio.run_process(command, env=cold.daemon.environ)
    _, cached = await ask(cold.url, "What is a stoker?", prompt)

    report = json.loads(done.stdout)
    assert report["outcome"] == "succeeded"
    assert cached == report["prefixes"][0]["tokens"] > 0


async def test_taken_port_is_refused_in_one_line(running: SharedDaemon) -> None:
    """A port that another program uses ends the daemon with 78, one line, and the way out."""
    daemon, port = running.daemon, running.url.rpartition(":")[2]
    environ = {**daemon.environ, "STOKER_RUNTIME_DIR": str(daemon.home / "other")}
    second = await anyio.run_process([*daemon.command, "--port", port], env=environ, check=False)

    assert second.returncode == 78
    assert second.stderr.decode().splitlines() == [
        (
            f"stoker: cannot listen on 127.0.0.1:{port}: another program uses the port; "
            "end it, or choose another with --port (0 takes any free one)"
        )
    ]
