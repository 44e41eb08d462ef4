"""How a wrong field is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from stoker.daemon.gateway.errors import ApiError
from stoker.daemon.gateway.fields import MAX_DEPTH, decoded, refuse_unless_neutral, require_shallow


class Item(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["a", "b"]


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    items: tuple[Item, ...] = ()
    size: Annotated[int, Meta(ge=1)] | None = None
    bias: dict[int, float] | None = None
    extra: Any = None


DECODER = msgspec.json.Decoder(Asked)


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ('{"size": 0}', "size", "invalid_value", "size: Expected `int` >= 1."),
        ('{"items": [{}]}', "items[0].kind", "missing_required_parameter", "items[0].kind is required."),
        ('{"bias": {"x": 1}}', "bias", "invalid_value", "bias: Expected `int`, got `str`."),
        (
            '{"items": [{"kind": "a"}, {"kind": "c"}]}',
            "items[1].kind",
            "invalid_value",
            "items[1].kind: Invalid enum value 'c'; it may be `a` or `b`.",
        ),
        (
            '{"colour": 1}',
            "colour",
            "unknown_parameter",
            "colour is not supported, and is not ignored either: leave it out.",
        ),
        ("[]", None, "invalid_value", "body: Expected `object`, got `array`."),
    ],
)
def test_refusal_names_the_field_and_what_it_may_be(body: str, param: str | None, code: str, message: str) -> None:
    """What was wrong comes with the field's path, and with the choice where there is one."""
    with pytest.raises(ApiError) as caught:
        decoded(DECODER, body.encode(), {"items[].kind": "`a` or `b`"})

    fault = caught.value.fault
    assert (fault.param, fault.code, fault.message) == (param, code, message)


def test_feature_that_is_not_built_has_a_way_out() -> None:
    """The refusal says which values ask for nothing, or what took the field's place."""
    with pytest.raises(ApiError, match=r'leave it out, or send "x" or null\.'):
        refuse_unless_neutral(Asked(extra="y"), {"extra": ("x",)}, {})
    with pytest.raises(ApiError, match=r"send something else\."):
        refuse_unless_neutral(Asked(extra="y"), {"extra": ("x",)}, {"extra": "send something else"})
    refuse_unless_neutral(Asked(extra="x"), {"extra": ("x",)}, {})


def test_depth_has_a_bound() -> None:
    """As many levels as the bound pass, one more does not, in lists as in objects."""
    lists: Any = 1
    objects: Any = 1
    for _ in range(MAX_DEPTH):
        lists, objects = [lists], {"a": objects}
    require_shallow([lists[0], objects["a"]], "x")
    for deep in ([lists], {"b": objects}):
        with pytest.raises(ApiError, match="x is nested too deeply: 100 levels"):
            require_shallow(deep, "x")
