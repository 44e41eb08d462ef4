"""Fake workers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.fake_daemon import FakeDaemon, Start


@pytest.fixture
def start() -> Iterator[Start]:
    daemons: list[FakeDaemon] = []

    def spawn(scenario: object = "", generation: int = 1) -> FakeDaemon:
        daemons.append(FakeDaemon(scenario, generation))
        return daemons[-1]

    yield spawn
    for daemon in daemons:
        daemon.close()
