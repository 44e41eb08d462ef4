"""The real OpenAI client, with its helpers for tools and structured output, and nobody who knows it is us."""

from __future__ import annotations

from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionToolParam

from stoker.ipc.messages import ChatPrompt, Delta, Finished, JsonConstraint, Likely, TokenLogprob, ToolCall
from tests.fakes.fake_choices import playing_each
from tests.fakes.fake_dispatch import FINISHED, STARTED, USAGE, FakeBackend, answer, delta, playing
from tests.fakes.http import chat, sdk, serving

pytestmark = [
    pytest.mark.anyio,
    # The SDK's own, about its own type of a parsed message that is sent back.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

CALLS = Delta(target=1, tokens=(5,), calls=(ToolCall(name="Weather", arguments='{"city":"Paris"}'),))
CALLING = (STARTED, delta("Let me see.", "reasoning"), CALLS, FINISHED)


class Weather(pydantic.BaseModel):
    """Tells the weather."""

    city: str


WEATHER: ChatCompletionToolParam = openai.pydantic_function_tool(Weather)


async def test_tool_round_trip() -> None:
    """A call, sent back as the SDK keeps it and with its result, reaches the template whole."""
    backend = playing(*CALLING)
    async with serving(backend) as address, sdk(address) as client:
        history: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
        first = await client.chat.completions.create(model="default", messages=history, tools=[WEATHER])
        message = first.choices[0].message
        assert message.tool_calls is not None
        call = message.tool_calls[0]
        history += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        await client.chat.completions.create(model="default", messages=history, tools=[WEATHER])

    assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
    prompt = backend.dispatch.bodies[1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[1]["tool_calls"][0]["function"] == {"name": "Weather", "arguments": {"city": "Paris"}}
    assert prompt.messages[1]["reasoning_content"] == "Let me see."
    assert prompt.messages[2] == {"role": "tool", "content": "sunny", "tool_call_id": call.id}


async def test_stream_helper_parses_tool_calls() -> None:
    """The SDK's own accumulation of our chunks ends in a parsed call, and its message can be sent back."""
    async with serving(playing(*CALLING)) as address, sdk(address) as client:
        async with client.chat.completions.stream(**chat(), tools=[WEATHER]) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
        message = final.choices[0].message
        await client.chat.completions.create(**chat(messages=[message]))

    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.parsed_arguments == Weather(city="Paris")
    assert final.choices[0].finish_reason == "tool_calls"
    assert "tool_calls.function.arguments.done" in kinds


async def test_parse_helper_reads_structured_output() -> None:
    """The SDK sends its model's schema, which becomes the constraint, and parses the answer into the model."""
    backend = playing(*answer('{"city":', '"Paris"}'))
    async with serving(backend) as address, sdk(address) as client:
        completion = await client.chat.completions.parse(**chat(), response_format=Weather)

    assert completion.choices[0].message.parsed == Weather(city="Paris")
    (body,) = backend.dispatch.bodies
    assert isinstance(body.constraint, JsonConstraint)
    assert isinstance(body.constraint.schema, dict)
    assert body.constraint.schema["required"] == ["city"]


async def test_parse_helper_may_send_its_message_back() -> None:
    """A parsed answer is accepted as history."""
    async with serving(playing(*answer('{"city":"Paris"}'))) as address, sdk(address) as client:
        completion = await client.chat.completions.parse(**chat(), response_format=Weather)
        again = await client.chat.completions.create(**chat(messages=[completion.choices[0].message]))

    assert again.choices[0].finish_reason == "stop"


async def test_stream_helper_gathers_log_probabilities() -> None:
    """Log probabilities of all chunks are those of the whole answer."""
    top = (Likely(token=1, bytes=(72,), logprob=-0.1),)
    steps = [
        Delta(
            target=1,
            tokens=(1,),
            text=text,
            logprobs=(TokenLogprob(token=1, bytes=tuple(text.encode()), logprob=-0.5, top=top),),
        )
        for text in ("H", "i")
    ]
    async with serving(playing(STARTED, *steps, FINISHED)) as address, sdk(address) as client:
        async with client.chat.completions.stream(**chat(), logprobs=True, top_logprobs=1) as stream:
            final = await stream.get_final_completion()
        whole = await client.chat.completions.create(**chat(), logprobs=True, top_logprobs=1)

    assert final.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content is not None
    assert [each.token for each in final.choices[0].logprobs.content] == ["H", "i"]
    assert final.choices[0].logprobs == whole.choices[0].logprobs


async def test_stream_helper_keeps_choices_apart() -> None:
    """With `n` the SDK puts each choice together from its own chunks, whatever the order on the wire."""
    backend = playing_each(answer("a1", "a2"), answer("b1", "b2"), answer("c1"))
    async with (
        serving(backend) as address,
        sdk(address) as client,
        client.chat.completions.stream(**chat(), n=3, stream_options={"include_usage": True}) as stream,
    ):
        final = await stream.get_final_completion()

    assert [choice.message.content for choice in final.choices] == ["a1a2", "b1b2", "c1"]
    assert [choice.finish_reason for choice in final.choices] == ["stop"] * 3
    assert final.usage is not None
    assert final.usage.completion_tokens == 3 * USAGE.completion_tokens


async def test_helper_knows_an_answer_that_was_cut_short() -> None:
    """An answer that ran into its limit is the SDK's `LengthFinishReasonError`, not a parse error."""
    backend = playing(STARTED, delta('{"ci'), Finished(reason="length", usage=USAGE))
    async with serving(backend) as address, sdk(address) as client:
        with pytest.raises(openai.LengthFinishReasonError):
            await client.chat.completions.parse(**chat(), response_format=Weather)


async def test_completions_whole_and_streamed() -> None:
    """The legacy API answers the client too."""
    async with serving(playing(*answer(" upon", " a time"))) as address, sdk(address) as client:
        whole = await client.completions.create(model="default", prompt="Once")
        stream = await client.completions.create(model="default", prompt=[1, 2, 3], stream=True)
        pieces = [chunk.choices[0].text async for chunk in stream]
        several = await client.completions.create(model="default", prompt=["a", "b"])

    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == (
        "text_completion",
        " upon a time",
        "stop",
    )
    assert "".join(pieces) == " upon a time"
    assert [choice.index for choice in several.choices] == [0, 1]


async def test_parameters_of_other_servers_come_in_the_extra_body() -> None:
    """What vLLM's users send beside OpenAI's parameters counts."""
    backend = FakeBackend()
    extra = {
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.05,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    async with serving(backend) as address, sdk(address) as client:
        await client.chat.completions.create(**chat(), extra_body=extra)

    (body,) = backend.dispatch.bodies
    assert (body.sampling.top_k, body.sampling.min_p, body.sampling.repetition_penalty) == (20, 0.1, 1.05)
    assert isinstance(body.prompt, ChatPrompt)
    assert body.prompt.template_args == {"enable_thinking": False}
