"""The control socket's file goes away while the server runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import psutil
import pytest

from stoker.daemon import rebinding
from stoker.daemon.control import ControlServer
from stoker.daemon.readiness import Board
from stoker.daemon.runtime_dir import listen
from stoker.ipc.control import DaemonAbsent, connect
from tests.fakes.fake_steward import LOADING, FakeSteward

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, so that tests are short."""
    monkeypatch.setattr(rebinding, "LOOK", 0.01)


async def reached(path: Path) -> str:
    """The phase that a new connection hears, as soon as one can be made."""
    with anyio.fail_after(10):
        while True:
            try:
                async with connect(path) as client:
                    return (await client.ready()).phase
            except DaemonAbsent:
                await anyio.sleep(0.01)


@pytest.mark.parametrize("loss", ["deleted", "replaced", "with its folder"])
async def test_bound_again(short_dir: Path, loss: str) -> None:
    """A deleted or replaced socket is bound again, private, and open connections never notice."""
    path = short_dir / "run" / "control.sock"
    path.parent.mkdir(mode=0o700)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ControlServer(FakeSteward(Board(LOADING))).serve, listen(path), path)
        async with connect(path) as early:
            assert (await early.ready()).phase == "loading"
            if loss == "with its folder":
                shutil.rmtree(path.parent)
            else:
                path.unlink()
            if loss == "replaced":
                listen(path).close()  # a socket that nobody serves
            assert await reached(path) == "loading"
            assert (await early.ready()).phase == "loading"
        assert path.stat().st_mode & 0o777 == 0o600
        tasks.cancel_scope.cancel()
    path.unlink()


async def test_foreign_file_is_left_alone(short_dir: Path) -> None:
    """What is no socket is not overwritten; once it is moved away, the socket is there again."""
    path = short_dir / "control.sock"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ControlServer(FakeSteward(Board(LOADING))).serve, listen(path), path)
        await reached(path)
        path.unlink()
        path.write_text("mine", encoding="utf-8")
        await anyio.sleep(0.1)  # whoever overwrites it has had ten looks
        assert path.read_text(encoding="utf-8") == "mine"
        path.unlink()
        assert await reached(path) == "loading"
        tasks.cancel_scope.cancel()
    path.unlink()


async def test_descriptors_do_not_pile_up(short_dir: Path) -> None:
    """Each new listener replaces the old one."""
    path = short_dir / "control.sock"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ControlServer(FakeSteward(Board(LOADING))).serve, listen(path), path)
        await reached(path)
        before = psutil.Process().num_fds()
        for _ in range(5):
            path.unlink()
            await reached(path)
        await anyio.wait_all_tasks_blocked()
        assert psutil.Process().num_fds() <= before + 1
        tasks.cancel_scope.cancel()
    path.unlink()
