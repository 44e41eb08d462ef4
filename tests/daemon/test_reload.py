"""A configuration that changed: what is done at once, with a new worker, or not at all."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import anyio
import msgspec
import pytest

from stoker.daemon.config import ConfigurationError
from stoker.daemon.reload import EFFECTS, Change, Effect, Reloader, compare
from stoker.daemon.settings import KEYS, Settings
from stoker.ipc.control_messages import ReloadStatus

pytestmark = pytest.mark.anyio

NOW = Settings()


def changed(**keys: object) -> Settings:
    return msgspec.structs.replace(NOW, **keys)


def test_every_key_is_decided() -> None:
    """For each setting it is said what its change takes, and for nothing else."""
    assert EFFECTS.keys() == KEYS.keys()


def test_same_configuration_is_no_change() -> None:
    """What has not changed is not touched."""
    assert compare(NOW, changed()).empty
    assert compare(NOW, changed()).told() == "nothing has changed"


def test_changes_are_told_apart() -> None:
    """Keys are sorted by what their change takes."""
    change = compare(NOW, changed(aliases=("gpt",), log_level="debug", model="other", port=1))

    assert change == Change(live=("aliases", "log_level"), worker=("model",), daemon=("port",))


def test_what_is_told() -> None:
    """What was done is a line that names the keys."""
    assert (
        compare(NOW, changed(aliases=("gpt",), model="other")).told() == "at once: aliases; with a new worker: model"
    )


@pytest.mark.parametrize("key", [key for key, effect in EFFECTS.items() if effect is Effect.DAEMON])
def test_fixed_key_refuses_all(key: str) -> None:
    """A key that can't be changed live is named, with the way out."""
    refusal = Change(daemon=(key,)).refusal

    assert refusal is not None
    assert refusal.startswith(f"{key} can't be changed while the daemon runs")
    assert "stop and start" in refusal


@dataclass
class Daemon:
    """Settings in force, and what was applied."""

    settings: Settings = NOW
    applied: list[Change] = field(default_factory=list)
    read: Settings | Exception = NOW
    warnings: tuple[str, ...] = ("a warning",)

    def reread(self) -> tuple[Settings, tuple[str, ...]]:
        if isinstance(self.read, Exception):
            raise self.read
        return self.read, self.warnings

    def apply(self, settings: Settings, change: Change) -> None:
        self.settings = settings
        self.applied.append(change)

    def reloader(self) -> Reloader:
        return Reloader(self.reread, lambda: self.settings, self.apply, ("of the start",))


async def test_reload_applies() -> None:
    """What was read is applied, and told with its warnings."""
    daemon = Daemon(read=changed(max_waiting=3))
    reloader = daemon.reloader()
    await reloader.reload()

    assert (daemon.settings.max_waiting, daemon.applied) == (3, [Change(live=("max_waiting",))])
    assert reloader.status is not None
    assert (reloader.status.outcome, reloader.status.message) == ("applied", "at once: max_waiting")
    assert reloader.warnings == ("a warning",)


async def test_mended_configuration_has_no_warnings() -> None:
    """Warnings of the start are not said any more once a configuration without any is in force."""
    reloader = Daemon(read=changed(max_waiting=3), warnings=()).reloader()
    before = reloader.warnings
    await reloader.reload()

    assert (before, reloader.warnings) == (("of the start",), ())


@pytest.mark.parametrize(
    ("read", "why"),
    [
        pytest.param(ConfigurationError("port = 'x' can't be used", key="port", source="f"), "port = 'x'", id="bad"),
        pytest.param(changed(port=1, max_waiting=3), "port can't be changed", id="not live"),
        pytest.param(RuntimeError("our own mistake"), "RuntimeError: our own mistake", id="our mistake"),
    ],
)
async def test_bad_reload_changes_nothing(read: Settings | Exception, why: str) -> None:
    """What can't be applied as a whole changes nothing, and says why; the next good one counts again."""
    daemon = Daemon(read=read)
    reloader = daemon.reloader()
    await reloader.reload()

    assert (daemon.settings, daemon.applied, reloader.warnings) == (NOW, [], ("of the start",))
    assert reloader.status is not None
    assert reloader.status.outcome == "refused"
    assert reloader.status.message.startswith(why)
    daemon.read = changed(max_waiting=3)
    await reloader.reload()
    assert daemon.settings.max_waiting == 3


@pytest.mark.parametrize("read", [changed(max_waiting=3), changed(port=1), RuntimeError("our own mistake")])
async def test_beginning_and_end_are_told(read: Settings | Exception) -> None:
    """Whoever listens hears that a reload begins, and then what became of it: applied, refused, or failed."""
    reloader = Daemon(read=read).reloader()
    heard: list[ReloadStatus | None] = []
    reloader.listen(heard.append)
    await reloader.reload()

    assert reloader.status is not None
    assert heard == [None, reloader.status]


async def test_configuration_that_hangs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is never read to its end is given up, so that neither a reload nor a stop behind it hangs."""
    monkeypatch.setattr("stoker.daemon.reload.READ_TIMEOUT", 0.01)
    let_go = threading.Event()

    def hang() -> tuple[Settings, tuple[str, ...]]:
        let_go.wait()
        return NOW, ()

    reloader = Reloader(hang, lambda: NOW, lambda *_: None)
    try:
        with anyio.fail_after(20):
            await reloader.reload()
    finally:
        let_go.set()

    assert reloader.status is not None
    assert (reloader.status.outcome, "could not be read within" in reloader.status.message) == ("refused", True)


async def test_daemon_without_configuration_refuses() -> None:
    """A daemon that was started from no configuration says so, and goes on."""
    reloader = Reloader(None, lambda: NOW, lambda *_: None)
    await reloader.reload()

    assert reloader.status is not None
    assert reloader.status.message == "this daemon has no configuration to read again"
