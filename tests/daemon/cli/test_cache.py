from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from stoker.daemon.steward import Refusal
from stoker.ipc.control_messages import StoredListing
from stoker.ipc.errors import ErrorCode
from stoker.ipc.messages import StoredPrefix
from tests.fakes.command_line import Run, Serve
from tests.fakes.fake_steward import STORED, FakeSteward

OURS, FOREIGN = STORED.prefixes


class Terminal(io.StringIO):
    """Standard input with somebody who types."""

    def isatty(self) -> bool:
        return True


def test_list_shows_each_prefix_and_what_is_not_used(stoker: Run, serve: Serve) -> None:
    """A line for each entry with whether it can be used and why not; then what was damaged, and where files are."""
    serve(FakeSteward())
    outcome = stoker("cache", "list")
    head, ours, foreign, damaged, folder = outcome.out.splitlines()

    assert (outcome.code, outcome.err) == (0, "")
    assert head.split()[:3] == ["name", "tokens", "size"]
    assert ours.split()[:3] == ["system", "1,832", "84.4"]
    assert ours.rstrip().endswith("yes")
    assert "no, another model (other)" in foreign
    assert damaged.startswith("old was damaged, and deleted")
    assert "checksum" in damaged
    assert folder.endswith("in /cache/prefixes")


def test_what_is_set_aside_says_why(stoker: Run, serve: Serve) -> None:
    """An entry in quarantine has its reason in its line; one without a name has its key."""
    entry = StoredPrefix(
        key="4d" * 20, name=None, model="tiny", tokens=0, bytes=1, created=0, used=0, set_aside="the worker died"
    )
    serve(FakeSteward(stored=StoredListing(folder="/c", prefixes=(entry,), bytes=1, budget_bytes=2)))
    line = stoker("cache", "list").out.splitlines()[1]

    assert line.split()[:2] == ["4d4d4d4d4d4d", "unknown"]
    assert line.rstrip().endswith("set aside: the worker died")


def test_an_empty_cache_says_so(stoker: Run, serve: Serve) -> None:
    """With nothing on disk there is a sentence instead of a table."""
    serve(FakeSteward(stored=StoredListing(folder="/c", prefixes=(), bytes=0, budget_bytes=2)))

    assert stoker("cache", "list").out.startswith("nothing is stored yet")


def test_list_in_json_is_the_listing(stoker: Run, serve: Serve) -> None:
    """`--json` prints what the control socket answered, for programs."""
    serve(FakeSteward())

    assert json.loads(stoker("cache", "list", "--json").out) == json.loads(msgspec.json.encode(STORED))


def test_verify_reads_one_after_the_other(stoker: Run, serve: Serve) -> None:
    """All that is listed is verified; where all is well the exit code is 0, and the output one line."""
    steward = serve(FakeSteward()).steward
    outcome = stoker("cache", "verify")

    assert (outcome.code, outcome.out) == (0, "2 read, 88.4 MB: all as they were saved\n")
    assert steward.asked == ["cache_list", ("verify", OURS.key), ("verify", FOREIGN.key)]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_damage_is_told_and_is_a_negative_answer(stoker: Run, serve: Serve, form: tuple[str, ...]) -> None:
    """Exit code 1, and what was wrong with which."""
    serve(FakeSteward(faults={OURS.key: "the checksum doesn't fit"}))
    outcome = stoker("cache", "verify", *form)

    assert outcome.code == 1
    if form:
        assert [one.get("fault") for one in json.loads(outcome.out)["prefixes"]] == ["the checksum doesn't fit", None]
    else:
        assert outcome.out == "system: the checksum doesn't fit; deleted\n2 read, 88.4 MB: 1 damaged\n"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("agent",), ("clear", "agent", False)),
        (("--foreign",), ("clear", None, True)),
        (("agent", "--foreign"), ("clear", "agent", True)),
        (("--yes",), ("clear", None, False)),
    ],
)
def test_clear(stoker: Run, serve: Serve, arguments: tuple[str, ...], asked: object) -> None:
    """One, what is foreign, or with `--yes` all: the answer says how many, and bytes."""
    steward = serve(FakeSteward()).steward
    outcome = stoker("cache", "clear", *arguments)

    assert (outcome.code, outcome.out) == (0, "deleted: 1 prefix, 84.4 MB\n")
    assert steward.asked == [asked]


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_clearing_all_asks_on_a_terminal(
    stoker: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """Only somebody who says yes loses all of it."""
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    steward = serve(FakeSteward()).steward

    assert stoker("cache", "clear").code == code
    assert steward.asked == ([] if code else [("clear", None, False)])


def test_clearing_all_without_a_terminal_needs_yes(
    stoker: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can be asked it is wrong usage, and nothing is deleted."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    steward = serve(FakeSteward()).steward
    outcome = stoker("cache", "clear")

    assert (outcome.code, steward.asked) == (2, [])
    assert "--yes" in outcome.err


@pytest.mark.parametrize("arguments", [("list",), ("verify",), ("clear", "--yes")])
def test_without_a_daemon_it_says_where_the_files_are(
    stoker: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Exit code 3, one line, and the folder that may be deleted by hand."""
    monkeypatch.setenv("STOKER_SOCKET", str(tmp_path / "control.sock"))
    monkeypatch.setenv("STOKER_CACHE_DIR", str(tmp_path / "cache"))
    outcome = stoker("cache", *arguments)

    assert (outcome.code, outcome.out) == (3, "")
    assert f"the files are in {tmp_path / 'cache' / 'prefixes'}" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("list",), ("verify",), ("clear", "x")])
def test_a_refusal_is_one_line_with_its_remedy(stoker: Run, serve: Serve, arguments: tuple[str, ...]) -> None:
    """The daemon's "no" is told as for other orders: one line, exit code 2."""
    serve(FakeSteward(fault=Refusal("no worker is ready", "wait for ready", ErrorCode.NOT_READY)))
    outcome = stoker("cache", *arguments)

    assert (outcome.code, outcome.out, outcome.err) == (2, "", "stoker: no worker is ready; wait for ready\n")
