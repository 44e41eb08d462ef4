"""What the worker refuses."""

from __future__ import annotations

import pytest

from stoker.ipc.errors import RETRYABLE
from stoker.worker import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.WorkerError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_becomes_its_answer(kind: type[errors.WorkerError]) -> None:
    """An error's answer has its code, message and remedy, and is retryable where its code usually is."""
    answer = kind("what is wrong", remedy="what to do", field="prompt").response(7)

    assert (answer.id, answer.code, answer.message) == (7, kind.CODE, "what is wrong")
    assert (answer.data.remedy, answer.data.field) == ("what to do", "prompt")
    assert answer.data.retryable == (kind.CODE in RETRYABLE)


def test_retryable_can_be_said_of_one_error() -> None:
    """An error that is retryable by its code can say that this one is not."""
    assert errors.InsufficientMemory("too long for any machine", retryable=False).data.retryable is False
