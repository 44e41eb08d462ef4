"""OpenAI's and Anthropic's own SDKs against the embedded model: plain chats, streams, and what was cached."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from stoker.daemon.derived import EMBEDDED_ID
from tests.fakes.running_daemon import DEADLINE
from tests.fakes.served import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SYSTEM = "Answer with a single word."
QUESTION = "What is the capital of France?"
MOST = 12


@pytest.fixture(scope="module")
def url(embedded_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon that serves SmolLM2, with the tests' system prompt warm."""
    prompt = tmp_path_factory.mktemp("prompts") / "system.txt"
    prompt.write_text(SYSTEM, encoding="utf-8")
    with served(embedded_cache / EMBEDDED_ID, {"WARMUP_SYSTEM_FILE": str(prompt)}) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=DEADLINE) as api:
        yield api


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    """Anthropic's client."""
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=DEADLINE) as api:
        yield api


def messages(question: str = QUESTION, *, system: bool = True) -> list[Any]:
    return [*([{"role": "system", "content": SYSTEM}] if system else []), {"role": "user", "content": question}]


def test_all_apis_give_the_same_answer(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    """The same conversation is the same prompt and has the same answer, whichever API brings it."""
    chat = client.chat.completions.create(model=EMBEDDED_ID, messages=messages(), max_tokens=MOST)
    response = client.responses.create(model=EMBEDDED_ID, instructions=SYSTEM, input=QUESTION, max_output_tokens=MOST)
    message = claude.messages.create(
        model=EMBEDDED_ID, system=SYSTEM, messages=messages(system=False), max_tokens=MOST
    )
    block = message.content[0]
    assert block.type == "text"
    assert chat.usage is not None
    assert response.usage is not None

    assert "Paris" in block.text
    assert chat.choices[0].message.content == response.output_text == block.text
    assert chat.usage.prompt_tokens == response.usage.input_tokens
    assert chat.usage.completion_tokens == response.usage.output_tokens == message.usage.output_tokens


def test_all_apis_tell_the_warm_prefix(client: openai.OpenAI, claude: anthropic.Anthropic, url: str) -> None:
    """Asked something new behind the warm system prompt, each API says that its whole prefix was cached."""
    with urllib.request.urlopen(f"{url}/readyz", timeout=DEADLINE) as reply:  # noqa: S310 - it is our own
        (prefix,) = json.load(reply)["warmup"]["prefixes"]
    chat = client.chat.completions.create(model="default", messages=messages("Is it cold?"), max_tokens=1).usage
    response = client.responses.create(
        model="default", instructions=SYSTEM, input="Are cats big?", max_output_tokens=1
    ).usage
    message = claude.messages.create(
        model="default", system=SYSTEM, messages=messages("Can I?", system=False), max_tokens=1
    ).usage
    assert chat is not None
    assert chat.prompt_tokens_details is not None
    assert response is not None

    assert prefix["tokens"] > 0
    assert chat.prompt_tokens_details.cached_tokens == prefix["tokens"]
    assert response.input_tokens_details.cached_tokens == prefix["tokens"]
    assert message.cache_read_input_tokens == prefix["tokens"]


def test_streams_say_what_whole_answers_say(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    """Piece by piece, each SDK gathers the text that it gets in one."""
    whole = client.chat.completions.create(model="default", messages=messages(), max_tokens=MOST)
    chat = client.chat.completions.create(model="default", messages=messages(), max_tokens=MOST, stream=True)
    chatted = "".join(chunk.choices[0].delta.content or "" for chunk in chat if chunk.choices)
    with client.responses.stream(
        model="default", instructions=SYSTEM, input=QUESTION, max_output_tokens=MOST
    ) as events:
        responded = events.get_final_response().output_text
    with claude.messages.stream(
        model="default", system=SYSTEM, messages=messages(system=False), max_tokens=MOST
    ) as stream:
        said = stream.get_final_text()

    assert whole.choices[0].message.content == chatted == responded == said


def test_completion_goes_on_with_a_text(client: openai.OpenAI) -> None:
    """A text without a template is continued."""
    answer = client.completions.create(model="default", prompt="One, two, three, four, five,", max_tokens=4)

    assert "six" in answer.choices[0].text


def test_structured_answer_fits_its_schema(client: openai.OpenAI) -> None:
    """A model that would say something else is held to the schema, which leaves one answer."""
    schema = {"type": "object", "properties": {"sky": {"const": "green"}}, "required": ["sky"]}
    form: Any = {"format": {"type": "json_schema", "name": "sky", "schema": schema, "strict": True}}
    answer = client.responses.create(model="default", input=QUESTION, text=form, max_output_tokens=60)

    assert "".join(answer.output_text.split()) == '{"sky":"green"}'


def test_model_is_listed(client: openai.OpenAI) -> None:
    """The SDK's list has the model, and any of its names retrieves it."""
    assert [model.id for model in client.models.list()] == [EMBEDDED_ID]
    assert client.models.retrieve("default").id == EMBEDDED_ID
