"""What launchctl prints, and what its numbers are in words."""

from __future__ import annotations

import sys

import pytest

from stoker.launchd.calling import Reply
from stoker.launchd.job import ManagerError
from stoker.launchd.launchctl import MEANINGS, Launchctl, Printed, explained, is_disabled, parsed

PRINTED = """\
gui/501/stoker.daemon = {
	active count = 1
	path = /Users/someone/Library/LaunchAgents/stoker.daemon.plist
	type = LaunchAgent
	state = running

	program = /opt/stoker/bin/stoker
	arguments = {
		/opt/stoker/bin/stoker
		state = not this one
	}

	default environment = {
		PATH => /usr/bin:/bin:/usr/sbin:/sbin
	}

	minimum runtime = 15
	exit timeout = 50
	runs = 3
	pid = 4242
	immediate reason = speculative
	last terminating signal = Killed: 9

	endpoints = {
		"x" = {
			pid = 1
		}
	}
}
"""


def test_print_is_read() -> None:
    """State, process, file and last end are found; what is indented deeper belongs to something else."""
    assert parsed(PRINTED) == Printed(
        state="running",
        pid=4242,
        path="/Users/someone/Library/LaunchAgents/stoker.daemon.plist",
        last_exit="Killed: 9",
    )


@pytest.mark.parametrize("text", ["", "garbage", "\tpid = none\n", "\t\tstate = running\n"])
def test_print_that_says_nothing(text: str) -> None:
    """What can't be read is unknown."""
    assert parsed(text) == Printed()


@pytest.mark.parametrize(
    ("line", "disabled"),
    [
        ('\t\t"stoker.daemon" => disabled', True),
        ('\t\t"stoker.daemon" => true', True),
        ('\t\t"stoker.daemon" => enabled', False),
        ('\t\t"stoker.daemon" => false', False),
        ('\t\t"stoker.daemon.other" => disabled', False),
        ("", False),
    ],
)
def test_overrides(line: str, *, disabled: bool) -> None:
    """Old and new systems' words for a disabled label; one that is absent is enabled."""
    assert is_disabled(f"\tdisabled services = {{\n{line}\n\t}}", "stoker.daemon") is disabled


@pytest.mark.parametrize("code", MEANINGS)
def test_each_meaning_has_a_way_out(code: int) -> None:
    """Each number that is known is told with its cause, and with what to do."""
    what, remedy = MEANINGS[code]
    message = str(explained("bootstrap", Reply(code, "Bootstrap failed"), "gui/501/stoker.daemon"))

    assert what in message
    assert remedy.format(service="gui/501/stoker.daemon") in message
    assert "\n" not in message


def test_no_launchctl() -> None:
    """Elsewhere than on a Mac the error asks the right question."""
    with pytest.raises(ManagerError, match="No such file or directory; is this a Mac"):
        Launchctl(("/nonexistent/launchctl",)).call("print", "gui/501")


def test_call_gives_status_and_text() -> None:
    """Both of a call's outputs are kept, and its status as it is."""
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(113)"
    reply = Launchctl((sys.executable, "-c", program)).call("print")

    assert reply.code == 113
    assert sorted(reply.text.splitlines()) == ["err", "out"]
