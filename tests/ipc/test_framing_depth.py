"""Requests that are nested as deeply as a stranger likes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stoker.ipc.framing import SHALLOW, Frame, Request, decode, encode
from stoker.ipc.framing import _wire as wire
from stoker.ipc.messages import ChatPrompt, Generate
from tests.fakes.dialects import WORKER


def nested(depth: int) -> Request:
    message: dict[str, Any] = {}
    for _ in range(depth):
        message = {"a": message}
    return Request(1, Generate(prompt=ChatPrompt(messages=(message,))))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="C code has a limit of its own there, the same at both ends")
def test_what_is_encoded_can_be_decoded_with_less_stack() -> None:
    """A request that is nested nearly as deep as one can be is refused by its sender, not by its receiver."""
    deepest = next(depth for depth in range(950, 0, -1) if _fits(_encode_plainly, nested(depth)))

    with pytest.raises(RecursionError):
        encode(nested(deepest))


def _fits(encoder: Callable[[Frame], object], frame: Frame) -> bool:
    try:
        encoder(frame)
    except RecursionError:
        return False
    return True


def _encode_plainly(frame: Frame) -> bytes:
    return msgspec.json.encode(wire(frame))


@pytest.mark.parametrize("depth", [1, SHALLOW // 2, SHALLOW])
def test_what_a_client_would_nest_is_sent(depth: int) -> None:
    """Real tools and schemas are a dozen levels deep; many more are carried."""
    assert decode(encode(nested(depth)).strip(), WORKER) == nested(depth)


def test_wide_is_not_deep() -> None:
    """However many objects there are beside each other, they are sent."""
    wide = Request(1, Generate(prompt=ChatPrompt(messages=tuple({"a": [{}]} for _ in range(10_000)))))

    assert decode(encode(wide).strip(), WORKER) == wide
