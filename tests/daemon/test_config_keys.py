"""Who may use the HTTP API, as configured; keys are in no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.daemon.config import ConfigurationError, load_api_key, load_settings
from stoker.daemon.environment import worker_environment
from stoker.daemon.settings import Settings

KEY = "sk-local-secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stoker.toml"
    path.touch(0o600)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text("key-of-the-file\n")
    return path


def test_keys_of_both_places_count(file: Path, keys: Path) -> None:
    """Keys of the configuration, or of the environment, and those of the key file are all accepted."""
    file.write_text(f'api_keys = ["{KEY}"]\napi_key_file = "keys"')

    assert load_settings({}, {}, file) == (
        Settings(api_keys=(KEY, "key-of-the-file"), api_key_file=keys),
        (),
    )
    assert load_settings({}, {"STOKER_API_KEYS": "other-key, third-key"}, file)[0].api_keys == (
        "other-key",
        "third-key",
        "key-of-the-file",
    )


@pytest.mark.parametrize("value", ["short", "with blank in it", KEY * 50])
def test_bad_key_is_not_quoted(file: Path, value: str) -> None:
    """A key that can't be one is refused with the setting's name and what is allowed; its text stays out of it."""
    with pytest.raises(ConfigurationError, match=r"api_keys = .*8 to 512 visible ASCII") as error:
        load_settings({}, {"STOKER_API_KEYS": value}, file)

    assert value not in str(error.value)


def test_bad_key_file_is_an_error(file: Path, keys: Path) -> None:
    """A key file that can't be used keeps the daemon from starting, rather than leave it open."""
    file.write_text(f'api_key_file = "{keys}"')
    keys.chmod(0o644)

    with pytest.raises(ConfigurationError, match=r"api_key_file = .*chmod 600") as error:
        load_settings({}, {}, file)
    assert "key-of-the-file" not in str(error.value)


def test_settings_do_not_show_keys() -> None:
    """Settings in a log or a traceback have no key in them."""
    assert KEY not in repr(Settings(api_keys=(KEY,)))
    assert "port=11500" in repr(Settings(api_keys=(KEY,)))


def test_worker_is_not_given_the_keys() -> None:
    """The worker's environment has no keys."""
    assert KEY not in str(worker_environment({"STOKER_API_KEYS": KEY}, 1, None))


def test_keys_that_others_may_read_are_warned_of(file: Path) -> None:
    """A configuration file with keys in it that everyone can read is pointed out; one without keys is not."""
    file.chmod(0o644)
    assert load_settings({}, {}, file)[1] == ()
    file.write_text(f'api_keys = ["{KEY}"]')
    (warning,) = load_settings({}, {}, file)[1]

    assert "chmod 600" in warning
    assert KEY not in warning


def test_open_host_with_keys_is_no_warning(file: Path) -> None:
    """With keys, the network is not warned of; without, the warning says how to get some."""
    assert load_settings({"host": "0.0.0.0"}, {"STOKER_API_KEYS": KEY}, file)[1] == ()
    (warning,) = load_settings({"host": "0.0.0.0"}, {}, file)[1]
    assert "api_key_file" in warning


@pytest.mark.parametrize("origin", ["*", "chat.example", "https://chat.example/", "https://*.example", "null"])
def test_origins_are_exact(file: Path, origin: str) -> None:
    """A pattern, or what no browser sends as an origin, is refused rather than never matched."""
    with pytest.raises(ConfigurationError, match="allowed_origins"):
        load_settings({}, {"STOKER_ALLOWED_ORIGINS": origin}, file)


def test_access_is_configured(file: Path) -> None:
    """Origins and open endpoints are lists, and only what can be opened may be."""
    environ = {"STOKER_ALLOWED_ORIGINS": "https://a.example, http://b:3000", "STOKER_OPEN_ENDPOINTS": "/readyz"}
    settings, _ = load_settings({}, environ, file)

    assert settings.allowed_origins == ("https://a.example", "http://b:3000")
    assert settings.open_endpoints == ("/readyz",)
    with pytest.raises(ConfigurationError, match="a list of /readyz, /metrics"):
        load_settings({}, {"STOKER_OPEN_ENDPOINTS": "/status"}, file)


def test_commands_find_a_key(file: Path, keys: Path) -> None:
    """A command that uses the HTTP API takes the first key that it finds; without keys, none."""
    environ = {"STOKER_CONFIG": str(file)}
    assert load_api_key(environ) is None
    file.write_text(f'port = -1\napi_key_file = "{keys}"')
    assert load_api_key(environ) == "key-of-the-file"
    assert load_api_key(environ | {"STOKER_API_KEYS": f"{KEY},other-key"}) == KEY
