"""Installing as a launch agent, against a launchd that really runs what it is given."""

from __future__ import annotations

import os
import plistlib
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stoker.launchd.agent import LABEL
from stoker.launchd.job import ManagerError
from tests.launchd.conftest import Mac


def ends(pid: int) -> bool:
    """Whether a process is gone, or goes in a moment."""
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    return True


POLITE = "trap 'exit 0' TERM\ntouch polite-$$\nwhile :; do sleep 0.01; done"
"""A daemon that ends with 0 when it is asked to, from the moment on that its file is there."""


def polite(mac: Mac, besides: int | None = None) -> int:
    """The pid of a `POLITE` daemon that can be asked."""
    pid = mac.pid(besides)
    while not (mac.home / f"polite-{pid}").exists():
        assert psutil.pid_exists(pid)
    return pid


def test_installed_job_runs(mac: Mac) -> None:
    """After an install the property list is there, private to its owner's pen, and the program runs."""
    agent = mac.agent()
    agent.install(mac.job())

    assert psutil.Process(mac.pid()).is_running()
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o644
    assert plistlib.loads(agent.path.read_bytes())["Label"] == LABEL
    assert not list(agent.path.parent.glob(".*")), "no temporary file is left"


def test_umask_of_a_group_does_not_matter(mac: Mac) -> None:
    """Under a umask that lets the group write, launchd still takes the property list."""
    old = os.umask(0o002)
    try:
        mac.agent().install(mac.job())
    finally:
        os.umask(old)

    assert mac.pid()


def test_install_twenty_times(mac: Mac) -> None:
    """However often it is installed, there is one daemon in the end, and it is the last one."""
    pids: list[int] = []
    for _ in range(20):
        mac.agent().install(mac.job())
        pids.append(mac.pid(besides=pids[-1] if pids else None))

    assert all(ends(pid) for pid in pids[:-1])
    assert psutil.Process(pids[-1]).is_running()


def test_install_over_one_that_is_slow_to_die(mac: Mac) -> None:
    """The old daemon gets its whole time to stop, and the new one is bootstrapped after it."""
    mac.agent().install(mac.job("trap 'sleep 0.3; exit 0' TERM\nwhile :; do sleep 0.01; done"))
    old = mac.pid()
    mac.agent().install(mac.job())

    assert mac.pid(besides=old)
    assert ends(old)


def test_install_over_one_that_ignores_term(mac: Mac) -> None:
    """What does not stop is killed after the time that the property list gives it; the install waits for that."""
    mac.agent().install(mac.job("trap '' TERM\nwhile :; do sleep 0.01; done", stop_seconds=5))
    old = mac.pid()
    mac.agent().install(mac.job(stop_seconds=5))

    assert mac.pid(besides=old)
    assert ends(old)


def test_label_that_stays_taken(mac: Mac) -> None:
    """A label that is not free yet although its process has gone only takes longer."""
    mac.behaves(label_lag=4)
    mac.agent().install(mac.job())
    old = mac.pid()
    mac.agent().install(mac.job())

    assert mac.pid(besides=old)


def test_old_daemon_that_never_goes(mac: Mac) -> None:
    """An old daemon that outlives everything is an error that says so, and nothing is bootstrapped beside it."""
    mac.behaves(label_lag=1000)
    mac.agent().install(mac.job(stop_seconds=1))
    mac.pid()
    with pytest.raises(ManagerError, match="has not ended after 31 s; look at `stoker logs`"):
        mac.agent().install(mac.job(stop_seconds=1))


@pytest.mark.parametrize("code", [5, 36, 37])
def test_bootstrap_that_fails_for_a_moment(mac: Mac, code: int) -> None:
    """The numbers that an old instance on its way out gives are tried again."""
    mac.behaves(bootstrap_errors=[code, code])
    mac.agent().install(mac.job())

    assert mac.pid()


@pytest.mark.parametrize("code", [5, 17, 37])
def test_start_of_a_loaded_job(mac: Mac, code: int) -> None:
    """What is loaded already is started, whatever number launchd has for that."""
    mac.behaves(loaded_code=code)
    mac.agent().install(mac.job())
    before = mac.pid()
    mac.agent().start()

    assert mac.pid() == before


def test_bootstrap_that_fails_for_good(mac: Mac) -> None:
    """An error that does not go away is told with launchd's number, and with what to look at."""
    mac.behaves(bootstrap_errors=[5] * 1000)
    with pytest.raises(ManagerError, match=r"bootstrap failed with 5 .*log show --last 10m"):
        mac.agent().install(mac.job())


def test_disabled_from_long_ago(mac: Mac) -> None:
    """A label that was disabled once is enabled by an install: otherwise launchd would answer 5 for ever."""
    mac.disable()
    mac.agent().install(mac.job())

    assert mac.pid()


def test_loaded_but_not_started(mac: Mac) -> None:
    """A job that launchd loads and does not start gets a kick."""
    mac.behaves(idle=True)
    mac.agent().install(mac.job())

    assert mac.pid()


def test_switched_off_by_the_user(mac: Mac) -> None:
    """Where the user has switched the item off, the error names the place in the settings."""
    mac.behaves(forbidden=True)
    with pytest.raises(ManagerError, match="Login Items & Extensions"):
        mac.agent().install(mac.job())


def test_nobody_at_the_screen(mac: Mac) -> None:
    """Over ssh, with nobody logged in at the screen, the user's own domain runs it."""
    mac.behaves(gui=False)
    agent = mac.agent()
    agent.install(mac.job())

    assert mac.pid()
    assert agent.uninstall()


def test_no_session_at_all(mac: Mac) -> None:
    """Without any session the error says what is missing."""
    mac.behaves(session=False, gui=False)
    with pytest.raises(ManagerError, match="no session that launchd could run an agent in"):
        mac.agent().install(mac.job())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (122, "others may write it"),
        (124, "the session is ending"),
        (125, "this session's domain runs no agents"),
        (134, "may not run in this kind of session"),
        (155, "quarantined"),
        (9999, "`launchctl error 9999` may say more"),
    ],
)
def test_each_number_in_words(mac: Mac, code: int, words: str) -> None:
    """Each number that is known to come becomes a cause and a way out; an unknown one is told as it is."""
    mac.behaves(bootstrap_errors=[code])
    with pytest.raises(ManagerError, match=f"failed with {code} .*{words}"):
        mac.agent().install(mac.job())


def test_under_sudo(mac: Mac) -> None:
    """Root is refused: the file would belong to root, and the agent to nobody's session."""
    with pytest.raises(ManagerError, match="without sudo"):
        mac.agent(uid=0).install(mac.job())

    assert not mac.agent().path.exists()


def test_program_that_is_missing(mac: Mac) -> None:
    """Launchd says 78 for a program that is not there, and the standing shows it."""
    job = mac.job()
    job.program.unlink()
    mac.agent().install(job)
    until: Callable[[], bool] = lambda: "78: EX_CONFIG" in mac.agent().standing().words  # noqa: E731 - asked again
    while not until():
        pass

    assert mac.agent().standing().pid is None


def test_crash_is_followed_by_a_new_process(mac: Mac) -> None:
    """A daemon that is killed comes back; one that ends with 0 does not."""
    mac.agent().install(mac.job(POLITE))
    first = polite(mac)
    os.kill(first, signal.SIGKILL)
    second = polite(mac, besides=first)
    os.kill(second, signal.SIGTERM)
    ends(second)

    while mac.agent().standing().pid is not None:
        pass
    assert mac.agent().standing().words == "not running; last exit: 0"


def test_stop_and_start(mac: Mac) -> None:
    """Stopped, it stays down; started, it is there again, also after a stop by its own control socket (exit 0)."""
    mac.agent().install(mac.job(POLITE))
    first = polite(mac)
    mac.agent().stop()
    stopped = mac.agent().standing()
    mac.agent().start()

    assert ends(first)
    assert (stopped.installed, stopped.loaded) == (True, False)
    assert mac.pid()


def test_uninstall_leaves_nothing(mac: Mac) -> None:
    """After an uninstall there is no job, no process and no file; the label is not left disabled."""
    agent = mac.agent()
    agent.install(mac.job())
    pid = mac.pid()

    assert agent.uninstall() is True
    assert ends(pid)
    assert not agent.path.exists()
    assert agent.standing().loaded is False
    assert agent.uninstall() is False
    agent.install(mac.job())
    assert mac.pid()


def test_uninstall_of_what_is_only_a_file(mac: Mac) -> None:
    """A property list that was never loaded is removed all the same."""
    path = mac.agent().path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")

    assert mac.agent().uninstall() is True
    assert not path.exists()


@pytest.mark.parametrize("act", ["start", "stop"])
def test_not_installed(mac: Mac, act: str) -> None:
    """Start and stop of what is not installed say how to install it."""
    with pytest.raises(ManagerError, match="run `stoker install`"):
        getattr(mac.agent(), act)()


def test_print_that_can_not_tell(mac: Mac) -> None:
    """An answer that can't be read is unknown, never "stopped"; an install stops there, and says so."""
    mac.behaves(print_error=142)

    assert mac.agent().standing().loaded is None
    with pytest.raises(ManagerError, match="print failed with 142"):
        mac.agent().install(mac.job())


def test_folder_that_can_not_be_written(mac: Mac, tmp_path: Path) -> None:
    """Where the property list can't be written, the error names the path."""
    (mac.home / "Library").write_text("a file in the way")
    with pytest.raises(ManagerError, match=r"cannot write .*stoker\.daemon\.plist: Not a directory"):
        mac.agent().install(mac.job())


def test_plan_is_what_an_install_does(mac: Mac) -> None:
    """A dry run names the file, its text and the verbs, and changes nothing."""
    plan = mac.agent().plan(mac.job())

    assert not plan.path.exists()
    assert plistlib.loads(plan.text.encode())["ProcessType"] == "Interactive"
    verbs = [command[len(mac.launchctl.program)] for command in plan.commands]
    assert verbs == ["bootout", "enable", "bootstrap", "kickstart"]
