"""What settings mean to the parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.daemon import derived
from stoker.daemon.settings import Settings

TOO_MUCH = 1 << 60


@pytest.mark.parametrize(
    ("replacement", "occupied", "room"),
    [
        ("beside", TOO_MUCH, True),
        ("beside", None, True),
        ("in-place", 0, False),
        ("auto", TOO_MUCH, False),
        ("auto", None, False),
    ],
)
def test_room_is_as_configured_or_as_there_is(replacement: str, occupied: int | None, room: bool) -> None:
    """`beside` and `in-place` decide it; `auto` asks the machine, and doesn't guess about a process that is gone."""
    settings = Settings(replacement=replacement)  # type: ignore[arg-type]

    assert derived.is_room(settings, occupied) is room


def test_larger_model_needs_its_own_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new model's weights count where they are more than what the present worker occupies."""
    (tmp_path / "model.safetensors").write_bytes(b"x" * 5000)
    monkeypatch.setattr(derived, "machine_memory", lambda: (10_000, 6000))

    assert derived.weights(str(tmp_path)) == 5000
    assert not derived.is_room(Settings(model=str(tmp_path)), 100 << 10)
    assert derived.is_room(Settings(), 4000)
    assert derived.is_room(Settings(model=str(tmp_path)), 100)
    monkeypatch.setattr(derived, "machine_memory", lambda: (10_000, 5999))
    assert not derived.is_room(Settings(model=str(tmp_path)), 100)


def test_models_of_what_is_served() -> None:
    """Clients ask for the model that is served, even where another one is configured and did not come up."""
    settings = Settings(model="/models/new", aliases=("gpt",))

    assert derived.models(settings).id == "new"
    assert derived.models(settings, "/models/old").id == "old"
    assert derived.models(settings, "embedded").id == derived.EMBEDDED_ID


def test_ceiling_is_configured_or_the_machines() -> None:
    """Without a ceiling of its own, a worker may grow to most of the machine."""
    assert derived.ceiling(Settings(memory_ceiling_bytes=77)) == 77
    assert derived.ceiling(Settings()) > 1 << 20
