from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from stoker.daemon.settings import KEYS, Settings, describe


def test_every_key_says_what_it_means_and_allows() -> None:
    """No setting is undocumented, and each variable is named once."""
    assert set(KEYS) == set(Settings.__struct_fields__)
    assert all(key.meaning.endswith(".") and key.allowed and key.default for key in KEYS.values())
    assert len({key.env for key in KEYS.values()}) == len(KEYS)


def test_the_seeds_variables_have_their_own_names() -> None:
    """Three keys keep the names of the environment variables that they had before; others get a prefix."""
    own = {key.env for key in KEYS.values() if key.env and not key.env.startswith("STOKER_")}

    assert own == {"KV_CACHE_WARMUP", "WARMUP_TIMEOUT_SEC", "WARMUP_SYSTEM_FILE"}


def test_defaults_are_allowed() -> None:
    """Each default satisfies its own annotation."""
    settings = Settings()
    for name, key in KEYS.items():
        value = getattr(settings, name)
        assert msgspec.convert(value, key.annotation) == value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("port", "a whole number from 0 to 65535"),
        ("wait_timeout_sec", "a number of seconds over 0"),
        ("context_tokens", "a whole number of at least 1"),
        ("kv_cache_warmup", "true or false"),
        ("aliases", "a list of text"),
        ("socket", "a path"),
    ],
)
def test_what_is_allowed_is_said_in_words(name: str, words: str) -> None:
    """Ranges and choices are derived from the types, so that messages and checks can't differ."""
    assert describe(KEYS[name].annotation) == words


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has a place of its own")
def test_the_runtime_directory_is_the_sessions_or_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a session directory it is there; without one it is a folder in the temporary directory with our uid."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert Settings().runtime_dir == tmp_path / "stoker"

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert Settings().runtime_dir.name == f"stoker-{os.getuid()}"


def test_the_control_socket_is_in_the_runtime_directory_unless_configured() -> None:
    """`socket` wins; else the socket has its usual name."""
    assert Settings(runtime_dir=Path("/r")).control_socket == Path("/r/control.sock")
    assert Settings(runtime_dir=Path("/r"), socket=Path("/s")).control_socket == Path("/s")
