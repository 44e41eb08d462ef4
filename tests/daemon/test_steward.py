from __future__ import annotations

import pytest

from stoker.daemon.steward import Refusal, is_settled
from stoker.ipc.control_messages import Readiness
from stoker.ipc.errors import ErrorCode
from tests.fakes.fake_steward import FAILED, LOADING, READY


@pytest.mark.parametrize(("readiness", "settled"), [(READY, True), (FAILED, True), (LOADING, False)])
def test_waiting_ends_with_ready_or_failed(readiness: Readiness, settled: bool) -> None:
    """Only these two end the wait for ready; a phase that leads to another doesn't."""
    assert is_settled(readiness) is settled


def test_a_refusal_is_a_plain_no_unless_said_otherwise() -> None:
    """Without a code it means that the daemon understood and declines."""
    assert Refusal("no").code is ErrorCode.REFUSED
