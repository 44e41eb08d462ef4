"""What is computed next, and what each request gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import Generate, Sampling, TokenPrompt, WarmPrefix
from tests.fakes.driven_core import CHUNKED, LONG, DrivenCore, ask, chat, seeded
from tests.fakes.tiny_models import PROBES, Kind, greedy, write_tiny_model

SYSTEM = "You tend the fire, read before you write, and never guess. " * 6

Kinds = Callable[[Kind], Path]
each_kind = pytest.mark.parametrize("kind", ["llama", "sliding", "hybrid"])


# -- answers -----------------------------------------------------------------------------------------------


@each_kind
def test_answer_is_the_models(tiny_model: Kinds, kind: Kind) -> None:
    """Greedy tokens are those of the plain computation, and the text is theirs."""
    core = DrivenCore(tiny_model(kind))
    answer = core.generate(ask(PROBES[0], 20))

    assert answer.tokens == greedy(core.scheduler.loaded.model, _encoded(core, PROBES[0]), 20)
    assert answer.text == bytes(answer.tokens).decode()
    assert (answer.finished.reason, answer.finished.usage.completion_tokens) == ("length", 20)


def _encoded(core: DrivenCore, text: str) -> list[int]:
    return list(core.scheduler.loaded.tokenizer.encode(text))


@each_kind
@pytest.mark.parametrize("sampling", [Sampling(), seeded(5)], ids=["greedy", "seeded"])
def test_batch_equals_each_alone(tiny_model: Kinds, kind: Kind, sampling: Sampling) -> None:
    """Requests of many lengths and limits served together get what each would get alone."""
    bodies = [chat(SYSTEM[: 40 * index], f"question {index}", 4 + 3 * index, sampling=sampling) for index in range(6)]
    alone = [DrivenCore(tiny_model(kind)).generate(body).tokens for body in bodies]
    core = DrivenCore(tiny_model(kind), **CHUNKED)
    requests = [core.submit(body) for body in bodies]

    assert [core.finish(request).tokens for request in requests] == alone


def test_caches_that_cannot_be_merged_are_served_too(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without batching, requests are decoded one by one, with the same tokens."""
    bodies = [chat(SYSTEM, f"question {index}", 5 + index) for index in range(3)]
    batched = [DrivenCore(tiny_llama).generate(body).tokens for body in bodies]
    monkeypatch.setattr("stoker.worker.mlx_engine.loading.is_batchable", lambda _: False)
    core = DrivenCore(tiny_llama)
    requests = [core.submit(body) for body in bodies]

    assert [core.finish(request).tokens for request in requests] == batched


def test_one_step_has_the_deltas_of_all(tiny_llama: Path) -> None:
    """Sequences decoded together are told in one message."""
    core = DrivenCore(tiny_llama)
    requests = [core.submit(ask(probe, 10)) for probe in PROBES]
    for request in requests:
        core.finish(request)

    assert any({delta.target for delta in step.deltas} == set(requests) for step in core.steps)


def test_end_of_sequence_is_a_stop(tmp_path: Path) -> None:
    """An end token ends the answer with `stop`; it is neither in the text nor among the tokens."""
    folder = write_tiny_model("llama", tmp_path / "free")
    answer = DrivenCore(folder).generate(ask(PROBES[0], 12)).tokens
    write_tiny_model("llama", tmp_path / "ends", eos=[answer[5]])
    ended = DrivenCore(tmp_path / "ends").generate(ask(PROBES[0], 12))

    assert ended.finished.reason == "stop"
    assert ended.tokens == answer[: answer.index(answer[5])]
    assert ended.finished.usage.completion_tokens == len(ended.tokens)


def test_answer_may_end_with_its_first_token(tmp_path: Path) -> None:
    """If the first token is an end, the answer is empty and finished."""
    folder = write_tiny_model("llama", tmp_path / "free")
    first = DrivenCore(folder).generate(ask(PROBES[0], 1)).tokens[0]
    write_tiny_model("llama", tmp_path / "ends", eos=[first])
    ended = DrivenCore(tmp_path / "ends").generate(ask(PROBES[0], 12))

    assert (ended.finished.reason, ended.tokens, ended.text) == ("stop", (), "")


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 3, 7])
def test_stop_string_ends_the_answer(tiny_llama: Path, start: int, size: int) -> None:
    """A stop string ends the answer wherever it comes and however many tokens it spans; no part of it is shown."""
    whole = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12)).text
    stop = whole[start : start + size]
    stopped = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12, stop=("never this", stop)))

    assert stopped.finished.reason == "stop"
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.finished.usage.completion_tokens == whole.index(stop) + size


def test_held_back_text_is_not_lost(tiny_llama: Path) -> None:
    """Text that waited for the rest of a stop string comes with the result when that doesn't come."""
    whole = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12)).text
    answer = DrivenCore(tiny_llama).generate(ask(PROBES[0], 12, stop=(whole[-3:] + "\0",)))

    assert answer.text == whole
    assert answer.finished.text == whole[-3:]


def test_first_progress_tells_what_is_cached(tiny_llama: Path) -> None:
    """Progress comes at once with the cached tokens, then after each chunk, up to the whole prompt."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    core.warm(WarmPrefix(name="main", system=SYSTEM))
    request = core.submit(chat(SYSTEM, "hello " * 40, 1))
    first = core.answer(request).progress
    news = core.finish(request).progress

    assert [(item.done, item.stage) for item in first] == [(first[0].cached, "prefill")]
    assert {item.cached for item in news} == {first[0].cached}
    assert first[0].cached > len(SYSTEM)
    assert [item.done for item in news] == sorted({item.done for item in news})
    assert news[-1].done == news[-1].total


# -- conversations -----------------------------------------------------------------------------------------


def test_request_uses_what_the_one_before_it_left(tiny_llama: Path) -> None:
    """Of requests with one long beginning that come at once, the second needs no more than its own end."""
    core = DrivenCore(tiny_llama, max_batch=1)
    first, second = (core.submit(chat(SYSTEM, user, 3)) for user in ("one", "two"))
    core.finish(first)

    assert core.finish(second).finished.usage.cached_tokens > len(SYSTEM)


@each_kind
def test_next_turn_uses_the_turn_before(tiny_model: Kinds, kind: Kind) -> None:
    """A prompt that continues a finished answer computes only what is new, with the cold answer's tokens."""
    core = DrivenCore(tiny_model(kind))
    first = core.generate(ask(LONG, 10))
    history = _encoded(core, LONG) + list(first.tokens)
    body = Generate(prompt=TokenPrompt(tokens=(*history, *b" and then? ")), max_tokens=10)
    second = core.generate(body)

    assert second.finished.usage.cached_tokens >= len(history) - 1
    assert second.tokens == DrivenCore(tiny_model(kind)).generate(body).tokens


@each_kind
def test_same_request_twice(tiny_model: Kinds, kind: Kind) -> None:
    """A prompt that is in the cache to the last token is answered again, with the same tokens."""
    core = DrivenCore(tiny_model(kind))

    assert core.generate(ask(LONG, 10)).tokens == core.generate(ask(LONG, 10)).tokens


# -- cancel ------------------------------------------------------------------------------------------------


@each_kind
def test_cancelled_prefill_keeps_its_part(tiny_model: Kinds, kind: Kind) -> None:
    """A cancel in a prefill is answered before another chunk is computed, and the part serves the next request."""
    cold = DrivenCore(tiny_model(kind)).generate(ask(LONG, 5))
    core = DrivenCore(tiny_model(kind), **CHUNKED)
    request = core.submit(ask(LONG, 5))
    core.turn_until(lambda: core.answer(request).progress[-1].done > 100)
    reached = core.answer(request).progress[-1].done
    core.core.cancel(request)
    again = core.generate(ask(LONG, 5))

    assert core.answer(request).finished.reason == "cancelled"
    assert core.answer(request).progress[-1].done == reached
    assert again.finished.usage.cached_tokens == reached
    assert again.tokens == cold.tokens


def test_cancelled_answer_ends_and_the_others_go_on(tiny_llama: Path) -> None:
    """A cancel while decoding ends that answer with what it had; the others' tokens don't change."""
    alone = DrivenCore(tiny_llama).generate(ask(PROBES[0], 30)).tokens
    core = DrivenCore(tiny_llama)
    stays, goes = core.submit(ask(PROBES[0], 30)), core.submit(ask(PROBES[1], 30))
    core.turn_until(lambda: len(core.answer(goes).tokens) > 5)
    had = len(core.answer(goes).tokens)
    core.core.cancel(goes)

    assert core.answer(goes).finished.reason == "cancelled"
    assert core.answer(goes).finished.usage.completion_tokens == had
    assert core.finish(stays).tokens == alone
    assert core.core.idle


def test_cancel_of_the_unknown_is_ignored(tiny_llama: Path) -> None:
    """A cancel of a request that was answered, or never was, does nothing."""
    core = DrivenCore(tiny_llama)
    core.generate(ask("x", 1))
    before = list(core.frames)
    core.core.cancel(2)
    core.core.cancel("nobody")

    assert core.frames == before


# -- failures ----------------------------------------------------------------------------------------------


def test_failure_of_the_batch_fails_all_and_is_survived(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception while decoding fails all running answers as retryable; what waits and what comes is served."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    core.warm(WarmPrefix(name="main", system=SYSTEM))
    running = [core.submit(ask(probe, 30)) for probe in PROBES]
    core.turn_until(lambda: all(core.answer(request).tokens for request in running))
    waiting = core.submit(ask(LONG, 3))

    def fail() -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(core.scheduler._decoder, "step", fail)
    core.core.turn()
    errors = [core.answer(request).error for request in running]

    assert {(error.code, error.data.retryable) for error in errors} == {(ErrorCode.GENERATION_FAILED, True)}
    assert len(core.finish(waiting).tokens) == 3
    assert (
        core.generate(chat(SYSTEM, "hi", 5)).tokens == DrivenCore(tiny_llama).generate(chat(SYSTEM, "hi", 5)).tokens
    )


def test_failure_of_one_prefill_is_its_own(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a prefill fails that request as retryable; a running answer is not touched."""
    core = DrivenCore(tiny_llama, **CHUNKED)
    alone = DrivenCore(tiny_llama).generate(ask(PROBES[0], 20)).tokens
    running = core.submit(ask(PROBES[0], 20))
    core.turn_until(lambda: bool(core.answer(running).tokens))
    doomed = core.submit(ask(LONG, 3))
    core.core.turn()

    def fail() -> None:
        raise RuntimeError("out of buffers")

    prefill = core.scheduler._waiting[doomed].prefill
    monkeypatch.setattr(prefill, "step", fail)

    assert core.finish(doomed).error.data.retryable
    assert core.finish(running).tokens == alone


@each_kind
def test_probe_leaves_nothing_behind(tiny_model: Kinds, kind: Kind, tmp_path: Path) -> None:
    """A probe computes one token, looks nothing up, and leaves cache, figures and what was learned as they were."""
    core = DrivenCore(tiny_model(kind), state_dir=str(tmp_path))
    core.generate(chat(SYSTEM, "hello", 4))
    before = core.scheduler.cache.statistics(), core.scheduler.cache.entries()
    for _ in range(3):
        answer = core.generate(Generate(prompt=TokenPrompt(tokens=(0,)), max_tokens=1, probe=True))
        assert answer.finished.usage.cached_tokens == 0
        assert answer.finished.usage.completion_tokens <= 1

    assert (core.scheduler.cache.statistics(), core.scheduler.cache.entries()) == before
    assert core.scheduler.idle
