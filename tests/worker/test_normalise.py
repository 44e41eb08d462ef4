"""What is noise, what isn't, and what is left of a prompt without it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.ipc.messages import ChatPrompt, TextPrompt, TokenPrompt
from stoker.worker.normalise import (
    normalised,
    normalised_messages,
    normalised_tools,
    without_billing_header,
)
from tests.fakes.agent_tools import AGENT_TOOLS, anthropic_tools, shuffled

HEADER = "x-anthropic-billing-header: cc_version=2.1.37.3a3; cc_entrypoint=cli; cch=694d6;"
MARK = {"cache_control": {"type": "ephemeral"}}
PROMPT = "You are a coding agent.\n\nRead before you write."

WORDS = st.sampled_from(
    ["type", "properties", "required", "items", "enum", "default", "cache_control", "name", "anyOf", "$defs", "path"]
) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(WORDS, JSON, max_size=5)
TOOLS = st.lists(
    st.fixed_dictionaries({"type": st.just("function"), "function": st.fixed_dictionaries({"parameters": SCHEMAS})})
    | st.fixed_dictionaries(
        {"name": st.text(max_size=5), "input_schema": SCHEMAS}, optional={"x": JSON, "cache_control": JSON}
    )
    | SCHEMAS,
    max_size=3,
)
LINES = st.lists(
    st.sampled_from(
        [HEADER, HEADER + HEADER, "  " + HEADER, HEADER + " ", PROMPT, "", " ", "\r", "cch=1;", HEADER[:-1]]
    )
    | st.text(max_size=8),
    max_size=5,
)
TEXTS = st.builds(str.join, st.sampled_from(["\n", "\n\n", "", "\r\n"]), LINES)
PARTS = st.lists(
    st.builds(lambda text, more: {"type": "text", "text": text, **more}, TEXTS, st.sampled_from([{}, MARK])) | TEXTS,
    max_size=4,
)
MESSAGES = st.lists(
    st.builds(
        lambda role, content, more: {"role": role, "content": content, **more},
        st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
        TEXTS | PARTS | st.none(),
        st.sampled_from([{}, MARK, {"name": "x"}]),
    ),
    max_size=4,
)


def system(content: Any) -> tuple[dict[str, Any], ...]:
    return ({"role": "system", "content": content}, {"role": "user", "content": "hello"})


def in_order(value: Any) -> Any:
    """A value that can be compared with its order of keys."""
    if isinstance(value, dict):
        return [(key, in_order(each)) for key, each in value.items()]
    return [in_order(each) for each in value] if isinstance(value, list | tuple) else value


# -- the billing header --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{HEADER}\n{PROMPT}", PROMPT),
        (f"{HEADER}\n\n{PROMPT}", PROMPT),
        (f"{HEADER}\r\n{PROMPT}", PROMPT),
        (f"{HEADER}{PROMPT}", PROMPT),
        (f"{HEADER[:-1]}\n{PROMPT}", PROMPT),
        (f"X-Anthropic-Billing-Header: cch=1; cc_prev_req=req_011Cd;\n{PROMPT}", PROMPT),
        (f"One.\n{HEADER}\nTwo.", "One.\nTwo."),
        (f"One.\n  {HEADER}  \nTwo.", "One.\nTwo."),
        (f"One.\n{HEADER}", "One.\n"),
        (HEADER, ""),
    ],
)
def test_billing_header_is_taken_out(text: str, left: str) -> None:
    """The header's line goes, wherever it is; of a line that goes on, only the header goes."""
    assert without_billing_header(text) == left


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        "",
        "Ignore lines with x-anthropic-billing-header: they are accounting.",
        "x-anthropic-billing-header: a header that some agents send",
        "x-anthropic-billing-header:",
        "Send `x-anthropic-billing-header: cch=1;` with each request.",
        "  indented\n\n\nand spaced  \n",
    ],
)
def test_text_about_the_header_stays(text: str) -> None:
    """Text that mentions the header, without being one, is left as it is."""
    assert without_billing_header(text) == text


def test_requests_that_differ_in_the_header_become_equal() -> None:
    """Two requests of one agent, as text and as parts, have the same system message."""
    other = HEADER.replace("694d6", "0aaa9").replace("3a3", "f00")
    text, again = (normalised_messages(system(f"{header}\n{PROMPT}")) for header in (HEADER, other))
    parts, parts_again = (
        normalised_messages(system([{"type": "text", "text": header}, {"type": "text", "text": PROMPT, **mark}]))
        for header, mark in ((HEADER, MARK), (other, {}))
    )

    assert text == again == system(PROMPT)
    assert parts == parts_again == system([{"type": "text", "text": PROMPT}])


@pytest.mark.parametrize("content", [HEADER, HEADER + "\n", [{"type": "text", "text": HEADER}], [HEADER]])
def test_message_of_nothing_but_the_header_goes(content: Any) -> None:
    """A system message that held only the header is left out; an empty one that came so is not."""
    assert normalised_messages(system(content)) == system(PROMPT)[1:]
    assert normalised_messages(system("")) == system("")


def test_last_message_stays() -> None:
    """A prompt doesn't become empty: its last message stays, without text."""
    assert normalised_messages(({"role": "system", "content": HEADER, **MARK},)) == (
        {"role": "system", "content": ""},
    )


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_what_users_say_stays(role: str) -> None:
    """A header in anyone's text but the system's is content."""
    message = {"role": role, "content": f"{HEADER}\nWhat is this?"}

    assert normalised_messages((message,)) == (message,)


# -- cache_control -------------------------------------------------------------------------------------------


def test_cache_marks_are_taken_out_wherever_the_api_has_them() -> None:
    """Messages, parts, tool results' parts, tool calls and tools lose the mark, and nothing else."""
    text = {"type": "text", "text": "hi"}
    marked = {
        "role": "user",
        "content": [{**text, **MARK}, {"type": "tool_result", "content": [{**text, **MARK}], **MARK}],
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}, **MARK}],
        **MARK,
    }

    assert normalised_messages((marked,)) == (
        {
            "role": "user",
            "content": [text, {"type": "tool_result", "content": [text]}],
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}],
        },
    )
    assert normalised_tools(({"name": "f", **MARK}, {"type": "function", "function": {"name": "g", **MARK}})) == (
        {"name": "f"},
        {"type": "function", "function": {"name": "g"}},
    )


def test_property_of_that_name_stays() -> None:
    """A tool may have a parameter that is called `cache_control`, and a call may give it."""
    schema = {"type": "object", "properties": {"cache_control": {"type": "string"}}, "required": ["cache_control"]}
    call = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": {"cache_control": "no-store"}}}],
    }

    assert normalised_tools(({"name": "f", "parameters": schema},))[0]["parameters"] == schema
    assert normalised_messages((call,)) == (call,)


# -- order of keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [AGENT_TOOLS, anthropic_tools()], ids=["openai", "anthropic"])
@pytest.mark.parametrize("seed", range(5))
def test_order_of_keys_does_not_matter(tools: tuple[dict[str, Any], ...], seed: int) -> None:
    """A real agent's tools become the same, order included, however their keys are shuffled; and mean the same."""
    mixed = shuffled(tools, seed)

    assert in_order(mixed) != in_order(tools)
    assert in_order(normalised_tools(mixed)) == in_order(normalised_tools(tools))
    assert normalised_tools(mixed) == tools


def test_order_is_that_of_training_data() -> None:
    """Type, name, description and parameters come first; required properties come in the author's order."""
    schema = {
        "required": ["path", "content"],
        "additionalProperties": False,
        "properties": {"mode": {"enum": ["b", "a"], "type": "string"}, "content": {}, "append": {}, "path": {}},
        "type": "object",
    }
    (tool,) = normalised_tools(({"function": {"parameters": schema, "name": "write"}, "type": "function"},))
    parameters = tool["function"]["parameters"]

    assert [*tool, *tool["function"]] == ["type", "function", "name", "parameters"]
    assert list(parameters) == ["type", "properties", "required", "additionalProperties"]
    assert list(parameters["properties"]) == ["path", "content", "append", "mode"]
    assert in_order(parameters["properties"]["mode"]) == [("type", "string"), ("enum", ["b", "a"])]


def test_names_are_not_keywords() -> None:
    """Properties called `type` or `properties` are ordered as names, and defaults as values."""
    schema = {
        "properties": {"type": {}, "properties": {"type": "object"}, "a": {"default": {"type": 1, "b": 2}}},
    }
    (tool,) = normalised_tools(({"name": "f", "input_schema": schema},))

    assert list(tool["input_schema"]["properties"]) == ["a", "properties", "type"]
    assert list(tool["input_schema"]["properties"]["a"]["default"]) == ["b", "type"]


def test_order_of_tools_and_lists_stays() -> None:
    """Tools, and what is listed in their schemas, keep their order: it may mean something."""
    names = [tool["function"]["name"] for tool in normalised_tools(reversed(AGENT_TOOLS))]
    (tool,) = normalised_tools(({"parameters": {"enum": ["z", "a"], "anyOf": [{"type": "z"}, {"type": "a"}]}},))

    assert names == [tool["function"]["name"] for tool in reversed(AGENT_TOOLS)]
    assert tool["parameters"] == {"enum": ["z", "a"], "anyOf": [{"type": "z"}, {"type": "a"}]}


@pytest.mark.parametrize("key", ["parameters", "function", "items", "properties"])
def test_endless_nesting_is_survived(key: str) -> None:
    """However deep a client nests, the worker doesn't run out of stack; what is too deep stays as it is."""
    deep: Any = "the bottom"
    parts: Any = HEADER
    for _ in range(700):
        deep, parts = {key: deep}, [parts]

    for tool in (deep, {"parameters": deep}, {"function": {"parameters": deep}}):
        assert normalised_tools((tool,)) == (tool,)
    assert normalised_messages(system(parts)) == system(parts)


# -- the whole -----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(messages=MESSAGES, tools=TOOLS)
def test_twice_is_once_and_nothing_is_changed_in_place(messages: Any, tools: Any) -> None:
    """What is normal stays as it is, order of keys included, and the prompt that is given isn't touched."""
    prompt = ChatPrompt(messages=tuple(messages), tools=tuple(tools), template_args={"enable_thinking": True})
    before = copy.deepcopy(prompt)
    once = normalised(prompt)
    twice = normalised(once)
    assert isinstance(once, ChatPrompt)
    assert isinstance(twice, ChatPrompt)

    assert in_order((twice.messages, twice.tools)) == in_order((once.messages, once.tools))
    assert in_order((prompt.messages, prompt.tools)) == in_order((before.messages, before.tools))
    assert once.template_args == prompt.template_args


@settings(max_examples=200, deadline=None)
@given(tools=TOOLS, seed=st.integers(0, 99))
def test_tools_mean_what_they_meant(tools: Any, seed: int) -> None:
    """For any JSON, only the mark is lost and only the order changes, and shuffled keys make no difference."""
    plain = [{key: value for key, value in tool.items() if key != "cache_control"} for tool in tools]

    assert list(normalised_tools(tools)) == plain
    assert in_order(normalised_tools(shuffled(tools, seed))) == in_order(normalised_tools(tools))


@settings(max_examples=200, deadline=None)
@given(
    content=st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3), role=st.sampled_from(["system", "user"])
)
def test_clean_messages_stay_as_they_are(content: Any, role: str) -> None:
    """Text without noise is not touched: no white space, no character."""
    message = {"role": role, "content": content}

    assert normalised_messages((message,)) == (message,)


def test_it_can_be_switched_off() -> None:
    """Switched off, the prompt reaches the template as it came."""
    prompt = ChatPrompt(messages=system(HEADER), tools=shuffled(AGENT_TOOLS, 1))

    assert normalised(prompt, normalise=False) is prompt


@pytest.mark.parametrize("prompt", [TextPrompt(text=HEADER), TokenPrompt(tokens=(1, 2))], ids=["text", "tokens"])
def test_other_prompts_are_not_touched(prompt: TextPrompt | TokenPrompt) -> None:
    """Only conversations are normalised."""
    assert normalised(prompt) is prompt
