"""What is tried in an old worker's place, and what comes back if it comes to nothing, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stoker.daemon.slot import MakeLife
from tests.fakes.fake_life import NEVER, Course
from tests.fakes.scene import Scene, living, supervised

pytestmark = pytest.mark.anyio

GOOD = Course()
REFUSED = Course(load_failed="no such model", fatal=True)


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Time is virtual here."""
    return virtual_time


def otherwise(scene: Scene, made: list[int]) -> MakeLife:
    """Another way of making lives; `made` gets the generations that it made."""

    def make(generation: int, *arguments: Any) -> Any:
        made.append(generation)
        return scene.make_life(generation, *arguments)

    return make


@pytest.mark.parametrize(
    ("courses", "why"),
    [
        pytest.param((GOOD, REFUSED, GOOD), "no such model", id="refused model"),
        pytest.param((GOOD, Course(dies=0.5, cause="crashed"), GOOD), "crashed", id="crash"),
        pytest.param((GOOD, Course(load=(NEVER,)), GOOD), "no progress", id="hung load"),
    ],
)
async def test_in_place_goes_back_to_what_served(courses: tuple[Course, ...], why: str) -> None:
    """Without room, one made otherwise that does not become ready is followed by one as before, unseen."""
    made: list[int] = []
    async with supervised(*courses) as scene:
        await scene.until("ready")
        scene.supervisor.restart(make_life=otherwise(scene, made))
        now = await scene.until("ready", generation=len(courses))

        assert why in (now.replacement_failed or "")
        assert "failed" not in [phase for _, phase in scene.phases]
        assert made == list(range(2, len(courses)))
        scene.lives[-1].die("exited with code 1")
        await scene.until("ready", generation=len(courses) + 1)
        assert len(made) == len(courses) - 2


async def test_in_place_has_nothing_to_go_back_to() -> None:
    """Where no worker was ever ready what fails has failed, however the next one is made."""
    async with supervised(REFUSED) as scene:
        await scene.until("failed")
        scene.supervisor.restart(make_life=scene.make_life)
        await anyio.sleep(1000)

        assert scene.board.current.phase == "failed"
        assert len(scene.lives) == 2


async def test_in_place_goes_back_from_a_second_mistake_too() -> None:
    """An order that comes while the old worker is on its way back, and fails too, ends in the same way back."""
    async with supervised(GOOD, REFUSED, GOOD, REFUSED, GOOD) as scene:
        await scene.until("ready")
        scene.supervisor.restart(make_life=scene.make_life)
        await scene.until("loading", generation=3)
        scene.supervisor.restart(make_life=scene.make_life)
        now = await scene.until("ready", generation=5)

        assert now.replacement_failed == "no such model"
        assert "failed" not in [phase for _, phase in scene.phases]


async def test_in_place_goes_back_warm() -> None:
    """A cold restart with a new configuration that comes to nothing is followed by a worker that is warmed."""
    async with supervised(GOOD, REFUSED, GOOD) as scene:
        await scene.until("ready")
        scene.supervisor.restart(cold=True, make_life=scene.make_life)

        assert (await scene.until("ready", generation=3)).warm


@pytest.mark.parametrize(("former", "room"), [(GOOD, False), (Course(dies=8.5), True)], ids=["in place", "promoted"])
async def test_a_trial_that_passed_is_what_serves_from_then_on(former: Course, room: bool) -> None:
    """Once a worker made otherwise was ready, a later failure is its own; there is no way back."""
    async with supervised(former, GOOD, REFUSED, room=room) as scene:
        await scene.until("ready")
        scene.supervisor.restart(make_life=scene.make_life)
        await scene.until("ready", generation=2)
        scene.lives[-1].die("exited with code 1")
        await scene.until("failed")

        assert len(scene.lives) == 3


@pytest.mark.parametrize(
    "course",
    [
        pytest.param(Course(load=(NEVER,)), id="hung load"),
        pytest.param(Course(dies=5, cause="crashed"), id="crash"),
        pytest.param(Course(hello=9, load_failed="no such model", fatal=True), id="refused model"),
    ],
)
async def test_promoted_successor_has_a_way_back(course: Course) -> None:
    """A promoted successor that is made otherwise, and does not become ready, is followed by one as the dead was."""
    made: list[int] = []
    async with supervised(Course(dies=8.5), course, GOOD, room=True) as scene:
        await scene.until("ready")
        scene.supervisor.restart(make_life=otherwise(scene, made))
        now = await scene.until("ready", generation=3)

        assert now.replacement_failed is not None
        assert now.warm
        assert "failed" not in [phase for _, phase in scene.phases]
        assert made == [2]
        assert living(scene) == [3]
