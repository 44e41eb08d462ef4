from __future__ import annotations

import io
import json
import sys

import msgspec
import pytest

from stoker.daemon.cli.warm import QUESTION
from stoker.daemon.steward import Refusal
from stoker.ipc.control_messages import PrefixListing
from stoker.ipc.errors import ErrorCode
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import LISTING, FakeSteward


class Terminal(io.StringIO):
    """Standard input with somebody who types."""

    def isatty(self) -> bool:
        return True


def test_list_shows_each_prefix(stoker: Run, serve: Serve) -> None:
    """A line for each prefix, below the heads."""
    serve(FakeSteward())
    outcome = stoker("warm", "list")
    head, *lines = outcome.out.splitlines()

    assert (outcome.code, outcome.err) == (0, "")
    assert head.split("  ")[0] == "name"
    assert [line.split()[0] for line in lines] == [prefix.name for prefix in LISTING.prefixes]


def test_list_in_json_is_the_listing(stoker: Run, serve: Serve) -> None:
    """`--json` prints what the control socket answered, for programs."""
    listing = PrefixListing(prefixes=LISTING.prefixes, notes=("put aside",))
    serve(FakeSteward(listing=listing))

    assert json.loads(stoker("warm", "list", "--json").out) == json.loads(msgspec.json.encode(listing))


@pytest.mark.parametrize(
    ("options", "pinned", "words"),
    [
        ((), True, "learned-1 is pinned: warmed at every start\n"),
        (("--off",), False, "learned-1 is no longer pinned\n"),
    ],
)
def test_pin(stoker: Run, serve: Serve, options: tuple[str, ...], pinned: bool, words: str) -> None:
    """A prefix is pinned by its name, and with `--off` no longer."""
    steward = serve(FakeSteward()).steward
    outcome = stoker("warm", "pin", "learned-1", *options)

    assert (outcome.code, outcome.out) == (0, words)
    assert steward.asked == [("pin", "learned-1", pinned)]


def test_forget(stoker: Run, serve: Serve) -> None:
    """A prefix is forgotten by its name."""
    steward = serve(FakeSteward()).steward
    outcome = stoker("warm", "forget", "learned-1")

    assert (outcome.code, outcome.out) == (0, "learned-1 is forgotten\n")
    assert steward.asked == [("forget", "learned-1")]


@pytest.mark.parametrize(
    "arguments", [("list",), ("pin", "x"), ("pin", "x", "--off"), ("forget", "x"), ("clear", "--yes")]
)
def test_a_refusal_is_one_line_with_its_remedy(stoker: Run, serve: Serve, arguments: tuple[str, ...]) -> None:
    """The daemon's "no" is told as for other orders: one line, exit code 2."""
    serve(FakeSteward(fault=Refusal("no worker is ready", "wait for ready", ErrorCode.NOT_READY)))
    outcome = stoker("warm", *arguments)

    assert (outcome.code, outcome.out, outcome.err) == (2, "", "stoker: no worker is ready; wait for ready\n")


@pytest.mark.parametrize(("count", "words"), [(0, "0 learned prefixes"), (1, "1 learned prefix of"), (3, "3 ")])
def test_clear_with_yes_does_not_ask(stoker: Run, serve: Serve, count: int, words: str) -> None:
    """`--yes` is enough anywhere; the answer says how many this model had, and none is no failure."""
    steward = serve(FakeSteward(count=count)).steward
    outcome = stoker("warm", "clear", "--yes")

    assert (outcome.code, outcome.err, steward.asked) == (0, "", [("forget", None)])
    assert words in outcome.out


def test_clear_asks_on_a_terminal(stoker: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who says yes gets what was asked for; the question is not in the output."""
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    steward = serve(FakeSteward()).steward
    outcome = stoker("warm", "clear")

    assert (outcome.code, steward.asked) == (0, [("forget", None)])
    assert QUESTION in outcome.err
    assert outcome.out.startswith("forgotten: 1 ")


@pytest.mark.parametrize("typed", ["n\n", "\n", "yesterday\n", ""])
def test_clear_without_consent_forgets_nothing(
    stoker: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """No, a mere line end, another word and leaving are each no consent."""
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    steward = serve(FakeSteward()).steward
    outcome = stoker("warm", "clear")

    assert (outcome.code, outcome.out, steward.asked) == (1, "", [])
    assert outcome.err.endswith("stoker: nothing was forgotten\n")


def test_clear_without_a_terminal_needs_yes(stoker: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked it is wrong usage, even with a "y" in the pipe; one line says what is missing."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    steward = serve(FakeSteward()).steward
    outcome = stoker("warm", "clear")

    assert (outcome.code, outcome.out, steward.asked) == (2, "", [])
    assert "--yes" in outcome.err
    assert outcome.err.count("\n") == 1
