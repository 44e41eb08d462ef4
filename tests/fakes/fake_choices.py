"""A backend whose requests each have a script of their own, for several generations at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stoker.daemon.dispatch import Output
from stoker.ipc.messages import Generate
from tests.fakes.fake_dispatch import FakeBackend, FakeDispatch, Step


class FakeChoices(FakeDispatch):
    """Plays a script for each request, in their order; tells which ones have been left, and when all have."""

    def __init__(self, *scripts: tuple[Step, ...]) -> None:
        super().__init__(())
        self._scripts = scripts
        self.left: list[int] = []

    @asynccontextmanager
    async def generate(self, body: Generate) -> AsyncIterator[AsyncIterator[Output]]:
        """Serve the next script."""
        place = len(self.bodies)
        self.bodies.append(body)
        try:
            yield FakeDispatch(self._scripts[place])._play()
        finally:
            self.left.append(place)
            if len(self.left) == len(self._scripts):
                self.left_early.set()


def playing_each(*scripts: tuple[Step, ...]) -> FakeBackend:
    """A backend that plays a script for each request."""
    return FakeBackend(dispatch=FakeChoices(*scripts))
