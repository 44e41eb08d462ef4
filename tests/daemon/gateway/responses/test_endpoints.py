"""The Responses API over real sockets, with the real SDK and with bytes."""

from __future__ import annotations

from typing import Any

import openai
import pydantic
import pytest

from stoker.daemon.dispatch import RequestFailed, Unavailable
from stoker.ipc.errors import ErrorCode, ErrorData
from stoker.ipc.messages import ChatPrompt, Delta, ToolCall
from tests.fakes.fake_dispatch import FINISHED, STARTED, Hold, answer, delta, playing
from tests.fakes.http import connected, exchange, sdk, serving
from tests.fakes.response_events import checked, events

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
STRUCTURED = {"text": {"format": {"type": "json_schema", "name": "city", "schema": {"type": "object"}}}}
CALLED = {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}], "tool_choice": "required"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "default", "input": "Capital of France?", **fields}


class City(pydantic.BaseModel):
    """What a structured answer is to be."""

    city: str


async def test_sdk_reads_a_whole_answer() -> None:
    """The OpenAI client gets text, status and token counts, and the model's name as it wrote it."""
    async with serving(playing(*answer("Par", "is"))) as address, sdk(address) as client:
        response = await client.responses.create(model="gpt-4o", input="Capital of France?", instructions="Brief.")

    assert (response.output_text, response.status, response.model) == ("Paris", "completed", "gpt-4o")
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 7


async def test_sdk_follows_a_stream() -> None:
    """The OpenAI client's own accumulation of the events is the response that the last one tells."""
    call = Delta(target=1, tokens=(2,), channel="tool", calls=(ToolCall(name="look", arguments='{"at":"sky"}'),))
    script = (STARTED, delta("Hm", "reasoning"), delta("I "), delta("look."), call, FINISHED)
    async with (
        serving(playing(*script)) as address,
        sdk(address) as client,
        client.responses.stream(model="default", input="Look.") as stream,
    ):
        pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        response = await stream.get_final_response()

    assert pieces == ["I ", "look."]
    assert response.output_text == "I look."
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]


async def test_sdk_parses_a_structured_answer() -> None:
    """The OpenAI client's `parse` sends a schema, which becomes the worker's constraint, and reads the answer."""
    backend = playing(*answer('{"city":', '"Paris"}'))
    async with serving(backend) as address, sdk(address) as client:
        response = await client.responses.parse(model="default", input="Capital?", text_format=City)

    assert response.output_parsed == City(city="Paris")
    assert backend.dispatch.bodies[0].constraint is not None


async def test_output_may_be_sent_back_as_it_came() -> None:
    """The items of an answer are good items of the next request's input."""
    call = Delta(target=1, tokens=(2,), channel="tool", calls=(ToolCall(name="look", arguments="{}"),))
    backend = playing(STARTED, delta("Hm", "reasoning"), delta("I look."), call, FINISHED)
    async with serving(backend) as address, sdk(address) as client:
        first = await client.responses.create(model="default", input="Look.")
        said: Any = [item.model_dump() for item in first.output]
        said += [{"type": "function_call_output", "call_id": said[-1]["call_id"], "output": "dark"}]
        await client.responses.create(model="default", input=[{"role": "user", "content": "Look."}, *said])

    user, assistant, tool = backend.dispatch.bodies[1].prompt.messages  # type: ignore[union-attr]
    assert user["content"] == "Look."
    assert (assistant["reasoning_content"], assistant["content"]) == ("Hm", "I look.")
    assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"]


SPACE = {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn", "parameters": {}}]}


async def test_agent_with_namespaces_is_understood() -> None:
    """What Codex sends is taken: its metadata, and functions in namespaces, which are called by both names."""
    spawned = Delta(target=1, tokens=(2,), channel="tool", calls=(ToolCall(name="agents__spawn", arguments="{}"),))
    backend = playing(STARTED, spawned, FINISHED)
    asked: dict[str, Any] = {
        "model": "default",
        "input": [
            {"type": "message", "id": f"msg_{role}", "role": role, "content": [{"type": "input_text", "text": "Go."}]}
            for role in ("developer", "user")
        ],
        "tools": [SPACE],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "thread-1",
        "client_metadata": {"session_id": "1"},
    }
    async with serving(backend) as address, connected(address) as client:
        await client.ask("POST", PATH, asked)
        first = await client.reply()
        (call,) = first.json["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
        await client.ask("POST", PATH, {**asked, "input": [*asked["input"], call, output]})
        second = await client.reply()

    assert (first.status, second.status) == (200, 200)
    assert (call["namespace"], call["name"]) == ("agents", "spawn")
    assert checked(first.json).tools[0].type == "namespace"
    prompt = backend.dispatch.bodies[1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tools[0]["function"]["name"] == "agents__spawn"
    assert prompt.messages[2]["tool_calls"][0]["function"]["name"] == "agents__spawn"


async def test_bytes_are_what_the_vendor_specifies() -> None:
    """Every field of the whole answer, and every event of the stream, fits the vendor's types; no `[DONE]`."""
    whole = await exchange(playing(*answer("Hi")), "POST", PATH, body())
    streamed = await exchange(playing(*answer("Hi")), "POST", PATH, body(stream=True))
    told = events(streamed.body)[-1]["response"]

    assert whole.status == streamed.status == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.complete
    assert checked(whole.json).output_text == "Hi"
    assert set(whole.json) == set(told)
    assert told["output"][0]["content"] == whole.json["output"][0]["content"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/responses/resp_1/cancel"),
    ],
)
async def test_nothing_is_stored(method: str, path: str) -> None:
    """Asked for an earlier response, the server says that it keeps none."""
    reply = await exchange(playing(), method, path)

    assert (reply.status, reply.error["code"]) == (404, "response_not_found")
    assert "nothing is stored" in reply.error["message"]


async def test_refusals_have_their_status() -> None:
    """Before anything is sent, a bad request, an unknown model and a missing worker have a status of their own."""
    bad = await exchange(playing(), "POST", PATH, body(previous_response_id="resp_1"))
    other = await exchange(playing(), "POST", PATH, body(model="gpt-9"))
    busy = await exchange(playing(Unavailable("starting", retry_after=2.0)), "POST", PATH, body(stream=True))

    assert (bad.status, bad.error["param"]) == (400, "previous_response_id")
    assert (other.status, other.error["code"]) == (404, "model_not_found")
    assert (busy.status, busy.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize(
    ("fields", "field", "param"),
    [
        ({}, None, "input"),
        ({}, "messages", "input"),
        ({}, "temperature", "temperature"),
        ({}, "max_tokens", "max_output_tokens"),
        (STRUCTURED, "constraint", "text.format"),
        (STRUCTURED, "constraint.schema", "text.format.schema"),
        (CALLED, "constraint", "tool_choice"),
    ],
    ids=str,
)
async def test_worker_refusal_names_the_clients_field(fields: dict[str, Any], field: str | None, param: str) -> None:
    """What the worker says of its own terms is said in those of a response, streamed or not."""
    for stream in (False, True):
        refusal = RequestFailed(ErrorCode.UNSUPPORTED, "no", ErrorData(field=field))
        reply = await exchange(playing(refusal), "POST", PATH, body(stream=stream, **fields))

        assert (reply.status, reply.error["param"]) == (400, param)


async def test_broken_stream_is_told_and_broken_off() -> None:
    """A failure in the middle is the event `response.failed`, and no client can take the body for complete."""
    script = (STARTED, delta("Once"), Unavailable("the worker died"))
    reply = await exchange(playing(*script), "POST", PATH, body(stream=True))
    async with serving(playing(*script)) as address, sdk(address) as client:
        stream = await client.responses.create(model="default", input="Hi", stream=True)
        with pytest.raises(openai.APIConnectionError):
            async for _ in stream:
                pass

    assert events(reply.body)[-1]["type"] == "response.failed"
    assert not reply.complete


async def test_client_that_leaves_ends_its_generation() -> None:
    """A closed connection cancels the answer."""
    hold = Hold()
    backend = playing(STARTED, delta("Once"), hold)
    async with serving(backend) as address:
        async with connected(address) as client:
            await client.ask("POST", PATH, body(stream=True))
            await client.until(b"Once")
            client.drop()
        await backend.dispatch.left_early.wait()

    assert backend.dispatch.finished == 0
