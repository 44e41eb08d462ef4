"""One generation's bookkeeping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from stoker.ipc.messages import Delta, Finished, ToolCall
from stoker.worker.calls import Piece
from stoker.worker.mlx_engine.choosing import Chooser
from stoker.worker.mlx_engine.generation import Generation, deltas, replay
from stoker.worker.mlx_engine.sampling import GREEDY
from stoker.worker.mlx_engine.text import TextStream


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return load_tokenizer(tiny_llama)


TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)


def generation(tokenizer: Any, *, limit: int = 9, stops: tuple[str, ...] = (), emitted: int = 0) -> Generation:
    return Generation(
        id=1,
        tokens=[65] * (10 + emitted),
        prompt_tokens=10,
        completion_tokens=emitted,
        limit=limit,
        planned=99,
        text=TextStream(tokenizer, [65], stops, chat=True, tools=TOOLS),
        chooser=Chooser(GREEDY),
        submitted=0.0,
    )


def test_tokens_count_towards_the_limit(tokenizer: Any) -> None:
    """Tokens of earlier workers and of this one end the answer together."""
    one = generation(tokenizer, limit=3, emitted=1)
    endings = []
    for token in b"ab":
        one.hear(token)
        endings.append(one.ending())

    assert endings == [None, "length"]
    assert one.completion_tokens == 3


def test_stop_comes_before_length(tokenizer: Any) -> None:
    """A stop string that is complete with the last allowed token is a stop."""
    one = generation(tokenizer, limit=2, stops=("ab",))
    heard = [one.hear(token) for token in b"ab"]

    assert one.ending() == "stop"
    assert [delta.text for step in heard for delta in step] == ["", ""]


def test_result_has_what_was_held_back(tokenizer: Any) -> None:
    """The result carries the text that waited for a stop string, and the counts."""
    one = generation(tokenizer, stops=("xyz",), emitted=4)
    one.cached = 12
    one.hear(ord("x"))
    result = one.finished("length").result

    assert isinstance(result, Finished)
    assert result.held == ()
    assert (result.text, result.reason) == ("x", "length")
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.cached_tokens) == (10, 5, 10)


def test_held_back_call_and_text(tokenizer: Any) -> None:
    """A tool call that was held back comes with the result, before the text after it."""
    call = '<tool_call>{"name": "f"}</tool_call>b'
    one = generation(tokenizer, limit=99, stops=(call + "!",))
    for token in call.encode():
        one.hear(token)
    result = one.finished("length").result

    assert isinstance(result, Finished)
    assert result.held == (Delta(target=1, tokens=(), channel="tool", calls=(ToolCall(name="f", arguments="{}"),)),)
    assert (result.text, result.channel) == ("b", "normal")


def test_one_delta_for_each_channel() -> None:
    """A token whose text spans channels gives a delta for each; the token itself comes once, with the first."""
    pieces = [Piece("normal", "a"), Piece("tool", "b")]

    assert deltas(7, 65, pieces) == (
        Delta(target=7, tokens=(65,), text="a"),
        Delta(target=7, tokens=(), text="b", channel="tool"),
    )


def test_token_without_text_has_its_channel(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a character of the reasoning is reasoning: usage counts tokens by their channel."""
    one = generation(tokenizer)
    monkeypatch.setattr(TextStream, "channel", "reasoning")

    assert one.hear("é".encode()[0]) == (Delta(target=1, tokens=("é".encode()[0],), channel="reasoning"),)


@pytest.mark.parametrize(
    ("emitted", "ended"), [(b"plain", None), (b"it is xyz", "stop"), (b"it\x00", "stop")], ids=["on", "stop", "end"]
)
def test_replay_notices_an_answer_that_was_over(tokenizer: Any, emitted: bytes, ended: str | None) -> None:
    """Emitted tokens that hold a stop string or an end token mean that only the result was missing."""
    text = TextStream(tokenizer, [65], ("xyz",), chat=True)

    assert replay(text, list(emitted), frozenset({0})) == ended
