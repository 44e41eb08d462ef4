"""Which names mean our model."""

from __future__ import annotations

import pytest

from stoker.daemon.gateway.names import is_known, listed
from tests.fakes.fake_dispatch import FakeModels

OURS = FakeModels(id="hub/Some-Model", aliases=("gpt-4o",))


@pytest.mark.parametrize("name", ["hub/Some-Model", "Some-Model", "gpt-4o", "default"])
def test_our_names_are_known(name: str) -> None:
    """The id, its last part, an alias and `default` all mean the model."""
    assert is_known(OURS, name)


@pytest.mark.parametrize("name", ["", "hub", "some-model", "gpt-4", "other/Some-Model"])
def test_other_names_are_not(name: str) -> None:
    """A name that is almost ours is another model."""
    assert not is_known(OURS, name)


def test_any_name_is_known_where_configured() -> None:
    """`accept_any_model` is for agents that insist on names of their own."""
    assert is_known(FakeModels(id="ours", accept_any=True), "claude-x")


def test_list_names_each_once() -> None:
    """An alias that repeats the id, or another alias, is not listed again."""
    assert listed(FakeModels(id="a", aliases=("b", "a", "b"))) == ("a", "b")
