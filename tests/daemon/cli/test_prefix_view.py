from __future__ import annotations

import io
import re

import msgspec
from rich.console import Console

from stoker.daemon.cli.prefix_view import LEARNING, shown
from stoker.ipc.control_messages import PrefixListing
from stoker.ipc.messages import KnownPrefix
from tests.fakes.fake_steward import LEARNED, LISTING

NOW = 1_700_000_000.0 + 3 * 86400
LARGE = msgspec.structs.replace(
    LEARNED, tokens=32_768, tokens_warm=32_768, seen=999, tokens_saved=9_999_999, last_used=NOW - 13 * 86400
)


def drawn(listing: PrefixListing, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(shown(listing, NOW))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_learned_prefix_has_all_its_figures() -> None:
    """Name, origin, tokens, how many are warm, pinned, seen, tokens saved, and when it was last used."""
    head, _, learned = drawn(LISTING).splitlines()

    heads = ["name", "origin", "tokens", "warm", "pinned", "seen", "saved", "last used"]
    assert re.split(r" {2,}", head.strip()) == heads
    cells = ["learned-1a2b3c4d", "learned", "2,048", "2,048", "yes", "12", "22,528", "3 d ago"]
    assert re.split(r" {2,}", learned.strip()) == cells


def test_a_configured_prefix_has_no_counts() -> None:
    """It is warmed at each start whatever its use, which isn't counted: no figures that mean nothing."""
    configured = drawn(LISTING).splitlines()[1]

    assert configured.split() == ["system", "configured", "1,832", "1,832"]


def test_a_listing_fits_a_narrow_terminal() -> None:
    """With large figures too, a prefix takes one line of 80 columns, and nothing of it is cut off."""
    lines = drawn(PrefixListing(prefixes=(LARGE,)), width=80).splitlines()

    assert len(lines) == 2
    assert re.split(r" {2,}", lines[1].strip()) == [
        *("learned-1a2b3c4d", "learned", "32,768", "32,768", "yes", "999", "9,999,999", "13 d ago")
    ]


def test_a_long_name_is_shown_whole() -> None:
    """A name that is too long for its column goes on in the next line: it is needed to pin and to forget."""
    name = "prompts/of/a/project/with/a/long/path/agent.md"
    lines = drawn(PrefixListing(prefixes=(KnownPrefix(name=name, origin="configured", tokens=9, tokens_warm=9),)), 60)

    assert name in "".join(line.split("  ")[0] for line in lines.splitlines()[1:5])


def test_learning_is_explained_where_nothing_was_learned() -> None:
    """An empty listing, or one of configured prefixes only, says what learning is; another doesn't."""
    configured = LISTING.prefixes[:1]

    for prefixes in ((), configured):
        assert LEARNING[:20] in drawn(PrefixListing(prefixes=prefixes))
    assert LEARNING[:20] not in drawn(LISTING)


def test_notes_come_last() -> None:
    """What is wrong with the learned prefixes is told below them."""
    assert drawn(PrefixListing(prefixes=LISTING.prefixes, notes=("put aside",))).splitlines()[-1] == "note: put aside"


def test_what_commands_a_terminal_is_not_shown() -> None:
    """Names and notes from elsewhere come without control characters, and what looks like markup as it is."""
    odd = KnownPrefix(name="[bold]\x1b[2J", origin="configured", tokens=1, tokens_warm=1)
    text = drawn(PrefixListing(prefixes=(odd,), notes=("\x1b]0;\x07",)))

    assert "[bold]\ufffd[2J" in text
    assert "\x1b" not in text
    assert "\x07" not in text
