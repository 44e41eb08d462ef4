"""Where the configuration comes from: flag over environment over TOML file over default.

`python -m stoker.daemon.config` prints the table of `docs/configuration.md`.
"""

from __future__ import annotations

import ipaddress
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from ..ipc.messages import WarmPrefix
from .key_file import KeyFileError, others_may_read, read_key_file
from .model_path import ModelPathError, resolve_model, warn_of_prompt_file
from .runtime_dir import RuntimeDirError, check_length
from .settings import KEYS, Key, Settings
from .warmups import WarmupError, read_warmups

CLIENT_KEYS = frozenset({"socket", "runtime_dir", "log_dir"})
"""What a program that only asks the daemon needs; a mistake in another key must not keep it from asking."""

KEY_KEYS = frozenset({"api_keys", "api_key_file"})
"""What a program needs beside those that uses the HTTP API."""

TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})

SHOWN = 80
"""Characters of a bad value that a message repeats."""


class ConfigurationError(Exception):
    """The configuration can't be used. Exit code 78; the message is one line, with what is allowed.

    Attributes:
        key: The setting; None where the file as a whole is at fault.
        source: The flag, the environment variable, or the file.
    """

    def __init__(self, message: str, *, key: str | None, source: str) -> None:
        super().__init__(message)
        self.key = key
        self.source = source


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was found. `text` if numbers and truths come as text; `base` is what a relative path means."""

    key: Key
    value: object
    source: str
    base: Path
    text: bool = True

    def refused(self, allowed: str, *, name: str | None = None, value: object = None) -> ConfigurationError:
        """Why it can't be used; `name` and `value` are those of a part of it that is at fault."""
        shown = "(not shown)" if self.key.is_secret else repr(self.value if name is None else value)
        shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
        message = f"{name or self.key.name} = {shown} (from {self.source}) can't be used: {allowed}"
        return ConfigurationError(message, key=self.key.name, source=self.source)


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """The daemon's settings, and warnings about what was ignored or is dangerous.

    Args:
        flags: Values of the command line by key; None where a flag was not given.
        environ: The environment.
        file: The configuration file; None for `$STOKER_CONFIG`, or the platform's.

    Raises:
        ConfigurationError: If anything in any of the sources can't be used.
    """
    warnings: list[str] = [*_misspelt(environ)]
    given = _collect(flags, environ, file, KEYS, warnings)
    values = {name: _convert(one) for name, one in given.items()}
    if "model" in given:
        values["model"] = _model(given["model"])
    if "api_key_file" in given:
        values["api_keys"] = (*values.get("api_keys", ()), *_keys_in(given["api_key_file"]))
    settings = Settings(**values)
    _check_together(settings, given)
    warnings += _exposure(settings)
    warnings += _readable_keys(given)
    if settings.warmup_system_file is not None:
        warnings += warn_of_prompt_file(settings.warmup_system_file)
    return settings, tuple(warnings)


def load_client_settings(socket: Path | None, environ: Mapping[str, str]) -> Settings:
    """Settings with only what a client needs to find the daemon and its logs; the rest is default.

    Raises:
        ConfigurationError: If one of those can't be used, or the file can't be read.
    """
    given = _collect({"socket": socket}, environ, None, CLIENT_KEYS, [])
    return Settings(**{name: _convert(one) for name, one in given.items()})


def _collect(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None,
    wanted: Collection[str],
    warnings: list[str],
) -> dict[str, _Given]:
    """The winner for each wanted key; losers are checked too, because a mistake is one wherever it is."""
    winners: dict[str, _Given] = {}
    layers = (_from_file(file, environ, wanted), _from_environment(environ, warnings), _from_flags(flags))
    for layer in layers:
        for one in layer:
            if one.key.name in wanted:
                _convert(one)
                winners[one.key.name] = one
    return winners


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None:
            plain = str(value) if isinstance(value, Path) else value
            yield _Given(KEYS[name], plain, f"--{name.replace('_', '-')}", Path.cwd())


def _from_environment(environ: Mapping[str, str], warnings: list[str]) -> Iterator[_Given]:
    for key in KEYS.values():
        value = environ.get(key.env, "").strip() if key.env else ""
        if not value:
            continue  # an empty variable is how shells unset one for a command
        one = _Given(key, value, key.env, Path.cwd())
        if key.name == "warmup_timeout_sec":
            one = _forgiven(one, warnings)
        yield one


def _forgiven(one: _Given, warnings: list[str]) -> _Given:
    """`WARMUP_TIMEOUT_SEC` promises never to keep the service down."""
    try:
        _convert(one)
    except ConfigurationError:
        default = Settings().warmup_timeout_sec
        warnings.append(f"{one.source}={str(one.value)[:SHOWN]!r} is not {one.key.allowed}; {default:g} is used")
        return _Given(one.key, default, one.source, one.base, text=False)
    return one


def _from_file(file: Path | None, environ: Mapping[str, str], wanted: Collection[str]) -> Iterator[_Given]:
    named = file or (Path(environ["STOKER_CONFIG"]) if environ.get("STOKER_CONFIG") else None)
    path = (named or platformdirs.user_config_path("stoker") / "config.toml").expanduser().absolute()
    if named is None and not path.exists():
        return
    for name, value in _read_toml(path).items():
        if name in KEYS:
            yield _Given(KEYS[name], value, str(path), path.parent, text=False)
        elif len(wanted) == len(KEYS):  # a client has no business with the rest of the file
            close = get_close_matches(name, KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(KEYS)}"
            raise ConfigurationError(f"unknown key {name!r} in {path}; {hint}", key=name, source=str(path))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "there is no such file; write it, or name another with --config or STOKER_CONFIG"
    except OSError as error:
        problem = f"it can't be read: {error.strerror}"
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8: byte {error.start}"
    except tomllib.TOMLDecodeError as error:
        problem = f"it is not TOML: {error}"
    raise ConfigurationError(f"configuration file {path}: {problem}", key=None, source=str(path))


def _convert(one: _Given) -> Any:
    """The value in its setting's type."""
    value = one.value
    if one.key.name == "warmup":
        return _warmups(one)
    if one.text and isinstance(value, str):
        value = _from_text(value, one.key)

    def path_of(kind: type, raw: object) -> Path:
        if kind is not Path or not isinstance(raw, str) or not raw or "\0" in raw:
            raise ValueError(raw)
        return one.base / Path(raw).expanduser()

    try:
        return msgspec.convert(value, one.key.annotation, strict=not one.text, dec_hook=path_of)
    except (msgspec.ValidationError, RuntimeError) as error:  # RuntimeError: a home directory that isn't known
        raise one.refused(f"allowed is {one.key.allowed}") from error


def _from_text(value: str, key: Key) -> object:
    if key.is_flag:
        return True if value.lower() in TRUE else False if value.lower() in FALSE else value
    if key.is_list:
        return [part.strip() for part in value.split(",")]
    return value


def _warmups(one: _Given) -> tuple[WarmPrefix, ...]:
    try:
        return read_warmups(one.value, one.base)
    except WarmupError as error:
        raise one.refused(error.problem, name=error.key, value=error.value) from error


def _model(one: _Given) -> str:
    try:
        return resolve_model(str(one.value), one.base)
    except ModelPathError as error:
        raise one.refused(str(error)) from error


def _check_together(settings: Settings, given: Mapping[str, _Given]) -> None:
    if settings.backoff_cap_sec < settings.backoff_base_sec:
        one = given.get("backoff_cap_sec") or given["backoff_base_sec"]
        raise one.refused("backoff_cap_sec must be at least backoff_base_sec")
    try:
        check_length(settings.control_socket)
    except RuntimeDirError as error:
        culprit = given.get("socket") or given.get("runtime_dir")
        if culprit:
            raise culprit.refused(str(error)) from error
        raise ConfigurationError(str(error), key="socket", source="default") from error


def _exposure(settings: Settings) -> Iterator[str]:
    host = settings.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not settings.api_keys:
        yield (
            f"host = {host!r}: the HTTP API is open to the network, without a password; "
            "set api_key_file, or keep it private with 127.0.0.1"
        )


def _keys_in(one: _Given) -> tuple[str, ...]:
    try:
        return read_key_file(_convert(one))
    except KeyFileError as error:
        raise one.refused(str(error)) from error


def _readable_keys(given: Mapping[str, _Given]) -> Iterator[str]:
    keys = given.get("api_keys")
    if keys is not None and not keys.text and others_may_read(Path(keys.source)):
        yield f"{keys.source} holds api_keys, and others may read it: chmod 600 it, or use api_key_file"


def load_api_key(environ: Mapping[str, str]) -> str | None:
    """A key with which a command of ours may ask the daemon's HTTP API; None where none is needed, or to be had.

    Raises:
        ConfigurationError: If the keys are configured in a way that can't be used.
    """
    given = _collect({}, environ, None, KEY_KEYS, [])
    for name in ("api_keys", "api_key_file"):
        if one := given.get(name):
            keys = _keys_in(one) if name == "api_key_file" else _convert(one)
            return str(next(iter(keys), "")) or None
    return None


def _misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables of nobody that look like one of ours."""
    known = {key.env for key in KEYS.values() if key.env} | {"STOKER_CONFIG"}
    for name in environ:
        if name.startswith("STOKER_") and name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.8)
            if close:
                yield f"the environment variable {name} is unknown and ignored; did you mean {close[0]}?"


def table() -> str:
    """All settings as a Markdown table."""
    rows = [
        f"| `{key.name}` | {key.meaning} | {key.allowed} | {_quoted(key.default)} | {_variable(key)} |"
        for key in KEYS.values()
    ]
    return "\n".join(["| key | meaning | allowed | default | environment |", "|---|---|---|---|---|", *rows])


def _variable(key: Key) -> str:
    return f"`{key.env}`" if key.env else "none"


def _quoted(default: str) -> str:
    return f"`{default}`" if default[0] in '"0123456789' and " " not in default else default


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
