"""The worker socket's messages keep what they promise to a peer of another version."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given

from stoker.ipc.errors import FATAL, RETRYABLE, ErrorCode
from stoker.ipc.framing import Malformed, Request, decode
from stoker.ipc.messages import (
    Body,
    Cancel,
    ChatPrompt,
    FromWorker,
    Generate,
    Load,
    Progress,
    Result,
    Statistics,
    TextPrompt,
    TokenPrompt,
    ToWorker,
    Welcome,
    WorkerResult,
)
from tests.fakes import wire_strategies as wire
from tests.fakes.dialects import DAEMON, WORKER

MESSAGES: tuple[type[msgspec.Struct], ...] = (*get_args(ToWorker), *get_args(FromWorker), Welcome)
BODIES = tuple(message for message in MESSAGES if issubclass(message, Body))
RESULTS = tuple(message for message in MESSAGES if issubclass(message, Result))


def test_each_body_has_its_own_method() -> None:
    """A method's name stands for one body."""
    assert len({body.METHOD for body in BODIES}) == len(BODIES)


def test_dialects_take_every_message() -> None:
    """Whatever is in the union of a direction is understood at its end."""
    to_worker = {body.METHOD for body in BODIES if body in get_args(ToWorker)}
    from_worker = {body.METHOD for body in BODIES if body in get_args(FromWorker)}

    assert to_worker == {*WORKER.requests, *WORKER.notifications}
    assert from_worker == {*DAEMON.requests, *DAEMON.notifications}


@pytest.mark.parametrize("result", RESULTS)
def test_results_say_their_kind(result: type[Result]) -> None:
    """A result on the wire names its type in lower case, so that it can be read without its request."""
    assert result.__struct_config__.tag == result.__name__.lower()


@given(wire.values(WorkerResult))
def test_result_is_told_by_its_kind(result: Result) -> None:
    """Any result of the union is read back as what it was."""
    assert msgspec.json.decode(msgspec.json.encode(result), type=WorkerResult) == result


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_frozen(message: type[msgspec.Struct]) -> None:
    """A message can't change on its way through the program."""
    assert message.__struct_config__.frozen


@pytest.mark.parametrize("message", MESSAGES)
def test_defaults_are_left_out_of_params_only(message: type[msgspec.Struct]) -> None:
    """Params leave defaults out, results say everything: a reader of results need not know our defaults."""
    assert message.__struct_config__.omit_defaults is issubclass(message, Body)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_tolerate_unknown_fields(message: type[msgspec.Struct]) -> None:
    """A newer peer may add fields."""
    assert not message.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize(
    ("params", "prompt"),
    [
        (b'{"type":"text","text":"a"}', TextPrompt(text="a")),
        (b'{"type":"tokens","tokens":[1,2]}', TokenPrompt(tokens=(1, 2))),
        (b'{"type":"chat","messages":[{"role":"user"}]}', ChatPrompt(messages=({"role": "user"},))),
    ],
)
def test_prompt_is_told_by_its_type(params: bytes, prompt: Any) -> None:
    """The three kinds of prompt are told apart by `type`."""
    line = b'{"jsonrpc":"2.0","id":1,"method":"generate","params":{"prompt":%s}}' % params

    assert decode(line, WORKER) == Request(1, Generate(prompt=prompt))


def test_load_needs_model_and_cache_only() -> None:
    """An older daemon that knows only the required fields is understood."""
    frame = decode(b'{"jsonrpc":"2.0","id":1,"method":"load","params":{"model":"m","cache_dir":"/c"}}', WORKER)

    assert frame == Request(1, Load(model="m", cache_dir="/c"))


def test_stage_that_does_not_exist_is_refused() -> None:
    """Progress has one of the named stages."""
    frame = decode(
        b'{"jsonrpc":"2.0","method":"progress","params":{"target":1,"stage":"nap","done":0,"total":1}}', DAEMON
    )

    assert isinstance(frame, Malformed)


@pytest.mark.parametrize("target", [1, "a"])
def test_targets_are_ids_of_either_kind(target: int | str) -> None:
    """Cancel and progress name a request by number or by text."""
    assert msgspec.convert({"target": target}, Cancel).target == target
    assert msgspec.convert({"target": target, "stage": "load", "done": 0, "total": 1}, Progress).target == target


def test_error_codes_are_in_the_ranges_of_the_specification() -> None:
    """JSON-RPC reserves -32768 to -32000, and leaves -32000 to -32099 of these to us."""
    reserved = {-32700, -32600, -32601, -32602, -32603}

    assert {code for code in ErrorCode if not -32099 <= code <= -32000} == reserved


def test_no_error_is_both_retryable_and_fatal() -> None:
    """What a restart won't mend, another try won't either."""
    assert not RETRYABLE & FATAL


def test_empty_request_is_small() -> None:
    """A request without params costs two bytes of them."""
    assert msgspec.json.encode(Statistics()) == b"{}"
