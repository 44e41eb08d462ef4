"""Which prefixes are learned, what they are worth, and what is forgotten."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from stoker.ipc.messages import ChatPrompt, TextPrompt
from stoker.worker.errors import InvalidPrompt
from stoker.worker.learning import (
    FORGOTTEN_FOR,
    LARGEST,
    LEAST_TOKENS,
    MOST_LEARNED,
    Ledger,
    Opening,
    Record,
    key_of,
    opening_of,
)
from stoker.worker.normalise import normalised
from tests.fakes.agent_tools import AGENT_TOOLS, shuffled
from tests.fakes.requests_seen import DAY, NOW, chat, observe, systems, tokens_of

# -- what a chat opens with ------------------------------------------------------------------------------------


def test_chats_open_with_system_messages_tools_and_arguments() -> None:
    """The opening ends where the user begins, and later system messages don't belong to it."""
    messages = (
        {"role": "system", "content": "one"},
        {"role": "developer", "content": [{"type": "text", "text": "tw"}, {"type": "text", "text": "o"}]},
        {"role": "user", "content": "hello"},
        {"role": "system", "content": "three"},
    )
    opening = opening_of(ChatPrompt(messages=messages, tools=AGENT_TOOLS, template_args={"enable_thinking": False}))

    assert opening == Opening(
        messages=({"role": "system", "content": "one"}, {"role": "developer", "content": "two"}),
        tools=AGENT_TOOLS,
        template_args={"enable_thinking": False},
    )


def test_chats_without_anything_in_front_have_no_opening() -> None:
    """Neither a bare question nor a text prompt opens with anything; tools alone are enough."""
    bare = ChatPrompt(messages=({"role": "user", "content": "hello"},))

    assert opening_of(bare) is None
    assert opening_of(TextPrompt(text="hello")) is None
    assert opening_of(msgspec.structs.replace(bare, tools=AGENT_TOOLS)) is not None


@pytest.mark.parametrize(
    "other",
    [
        chat("You keep the fires."),
        chat(tools=AGENT_TOOLS[:1]),
        chat(template_args={"enable_thinking": True}),
    ],
    ids=["text", "tools", "arguments"],
)
def test_openings_that_differ_have_other_keys(other: ChatPrompt) -> None:
    """Another text, tool or template argument is another opening; another question is not."""
    one, same, another = (opening_of(prompt) for prompt in (chat(), chat(user="bye"), other))
    assert one is not None
    assert same is not None
    assert another is not None

    assert key_of(one) == key_of(same) != key_of(another)


def test_order_of_keys_counts_as_far_as_the_template_sees_it() -> None:
    """Tools whose keys are shuffled are another opening, for they are printed so, until they are normalised."""
    plain, mixed = (chat(tools=tools) for tools in (AGENT_TOOLS, shuffled(AGENT_TOOLS, 1)))
    keys = [opening_of(prompt) for prompt in (plain, mixed, normalised(plain), normalised(mixed))]
    raw, raw_mixed, clean, clean_mixed = (key_of(opening) for opening in keys if opening)

    assert raw != raw_mixed
    assert clean == clean_mixed


# -- learning --------------------------------------------------------------------------------------------------


def test_prefix_is_learned_when_seen_twice() -> None:
    """Once is chance, twice is learned; its length is measured then, and only then."""
    ledger = Ledger()
    measured: list[Opening] = []

    def measure(opening: Opening) -> int:
        measured.append(opening)
        return 700

    assert ledger.observe(chat(), NOW, measure) is None
    assert measured == []
    learned = ledger.observe(chat(user="again"), NOW + 5, measure)
    again = ledger.observe(chat(user="and again"), NOW + 6, measure)
    assert learned is not None
    assert again is not None

    assert (learned.tokens, learned.seen, learned.tokens_saved, learned.last) == (700, 2, 700, NOW + 5)
    assert (again.seen, again.tokens_saved, again.key) == (3, 1400, learned.key)
    assert len(measured) == 1
    assert ledger.best(3, NOW) == (again,)


def test_what_a_client_wants_kept_is_learned_at_once() -> None:
    """A request that says so is learned at first sight, counted from there, and not learned twice."""
    ledger = Ledger()
    learned = ledger.observe(chat("700 x"), NOW, lambda _: 700, keep=True)
    again = ledger.observe(chat("700 x", user="again"), NOW + 5, lambda _: 0, keep=True)
    assert learned is not None
    assert again is not None

    assert (learned.seen, learned.uses, learned.last, learned.tokens_saved) == (1, 1.0, NOW, 0)
    assert (again.seen, again.tokens, again.tokens_saved) == (2, 700, 700)
    assert ledger.record().sightings == {}


def test_what_is_kept_has_limits_too() -> None:
    """Too short, forgotten, or without an opening, a prompt is not learned, whoever wants it kept."""
    ledger = Ledger()

    assert ledger.observe(chat(), NOW, lambda _: LEAST_TOKENS - 1, keep=True) is None
    assert ledger.observe(TextPrompt(text="x"), NOW, lambda _: 700, keep=True) is None
    learned = ledger.observe(chat("700 x"), NOW, lambda _: 700, keep=True)
    assert learned is not None
    ledger.forget(learned.name, NOW)
    assert ledger.observe(chat("700 x"), NOW + 1, lambda _: 700, keep=True) is None


def test_text_of_what_was_seen_once_is_not_kept() -> None:
    """Of an opening seen once, the record has a checksum and nothing to read."""
    ledger = Ledger()
    observe(ledger, chat("my secret plan"), times=1)
    data = msgspec.json.encode(ledger.record())

    assert b"secret" not in data
    assert len(ledger.record().sightings) == 1


def test_names_tell_nothing() -> None:
    """A learned prefix is named by its checksum."""
    ledger = Ledger()
    observe(ledger, chat("my secret plan"))
    (entry,) = ledger.listing(NOW)

    assert entry.name == f"learned-{entry.key[:8]}"
    assert entry.key == key_of(entry.opening)


def test_short_prefixes_are_not_learned() -> None:
    """A prefix that is computed in no time isn't learned, nor measured again each time."""
    ledger = Ledger()
    measured: list[Opening] = []

    def measure(opening: Opening) -> int:
        measured.append(opening)
        return LEAST_TOKENS - 1

    for _ in range(5):
        assert ledger.observe(chat(), NOW, measure) is None
    assert len(measured) == 1
    observe(ledger, chat(f"{LEAST_TOKENS} tokens are enough"))

    assert len(ledger.listing(NOW)) == 1


def test_opening_that_cannot_be_rendered_alone_is_not_learned() -> None:
    """Where the template refuses the opening with a bare question, there is nothing to warm."""

    def refuse(opening: Opening) -> int:
        raise InvalidPrompt("no")

    ledger = Ledger()
    results = [ledger.observe(chat(), NOW, refuse) for _ in range(3)]

    assert results == [None] * 3
    assert ledger.listing(NOW) == ()


def test_enormous_openings_are_not_learned() -> None:
    """An opening of over 1 MiB leaves no trace."""
    ledger = Ledger()
    observe(ledger, chat("x" * LARGEST), times=3)

    assert ledger.record() == Record()


# -- pin, forget, clear ------------------------------------------------------------------------------------------


def name_of(ledger: Ledger, system: str) -> str:
    return next(each.name for each in ledger.listing(NOW) if each.opening.messages[0]["content"] == system)


def test_pinned_prefix_stays_and_comes_first() -> None:
    """A pinned prefix is warmed whatever it is worth, beyond the count, and never dropped for others."""
    ledger = Ledger()
    observe(ledger, chat("64 dear"))
    assert ledger.pin(name_of(ledger, "64 dear"))
    for number in range(MOST_LEARNED + 5):
        observe(ledger, chat(f"{1000 + number} x"))

    assert systems(ledger, count=1) == ["64 dear", f"{1000 + MOST_LEARNED + 4} x"]
    assert systems(ledger, count=0) == ["64 dear"]
    assert ledger.pin(name_of(ledger, "64 dear"), pinned=False)
    observe(ledger, chat("2000 x"))
    assert "64 dear" not in systems(ledger)


def test_where_all_are_pinned_nothing_new_is_learned() -> None:
    """Pins hold against newcomers, too."""
    ledger = Ledger()
    for number in range(MOST_LEARNED):
        observe(ledger, chat(f"{100 + number} x"))
        ledger.pin(name_of(ledger, f"{100 + number} x"))
    observe(ledger, chat("9999 newcomer"))

    assert len(ledger.listing(NOW)) == MOST_LEARNED
    assert "9999 newcomer" not in systems(ledger)


def test_forgotten_prefix_does_not_come_back_for_a_while() -> None:
    """A forgotten prefix, pinned or not, isn't learned from the requests that go on; a week later it is."""
    ledger = Ledger()
    observe(ledger, chat())
    (entry,) = ledger.listing(NOW)
    ledger.pin(entry.name)
    assert ledger.forget(entry.name, NOW)
    observe(ledger, chat(), at=NOW + FORGOTTEN_FOR - 1, times=5)
    assert ledger.listing(NOW) == ()
    ledger = Ledger(ledger.record(), NOW + FORGOTTEN_FOR - 1)
    observe(ledger, chat(), at=NOW + FORGOTTEN_FOR - 1, times=5)
    assert ledger.listing(NOW) == ()
    observe(ledger, chat(), at=NOW + FORGOTTEN_FOR)

    assert len(ledger.listing(NOW)) == 1


def test_unknown_names_are_refused() -> None:
    """Pinning or forgetting what isn't there says so."""
    ledger = Ledger()

    assert not ledger.pin("learned-00000000")
    assert not ledger.forget("learned-00000000", NOW)


def test_clear_drops_all_but_what_is_forgotten() -> None:
    """Clearing drops pinned prefixes and sightings too, and brings nothing back that was forgotten."""
    ledger = Ledger()
    observe(ledger, chat("500 a"), chat("500 b"), chat("500 c"))
    observe(ledger, chat("500 once"), times=1)
    ledger.pin(name_of(ledger, "500 a"))
    ledger.forget(name_of(ledger, "500 b"), NOW)

    assert ledger.clear() == 2
    observe(ledger, chat("500 once"), times=1)
    observe(ledger, chat("500 b"))
    assert ledger.listing(NOW) == ()


# -- across runs -------------------------------------------------------------------------------------------------


def test_ledger_goes_on_in_the_next_run() -> None:
    """A ledger made from a record, written and read as JSON, knows all that the first one knew."""
    first = Ledger()
    observe(first, chat("500 a", tools=AGENT_TOOLS), chat("800 b"))
    observe(first, chat("500 once"), times=1)
    first.pin(name_of(first, "500 a"))
    data = msgspec.json.encode(first.record())
    second = Ledger(msgspec.json.decode(data, type=Record), NOW)
    observe(second, chat("500 once"), times=1)

    assert second.listing(NOW)[:2] == first.listing(NOW)
    assert systems(second) == ["500 a", "800 b", "500 once"]


def test_damaged_entries_are_left_out() -> None:
    """An entry whose text isn't what its key says would warm what nobody asks for, and isn't taken."""
    ledger = Ledger()
    observe(ledger, chat("500 a"), chat("500 b"))
    record = ledger.record()
    damaged = msgspec.structs.replace(record.learned[0], opening=Opening(messages=({"role": "system"},)))
    again = Ledger(msgspec.structs.replace(record, learned=(damaged, record.learned[1])), NOW)

    assert systems(again) == ["500 b"]


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of requests and orders keeps the books right."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.now = NOW
        self.pinned: set[str] = set()

    @rule(number=st.integers(0, 12), seconds=st.floats(-DAY, DAY))
    def request(self, number: int, seconds: float) -> None:
        self.now = max(self.now + seconds, 0.0)
        self.ledger.observe(chat(f"{40 + 20 * number} x"), self.now, tokens_of)

    @rule(number=st.integers(0, 12), pinned=st.booleans())
    def pin(self, number: int, pinned: bool) -> None:
        entries = self.ledger.listing(self.now)
        if number < len(entries) and self.ledger.pin(entries[number].name, pinned=pinned):
            self.pinned = self.pinned | {entries[number].key} if pinned else self.pinned - {entries[number].key}

    @rule(number=st.integers(0, 12))
    def forget(self, number: int) -> None:
        entries = self.ledger.listing(self.now)
        if number < len(entries):
            assert self.ledger.forget(entries[number].name, self.now)
            self.pinned -= {entries[number].key}

    @rule()
    def restart(self) -> None:
        record = msgspec.json.decode(msgspec.json.encode(self.ledger.record()), type=Record)
        self.ledger = Ledger(record, self.now)

    @invariant()
    def books_are_right(self) -> None:
        entries = self.ledger.listing(self.now)

        assert {entry.key for entry in entries if entry.pinned} == self.pinned
        assert all(entry.tokens >= LEAST_TOKENS and entry.seen >= 2 for entry in entries)
        assert all(entry.key == key_of(entry.opening) and 0 <= entry.uses <= entry.seen for entry in entries)
        assert not {entry.key for entry in entries} & self.ledger.record().sightings.keys()
        assert [entry.pinned for entry in self.ledger.best(3, self.now)].count(False) <= 3


def test_any_sequence_keeps_the_books() -> None:
    """Whatever is asked, pinned and forgotten in any order, by any clock, across restarts, the rules hold."""
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=50, stateful_step_count=30, deadline=None)
    )
