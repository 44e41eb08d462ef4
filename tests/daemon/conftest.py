"""Virtual time, a place for sockets, and a look at what was left behind."""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from tests.fakes.living import Live, living

LONGEST_STORY = 1e7
"""Virtual seconds of a test: one that waits for what never comes fails, where it would hang for good."""


@pytest.fixture
def virtual_time() -> tuple[str, dict[str, Any]]:
    """A value for a module's own `anyio_backend`: whenever nothing can run, the clock jumps to the next deadline."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the tests that run in virtual time, where no clock of the wall's can end a wait."""
    for item in items:
        if isinstance(item, pytest.Function) and "virtual_time" in item.fixturenames:
            item.obj = _bounded(item.obj) if inspect.iscoroutinefunction(item.obj) else item.obj


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*arguments: Any, **named: Any) -> None:
        with anyio.fail_after(LONGEST_STORY):
            await test(*arguments, **named)

    return bounded


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private folder whose path is short enough for sockets; it must be without sockets at the end."""
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    try:
        yield folder
        left = [path.name for path in folder.rglob("*") if path.is_socket()]
    finally:
        shutil.rmtree(folder)
    assert not left, f"sockets left behind: {left}"


@pytest.fixture
def no_children() -> Iterator[None]:
    """The test must leave no process behind, not even a zombie."""
    yield
    with pytest.raises(ChildProcessError):  # nobody is there to be waited for
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def live(short_dir: Path) -> Live:
    """Begins the life of a fake worker."""
    return functools.partial(living, short_dir)
